package configs

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/tunnel"
)

// LogFormat is how log lines look.
type LogFormat string

const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Listen is an address to listen on.
type Listen struct {
	Off  bool
	Addr netip.Addr // zero: every address of the machine, both families
	Port uint16     // 0: the system chooses
}

// String is the form that net.Listen takes; "off" when switched off.
func (l Listen) String() string {
	if l.Off {
		return "off"
	}
	host := ""
	if l.Addr.IsValid() {
		host = l.Addr.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(l.Port)))
}

func parseText(s string) (string, error) { return s, nil }

func parseLogLevel(s string) (slog.Level, error) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if strings.EqualFold(s, l.String()) {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%s is no log level; allowed: debug, info, warn, error", quote(s))
}

func parseLogFormat(s string) (LogFormat, error) {
	return oneOf(s, LogText, LogJSON)
}

func parseTransport(s string) (string, error) { return oneOf(s, "auto", "udp", "tls") }

// parseMTU returns 0 for auto.
func parseMTU(s string) (int, error) {
	if s == "auto" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < netstack.MinMTU || n > netstack.MaxMTU {
		return 0, fmt.Errorf("%s is no size of packets; allowed: auto, %d–%d", quote(s), netstack.MinMTU, netstack.MaxMTU)
	}
	return n, nil
}

// parseNetworks takes networks and addresses with commas between, or none.
func parseNetworks(s string) ([]netip.Prefix, error) {
	if s == "" {
		return nil, nil
	}
	var all []netip.Prefix
	for part := range strings.SplitSeq(s, ",") {
		p, err := parseNetwork(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// parseRate returns 0 for any number.
func parseRate(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > maxRate {
		return 0, fmt.Errorf("%s is no number of handshakes in a second; allowed: 1–%d, and 0 for any number", quote(s), maxRate)
	}
	return n, nil
}

// maxRate is more than any machine can do.
const maxRate = 100_000

// parseProxy repeats nothing of what it was given: that may hold a password.
func parseProxy(s string) (string, error) {
	if s == "" || s == "off" {
		return s, nil
	}
	if u, err := url.Parse(s); err == nil && u.Hostname() != "" {
		switch u.Scheme {
		case "http", "https", "socks5", "socks5h":
			return s, nil
		}
	}
	return "", errors.New("not a proxy's URL; allowed: http://, https:// or socks5:// with [USER:PASSWORD@]HOST[:PORT], or off")
}

func oneOf[T ~string](s string, allowed ...T) (T, error) {
	words := make([]string, len(allowed))
	for i, a := range allowed {
		if s == string(a) {
			return a, nil
		}
		words[i] = string(a)
	}
	return "", fmt.Errorf("%s is not allowed; allowed: %s", quote(s), strings.Join(words, ", "))
}

// parseListens takes one or more addresses with commas between.
func parseListens(s string) ([]Listen, error) {
	var all []Listen
	for part := range strings.SplitSeq(s, ",") {
		l, err := parseListen(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		if slices.Contains(all, l) && l.Port != 0 {
			return nil, fmt.Errorf("%s is there twice", quote(l.String()))
		}
		all = append(all, l)
	}
	return all, nil
}

// parseListen takes ":443", "127.0.0.1:443", "[::1]:443" and "443".
func parseListen(s string) (Listen, error) {
	bad := fmt.Errorf("%s is no address to listen on; allowed: a port such as :443, or with an IP address such as 127.0.0.1:443 or [::1]:443", quote(s))
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		if strings.Trim(s, "0123456789") != "" {
			return Listen{}, bad
		}
		host, port = "", s
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Listen{}, bad
	}
	l := Listen{Port: uint16(n)}
	if host != "" {
		if l.Addr, err = netip.ParseAddr(host); err != nil {
			return Listen{}, bad
		}
	}
	return l, nil
}

// parseListenOrOff also takes "off" and "".
func parseListenOrOff(s string) (Listen, error) {
	if s == "" || s == "off" {
		return Listen{Off: true}, nil
	}
	l, err := parseListen(s)
	if err != nil {
		return Listen{}, fmt.Errorf("%w; or off", err)
	}
	return l, nil
}

// parseMetrics takes where metrics are read. Without an address that is this
// machine: nobody else is let in by leaving something out.
func parseMetrics(s string) (Listen, error) {
	l, err := parseListenOrOff(s)
	if err == nil && !l.Off && !l.Addr.IsValid() {
		l.Addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return l, err
}

// parseWebAddr takes where the inspector listens: HOST:PORT with an address or
// localhost, or a port, which is one of this machine alone.
func parseWebAddr(s string) (string, error) {
	bad := fmt.Errorf("%s is no address for the inspector; allowed: a port of this machine such as 4040, or with an IP address such as 127.0.0.1:4040; inspect: false (--inspect=false) is for none", quote(s))
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = "", s
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", bad
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return "", bad
	}
	return net.JoinHostPort(addr.String(), port), nil
}

// parseListenAddr takes an IP address; empty means every one.
func parseListenAddr(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s is no IP address; allowed: one of this machine's addresses, such as 192.0.2.1 or ::1, without a port", quote(s))
	}
	return a, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s is no port; allowed: 1 to 65535", quote(s))
	}
	return uint16(n), nil
}

func parseOptionalPort(s string) (uint16, error) {
	if s == "" {
		return 0, nil
	}
	return parsePort(s)
}

func parseDomain(s string) (string, error) {
	if _, err := netip.ParseAddr(s); err == nil {
		return "", fmt.Errorf("%s is an IP address; allowed: a domain name such as example.com, under which the host names of tunnels lie", quote(s))
	}
	host, err := tunnel.CanonicalHost(s)
	if err != nil {
		return "", fmt.Errorf("%w; allowed: a domain name such as example.com", err)
	}
	return host, nil
}

// parseEndpoint takes HOST, HOST:PORT, and an IPv6 address with or without
// brackets. Empty: the edge finds out by itself.
func parseEndpoint(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	bad := fmt.Errorf("%s is no endpoint; allowed: the public address of this edge as HOST or HOST:PORT, such as edge.example.com:51820", quote(s))
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), ""
	} else if _, err := parsePort(port); err != nil {
		return "", bad
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.IsUnspecified() || addr.IsMulticast() {
			return "", bad
		}
		host = addr.String()
	} else if host, err = tunnel.CanonicalHost(host); err != nil {
		return "", bad
	}
	if port == "" {
		return host, nil
	}
	return net.JoinHostPort(host, port), nil
}

func parseEmail(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if a, err := mail.ParseAddress(s); err != nil || a.Address != s {
		return "", fmt.Errorf("%s is no mail address; allowed: one such as admin@example.com", quote(s))
	}
	return s, nil
}

func parseCA(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("%s is no ACME directory; allowed: an https:// address", quote(s))
	}
	return s, nil
}

// parseURL takes a tunnel's wanted public address and returns its host name.
func parseURL(s string) (string, error) {
	rest, found := strings.CutPrefix(s, "https://")
	if !found {
		rest, found = strings.CutPrefix(s, "http://")
	}
	if !found && strings.Contains(s, "://") {
		return "", fmt.Errorf("%s is no web address; allowed: https://HOST, such as https://app.example.com", quote(s))
	}
	rest = strings.TrimSuffix(rest, "/")
	if strings.ContainsAny(rest, "/?#@") {
		return "", fmt.Errorf("%s has more than a host name; allowed: https://HOST, such as https://app.example.com", quote(s))
	}
	if host, port, err := net.SplitHostPort(rest); err == nil {
		return "", fmt.Errorf("the port is the edge's choice: write https://%s without :%s", host, port)
	}
	host, err := tunnel.CanonicalHost(rest)
	if err != nil {
		return "", fmt.Errorf("%w; allowed: https://HOST, such as https://app.example.com", err)
	}
	return host, nil
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither; allowed: true, false", quote(s))
}

func parseProxyProtocol(s string) (int, error) {
	switch s {
	case "v1", "1":
		return 1, nil
	case "v2", "2":
		return 2, nil
	}
	return 0, fmt.Errorf("%s is no version of the PROXY protocol; allowed: v1, v2", quote(s))
}

// parseFolder takes the path of file:///srv/www; on Windows, /C:/www too. Whether
// the folder is there is seen when it is opened.
func parseFolder(s string) (string, error) {
	path := filepath.FromSlash(s)
	if rest, ok := strings.CutPrefix(s, "/"); ok && filepath.VolumeName(filepath.FromSlash(rest)) != "" {
		path = filepath.FromSlash(rest)
	}
	if !filepath.IsAbs(path) || strings.ContainsFunc(path, unicode.IsControl) {
		return "", fmt.Errorf("%s is no folder; allowed: file:// and its absolute path, such as file:///srv/www", quote("file://"+s))
	}
	return filepath.Clean(path), nil
}

// parseHostHeader takes a host name or address with an optional port.
func parseHostHeader(s string) (string, error) {
	if s == "" || len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' || r == '@' }) {
		return "", errors.New("must be a host name with an optional port, such as localhost:3000")
	}
	return s, nil
}
