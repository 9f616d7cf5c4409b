package tunnel

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// Upstream is the private target that an agent dials.
type Upstream struct {
	Scheme string // http, https, tcp or unix
	Host   string // name or address, without brackets
	Port   uint16
	Path   string // of a unix socket
}

const maxTarget = 1 << 10

// ParseUpstream reads what people type for a target: 8089, host:port,
// http://host:port, https://host, unix:/path. A bare port means 127.0.0.1.
func ParseUpstream(kind Kind, target string) (Upstream, error) {
	u, err := parseUpstream(kind, strings.TrimSpace(target))
	if err != nil {
		return Upstream{}, fmt.Errorf("target %q: %w", abridge(target), err)
	}
	return u, nil
}

func parseUpstream(kind Kind, target string) (Upstream, error) {
	want := "want a port, host:port or unix:/path"
	if kind == HTTP {
		want = "want a port, host:port, http://host:port, https://host or unix:/path"
	}
	if target == "" || len(target) > maxTarget || strings.ContainsAny(target, " \t\r\n\x00") {
		return Upstream{}, fmt.Errorf("%s", want)
	}
	if path, ok := strings.CutPrefix(target, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if !filepath.IsAbs(path) && !strings.HasPrefix(path, "/") {
			return Upstream{}, fmt.Errorf("the path of a unix socket must be absolute, as in unix:/run/app.sock")
		}
		return Upstream{Scheme: "unix", Path: path}, nil
	}
	if scheme, _, ok := strings.Cut(target, "://"); ok {
		return parseURL(kind, strings.ToLower(scheme), target, want)
	}
	scheme := string(kind)
	if allDigits(target) {
		port, err := parsePort(target)
		return Upstream{Scheme: scheme, Host: "127.0.0.1", Port: port}, err
	}
	host, portText, err := net.SplitHostPort(target)
	if err != nil {
		return Upstream{}, fmt.Errorf("%s", want)
	}
	port, err := parsePort(portText)
	if err != nil {
		return Upstream{}, err
	}
	host, err = parseHost(host)
	return Upstream{Scheme: scheme, Host: host, Port: port}, err
}

func parseURL(kind Kind, scheme, target, want string) (Upstream, error) {
	if kind == TCP && scheme != "tcp" || kind == HTTP && scheme != "http" && scheme != "https" {
		return Upstream{}, fmt.Errorf("%s:// is not for %s tunnels; %s", abridge(scheme), kind, want)
	}
	u, err := url.Parse(target)
	if err != nil {
		return Upstream{}, fmt.Errorf("%s", want)
	}
	switch {
	case u.User != nil:
		return Upstream{}, fmt.Errorf("a target cannot have a user or password: visitors bring their own")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return Upstream{}, fmt.Errorf("a target has no path or query: visitors' requests keep their own; want %s://%s", scheme, u.Host)
	}
	host, err := parseHost(u.Hostname())
	if err != nil {
		return Upstream{}, err
	}
	port := map[string]uint16{"http": 80, "https": 443}[scheme]
	if text := u.Port(); text != "" {
		if port, err = parsePort(text); err != nil {
			return Upstream{}, err
		}
	}
	if port == 0 {
		return Upstream{}, fmt.Errorf("the port is missing; %s", want)
	}
	return Upstream{Scheme: scheme, Host: host, Port: port}, nil
}

// parseHost accepts an address or a host name; nothing means this machine.
func parseHost(host string) (string, error) {
	if host == "" {
		return "127.0.0.1", nil
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip.String(), nil
	}
	if name, zone, ok := strings.Cut(host, "%"); ok && net.ParseIP(name) != nil && zone != "" && len(zone) < 64 {
		return host, nil
	}
	return CanonicalHost(host)
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || !allDigits(s) {
		return 0, fmt.Errorf("port %q: want 1–65535", abridge(s))
	}
	return uint16(n), nil
}

func allDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// String is the canonical form, which ParseUpstream reads back:
// http://127.0.0.1:8089, tcp://127.0.0.1:22, unix:/run/x.sock.
func (u Upstream) String() string {
	if u.Scheme == "unix" {
		return "unix:" + u.Path
	}
	return u.Scheme + "://" + u.Address()
}

// Network is the first argument of net.Dial.
func (u Upstream) Network() string {
	if u.Scheme == "unix" {
		return "unix"
	}
	return "tcp"
}

// Address is the second argument of net.Dial.
func (u Upstream) Address() string {
	if u.Scheme == "unix" {
		return u.Path
	}
	return net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port)))
}
