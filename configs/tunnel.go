package configs

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wgexpose/wgexpose/tunnel"
)

// Tunnel is one service to publish, checked and in canonical form.
type Tunnel struct {
	Name              string
	Kind              tunnel.Kind
	Upstream          string // as tunnel.Upstream prints it: http://127.0.0.1:8089
	URL               string // http, tls: the host name asked for; empty: the name under the edge's domain
	Port              uint16 // tcp: the public port asked for; 0: the edge chooses
	HostHeader        string // http: sent to the upstream in place of the visitor's
	UpstreamProtocol  string // http: tunnel.HTTP2, or empty for HTTP/1.1
	Compression       bool   // http: the edge compresses answers that the upstream did not
	HSTS              bool   // http: browsers are told to come over HTTPS alone
	TerminateAt       string // tls: tunnel.AtEdge, tunnel.AtAgent, or empty for the upstream; http: tunnel.AtAgent, or empty for the edge
	ProxyProtocol     int    // tcp, tls: 1 or 2 for a PROXY header to the upstream, 0 for none
	UpstreamTLSVerify *bool  // http with an https:// upstream; see VerifiesUpstreamTLS
	Folder            string // http with a file:// upstream: its absolute path
	Listing           *bool  // of a folder: list what has no index.html; nil means true
	Inspect           *bool  // http: its requests are shown where those of others are; nil means true
	SPA               bool   // of a folder: /index.html for what is no file

	WarningPage    bool           // http: browsers are warned before the first page
	BasicAuth      []Credential   // http: who may come in
	CIDRAllow      []netip.Prefix // visitors' networks
	CIDRDeny       []netip.Prefix
	RequestHeader  tunnel.HeaderRules // http
	ResponseHeader tunnel.HeaderRules // http
}

// VerifiesUpstreamTLS reports whether the certificate of an https:// upstream is
// checked: as the user says, and otherwise unless it is on this machine. Nobody is
// between this machine and itself, and programs on it sign their certificates
// themselves.
func (t Tunnel) VerifiesUpstreamTLS() bool {
	if t.UpstreamTLSVerify != nil {
		return *t.UpstreamTLSVerify
	}
	u, err := tunnel.ParseUpstream(t.Kind, t.Upstream)
	if err != nil || u.Scheme != "https" {
		return true
	}
	addr, err := netip.ParseAddr(u.Host)
	return u.Host != "localhost" && (err != nil || !addr.Unmap().IsLoopback())
}

// tunnelKeys are the keys of one tunnel, in the order in which help names them.
func tunnelKeys() []string {
	return append([]string{"kind", "upstream", "url", "port", "host_header", "upstream_protocol", "compression", "hsts", "terminate_at", "proxy_protocol", "upstream_tls_verify", "listing", "spa", "inspect", "warning_page"}, policyKeys()...)
}

// kindsOf tells to which kinds alone a key belongs; nil: to all.
func kindsOf(key string) []tunnel.Kind {
	switch key {
	case "url":
		return []tunnel.Kind{tunnel.HTTP, tunnel.TLS}
	case "host_header", "upstream_protocol", "compression", "hsts", "upstream_tls_verify", "listing", "spa", "inspect", "warning_page", "basic_auth",
		"request_header_add", "request_header_remove", "response_header_add", "response_header_remove":
		return []tunnel.Kind{tunnel.HTTP}
	case "port":
		return []tunnel.Kind{tunnel.TCP}
	case "terminate_at":
		return []tunnel.Kind{tunnel.HTTP, tunnel.TLS}
	case "proxy_protocol":
		return []tunnel.Kind{tunnel.TCP, tunnel.TLS}
	}
	return nil
}

func joinKinds(kinds []tunnel.Kind) string {
	words := make([]string, len(kinds))
	for i, kind := range kinds {
		words[i] = string(kind)
	}
	return strings.Join(words, " or ")
}

// parseTerminateAt reads where TLS ends; the place that needs no word is empty.
func parseTerminateAt(kind tunnel.Kind, s string) (string, error) {
	usual, places := tunnel.AtEdge, []string{tunnel.AtEdge, tunnel.AtAgent}
	if kind == tunnel.TLS {
		usual, places = "upstream", []string{"upstream", tunnel.AtAgent, tunnel.AtEdge}
	}
	at, err := oneOf(s, places...)
	if at == usual {
		at = ""
	}
	return at, err
}

// enforcedByEdge are the keys of what an edge does with requests, which it does not
// see where TLS ends at the agent.
func enforcedByEdge() []string {
	return []string{"basic_auth", "request_header_add", "request_header_remove", "response_header_add", "response_header_remove"}
}

// ParseTunnel checks a tunnel whose settings are given as text by key; a key
// that is absent is not set. Several values of a key stand on lines of their own,
// which none of them can hold. The problems, one key each and no place, are all
// that can be found; key "" is the name. name may be empty for a tunnel that
// the edge or the agent names.
func ParseTunnel(name string, values map[string]string) (Tunnel, []Problem) {
	t := Tunnel{Name: name}
	var problems []Problem
	problem := func(key string, err error) {
		problems = append(problems, Problem{Key: key, Message: err.Error()})
	}
	if name != "" {
		if err := tunnel.ValidateName(name); err != nil {
			problem("", err)
		}
	}
	var err error
	if kind, ok := values["kind"]; !ok {
		problem("kind", fmt.Errorf("missing; allowed: %s, %s, %s", tunnel.HTTP, tunnel.TCP, tunnel.TLS))
	} else if t.Kind, err = oneOf(kind, tunnel.HTTP, tunnel.TCP, tunnel.TLS); err != nil {
		problem("kind", err)
	}
	upstream, ok := values["upstream"]
	if !ok {
		problem("upstream", fmt.Errorf("missing; name the private target, such as 127.0.0.1:8089"))
	}
	if t.Kind == "" {
		return t, problems // what else is allowed depends on the kind
	}
	if folder, isFile := strings.CutPrefix(upstream, "file://"); ok && isFile && t.Kind == tunnel.HTTP {
		if t.Folder, err = parseFolder(folder); err != nil {
			problem("upstream", err)
		} else {
			t.Upstream = "file://" + filepath.ToSlash(t.Folder)
		}
	} else if ok {
		u, err := tunnel.ParseUpstream(t.Kind, upstream)
		if err != nil {
			problem("upstream", err)
		} else {
			t.Upstream = u.String()
		}
	}
	for _, key := range tunnelKeys() {
		value, set := values[key]
		if !set {
			continue
		}
		if kinds := kindsOf(key); kinds != nil && !slices.Contains(kinds, t.Kind) {
			problem(key, fmt.Errorf("belongs to a tunnel of kind %s; this one is %s", joinKinds(kinds), t.Kind))
			continue
		}
		var err error
		switch key {
		case "url":
			if host, ok := strings.CutPrefix(value, "tls://"); ok && t.Kind == tunnel.TLS {
				value = host
			}
			t.URL, err = parseURL(value)
		case "port":
			t.Port, err = parsePort(value)
		case "host_header":
			t.HostHeader, err = parseHostHeader(value)
		case "upstream_protocol":
			if value, err = oneOf(value, "http1", tunnel.HTTP2); value == tunnel.HTTP2 {
				t.UpstreamProtocol = value
			}
		case "compression":
			t.Compression, err = parseBool(value)
		case "hsts":
			t.HSTS, err = parseBool(value)
		case "terminate_at":
			t.TerminateAt, err = parseTerminateAt(t.Kind, value)
		case "proxy_protocol":
			t.ProxyProtocol, err = parseProxyProtocol(value)
		case "upstream_tls_verify":
			var verify bool
			verify, err = parseBool(value)
			t.UpstreamTLSVerify = &verify
			if err == nil && t.Upstream != "" && !strings.HasPrefix(t.Upstream, "https://") {
				err = fmt.Errorf("has a meaning for an https:// upstream alone, and this one is %s", t.Upstream)
			}
		case "warning_page":
			t.WarningPage, err = parseBool(value)
		case "inspect":
			var on bool
			on, err = parseBool(value)
			t.Inspect = &on
		case "listing", "spa":
			var on bool
			if on, err = parseBool(value); key == "spa" {
				t.SPA = on
			} else {
				t.Listing = &on
			}
			if err == nil && t.Folder == "" {
				err = errors.New("has a meaning for a folder alone, an upstream such as file:///srv/www")
			}
		default:
			err = t.setPolicy(key, value)
		}
		if err != nil {
			problem(key, err)
		}
	}
	for _, key := range enforcedByEdge() {
		if _, set := values[key]; set && t.TerminateAt == tunnel.AtAgent && t.Kind == tunnel.HTTP {
			problem(key, errors.New("is for the edge to enforce, which sees no requests where TLS ends at the agent: leave it out, or terminate_at agent"))
		}
	}
	return t, problems
}
