package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Schemes of an [Upstream].
const (
	SchemeHTTP  = "http"
	SchemeHTTPS = "https"
	SchemeTCP   = "tcp"
	SchemeUnix  = "unix"
)

// An Upstream is the private target of a tunnel, which the agent dials.
type Upstream struct {
	Scheme string // http, https, tcp or unix
	Host   string // an IP address without brackets, or a name; "" for unix
	Port   uint16 // 0 for unix
	Path   string // of the socket, for unix only
}

// maxSocketPath is sun_path without its terminating zero (unix(7)). Some
// systems allow a few bytes less, and say so when it is dialled.
const maxSocketPath = 107

// ParseUpstream reads the target of a tunnel of this kind:
//
//	8089  :8089                            127.0.0.1, port 8089
//	192.168.1.10:22  nas:22  [::1]:80      host and port
//	http://…  https://nas.lan              for http tunnels; the port may be left out
//	tcp://127.0.0.1:22                     for tcp and tls tunnels
//	unix:/run/x.sock                       a Unix socket; for http tunnels it speaks plain HTTP
//
// An unspecified host, which programs print when they listen on all addresses,
// is the loopback address. The error says what is wrong and what to write.
func ParseUpstream(kind Kind, target string) (Upstream, error) {
	u, err := parseUpstream(kind, target)
	if err != nil {
		return Upstream{}, fmt.Errorf("target %q: %w", clip(target), err)
	}
	return u, nil
}

func parseUpstream(kind Kind, target string) (Upstream, error) {
	if err := kind.Validate(); err != nil {
		return Upstream{}, err
	}
	if target == "" {
		return Upstream{}, errors.New("it is empty; write a port such as 8089, or host:port")
	}
	if path, ok := cutScheme(target, "unix:"); ok {
		return unixUpstream(path)
	}
	u := Upstream{Scheme: SchemeTCP}
	if kind == HTTP {
		u.Scheme = SchemeHTTP
	}
	authority, port := target, ""
	if scheme, rest, ok := strings.Cut(target, "://"); ok {
		u.Scheme = strings.ToLower(scheme)
		if err := checkScheme(kind, u.Scheme); err != nil {
			return Upstream{}, err
		}
		authority = rest
		switch u.Scheme {
		case SchemeHTTP:
			port = "80"
		case SchemeHTTPS:
			port = "443"
		}
	}
	if err := checkAuthority(&authority, u.Scheme); err != nil {
		return Upstream{}, err
	}
	host, port, err := splitHostPort(authority, port)
	if err != nil {
		return Upstream{}, err
	}
	if u.Port, err = parsePort(port); err != nil {
		return Upstream{}, err
	}
	if u.Host, err = upstreamHost(host); err != nil {
		return Upstream{}, err
	}
	return u, nil
}

func checkScheme(kind Kind, scheme string) error {
	switch {
	case kind == HTTP && (scheme == SchemeHTTP || scheme == SchemeHTTPS), kind != HTTP && scheme == SchemeTCP:
		return nil
	case kind == HTTP && scheme == SchemeTCP:
		return errors.New("an http tunnel leads to http:// or https://; for tcp:// share it with `wgexpose tcp`")
	case kind != HTTP && (scheme == SchemeHTTP || scheme == SchemeHTTPS):
		return fmt.Errorf("a %s tunnel leads to host:port; for %s:// share it with `wgexpose http`", kind, scheme)
	case kind == HTTP:
		return errors.New("no such scheme; an http tunnel leads to http://host:port, https://host:port or unix:/path")
	}
	return fmt.Errorf("no such scheme; a %s tunnel leads to host:port or unix:/path", kind)
}

// checkAuthority refuses what is more than host and port, and takes a lone
// slash off.
func checkAuthority(authority *string, scheme string) error {
	s := *authority
	if strings.Contains(s, "@") {
		return errors.New("it has a user name; leave it out, visitors send their own")
	}
	i := strings.IndexAny(s, "/?#")
	if i < 0 {
		return nil
	}
	if s[i:] == "/" {
		*authority = s[:i]
		return nil
	}
	if scheme == SchemeTCP {
		return errors.New("it has a path; write host:port alone, or unix:/path for a Unix socket")
	}
	return errors.New("it has a path or a query; write it without, a visitor's path is passed on as it is")
}

// splitHostPort takes host:port, a lone port, and, if there is a default for the
// port, a lone host. It returns an IPv6 address without its brackets.
func splitHostPort(s, port string) (string, string, error) {
	if port == "" && s != "" && strings.Trim(s, "0123456789") == "" {
		return "127.0.0.1", s, nil
	}
	if p, ok := strings.CutPrefix(s, ":"); ok && !strings.Contains(p, ":") {
		return "127.0.0.1", p, nil
	}
	if s == "" {
		return "", "", errors.New("it has no host; write host:port")
	}
	host, rest := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || !strings.Contains(s[:end], ":") {
			return "", "", errors.New("brackets stand around an IPv6 address; write [::1]:8089, or host:port")
		}
		host, rest = s[1:end], s[end+1:]
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, rest = s[:i], s[i:]
	}
	p, ok := strings.CutPrefix(rest, ":")
	switch {
	case ok && !strings.ContainsAny(p, ":[]"):
		return host, p, nil
	case rest == "" && port != "":
		return host, port, nil
	case rest == "":
		return "", "", fmt.Errorf("it has no port; write %s:PORT", clip(s))
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "", "", fmt.Errorf("an IPv6 address stands in brackets; write [%s]:PORT", s)
	}
	return "", "", errors.New("it is not host:port; an IPv6 address stands in brackets, [::1]:8089")
}

// upstreamHost gives an address or a name its canonical form. Names are those
// that the agent's machine can resolve, which may have underscores.
func upstreamHost(host string) (string, error) {
	if strings.Contains(host, "%") { // RFC 6874 writes the % of a zone as %25
		host = strings.Replace(host, "%25", "%", 1)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		a = a.Unmap()
		switch {
		case a.IsMulticast() || a == broadcast:
			return "", errors.New("no connection can be made to a multicast or broadcast address")
		case a.IsUnspecified() && a.Is4():
			return "127.0.0.1", nil
		case a.IsUnspecified():
			return "::1", nil
		}
		if z := a.Zone(); len(z) > 15 || strings.ContainsFunc(z, func(r rune) bool { return r > 0x7f || !isLetterDigit(byte(r)) && !strings.ContainsRune("._-", r) }) {
			return "", errors.New("the zone of the address is no name of a network interface")
		}
		return a.String(), nil
	}
	if !isASCII(host) {
		return CanonicalHost(host)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || len(host) > maxHost || strings.ContainsFunc(host, func(r rune) bool {
		return !isLetterDigit(byte(r)) && r != '-' && r != '_' && r != '.'
	}) || strings.Contains("."+host+".", "..") {
		return "", fmt.Errorf("%q is neither a host name nor an IP address", clip(host))
	}
	if last := host[strings.LastIndexByte(host, '.')+1:]; strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return "", fmt.Errorf("%q is no IP address, and no host name ends in a number", clip(host))
	}
	return host, nil
}

func unixUpstream(path string) (Upstream, error) {
	path = strings.TrimPrefix(path, "//") // unix:///run/x.sock
	if strings.HasPrefix(path, "//") {
		path = "/" + strings.TrimLeft(path, "/")
	}
	switch {
	case path == "":
		return Upstream{}, errors.New("it has no path; write unix:/run/app.sock")
	case !strings.HasPrefix(path, "/") && !filepath.IsAbs(path):
		return Upstream{}, errors.New("the path of the socket must be absolute; write unix:/run/app.sock")
	case len(path) > maxSocketPath:
		return Upstream{}, fmt.Errorf("the path of the socket has %d bytes; systems allow %d", len(path), maxSocketPath)
	case !printable(path):
		return Upstream{}, errors.New("the path of the socket has control characters")
	}
	return Upstream{Scheme: SchemeUnix, Path: path}, nil
}

// cutScheme is strings.CutPrefix without regard to case.
func cutScheme(s, scheme string) (string, bool) {
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return s, false
	}
	return s[len(scheme):], true
}

// String gives the canonical text, which [ParseUpstream] reads back:
// "http://127.0.0.1:8089", "tcp://127.0.0.1:22", "unix:/run/x.sock"; "" for the
// zero Upstream.
func (u Upstream) String() string {
	switch u.Scheme {
	case "":
		return ""
	case SchemeUnix:
		return "unix:" + u.Path
	}
	return u.Scheme + "://" + strings.Replace(u.Address(), "%", "%25", 1)
}

// Network gives the network for net.Dial: "tcp" or "unix".
func (u Upstream) Network() string {
	if u.Scheme == SchemeUnix {
		return "unix"
	}
	return "tcp"
}

// Address gives the address for net.Dial.
func (u Upstream) Address() string {
	if u.Scheme == SchemeUnix {
		return u.Path
	}
	return net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port)))
}

// TLS says whether the upstream is spoken to over TLS.
func (u Upstream) TLS() bool { return u.Scheme == SchemeHTTPS }
