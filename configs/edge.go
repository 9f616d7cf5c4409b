package configs

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/relay"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Edge is what an edge is told from outside.
type Edge struct {
	File            string   // the file that was read, or would have been if it were there
	More            []string // the files over it, in order
	State           string   // the state directory
	Domain          string   // host names of tunnels lie under it; empty: as at the last start; or edge.DomainAuto
	Endpoint        string   // HOST or HOST:PORT that invites carry; empty: found out
	ListenWG        Listen   // WireGuard, UDP; never off
	MoreWG          []Listen // further addresses for it
	ListenHTTPS     Listen
	HTTP3           HTTP3Mode
	ListenHTTP      Listen
	TLS             certs.Mode
	TCPPorts        tunnel.PortRange
	ListenTCP       netip.Addr     // for public TCP ports; zero: every address
	WarnRandomNames bool           // browsers are warned of tunnels whose name the edge has chosen
	Handshakes      int            // TLS sessions that one address may begin each second; 0: any number
	TrustedProxies  []netip.Prefix // between visitors and this edge
	MTU             int            // of packets inside WireGuard, in bytes; 0: found out
	Metrics         Listen         // Prometheus' metrics; off by default
	PublicHTTPSPort uint16         // in public addresses; 0: the port that is listened on
	ACME            []certs.Issuer // the first is asked first
	ACMEDNS         *certs.DNS     // nil: no DNS-01
	CertFiles       []certs.Pair   // own certificates
	CertFolder      string         // own certificates; empty: none
	LogLevel        slog.Level
	LogFormat       LogFormat
}

// HTTP3Mode says whether an edge serves HTTP/3.
type HTTP3Mode string

const (
	HTTP3Auto HTTP3Mode = "auto" // where the UDP port of HTTPS is free
	HTTP3On   HTTP3Mode = "on"
	HTTP3Off  HTTP3Mode = "off"
)

func parseHTTP3(s string) (HTTP3Mode, error) { return oneOf(s, HTTP3Auto, HTTP3On, HTTP3Off) }

// WireGuardHasHTTP3Port reports whether listen_wg takes the UDP port of HTTPS.
func (e Edge) WireGuardHasHTTP3Port() bool {
	for _, l := range append([]Listen{e.ListenWG}, e.MoreWG...) {
		if l.Port != 0 && l.Port == e.ListenHTTPS.Port && (!l.Addr.IsValid() || !e.ListenHTTPS.Addr.IsValid() ||
			l.Addr.IsUnspecified() || e.ListenHTTPS.Addr.IsUnspecified() || l.Addr == e.ListenHTTPS.Addr) {
			return true
		}
	}
	return false
}

func edgeSettings() []setting {
	return []setting{
		{"state", "", "`DIR` that holds keys and all other state (default " + shown(statedir.EdgeDefault) + ")"},
		{"domain", "", "`DOMAIN` of this edge; host names of tunnels lie under it; auto: IP-ADDRESS.sslip.io, for an edge without one (default: as at the last start)"},
		{"endpoint", "", "public address `HOST[:PORT]` that invites carry (default: the address of the route to the internet)"},
		{"listen_wg", ":51820", "UDP `ADDRESS` for WireGuard, or several with commas between; invites carry all, and agents use one that works"},
		{"listen_https", ":443", "`ADDRESS` for HTTPS, or off"},
		{"http3", "auto", "HTTP/3 on the UDP port of --listen-https, `MODE`: on, off, or auto: on where that port is free"},
		{"listen_http", ":80", "`ADDRESS` for plain HTTP, which redirects to HTTPS, or off"},
		{"tls", "acme", "where certificates come from, `MODE`: acme (agrees to the authority's terms of service), internal (an own CA) or off (host names over plain HTTP)"},
		{"tcp_ports", "20000-29999", "public TCP ports, `FIRST-LAST`"},
		{"listen_tcp", "", "`IP` address for public TCP ports (default: every address)"},
		{"warn_random_names", "false", "warn visitors before the first page of a tunnel whose name this edge has chosen"},
		{"handshake_rate", strconv.Itoa(relay.Handshakes), "`N` TLS sessions may be begun by one address each second, and ten times as many after a rest; resumed ones do not count; 0: any number"},
		{"trusted_proxies", "", "`NETWORKS` of proxies in front of this edge, with commas between, whose X-Forwarded-For and X-Forwarded-Proto count"},
		{"mtu", "auto", "size of packets inside WireGuard, in `BYTES`, 1200–65472; auto finds out what the path to each agent takes, and follows it"},
		{"metrics", "off", "`ADDRESS` for Prometheus' metrics at /metrics, such as :9090 for this machine alone; with an IP address, for whoever can connect; or off"},
		{"public_https_port", "", "`PORT` in public addresses, if another machine forwards that port here, or a proxy ends TLS there (default: that of --listen-https)"},
		{"acme_email", "", "mail `ADDRESS` that the certificate authority may write to"},
		{"acme_ca", "", "ACME directory `URL` (default Let's Encrypt)"},
		{"acme_root", "", "PEM `FILE` of a root certificate to trust for --acme-ca, besides the system's"},
		{"cert_file", "", "own certificate, PEM `FILE` with the chain; needs --key-file; read again when it changes"},
		{"key_file", "", "private key of --cert-file, PEM `FILE`"},
		{"certs", "", "`DIR` of own certificates: NAME.crt or NAME.pem beside NAME.key, also in subfolders, and certbot's live folder"},
		{"log_level", "info", "least important `LEVEL` that is logged to stderr: debug, info, warn, error"},
		{"log_format", "text", "`FORMAT` of log lines: text, json"},
	}
}

// EdgeFile is the file that is read when none is named; it need not be there.
func EdgeFile() (string, error) {
	if os.Geteuid() == 0 {
		return filepath.Join("/etc", "wgexpose", "edge.yml"), nil
	}
	return userFile("edge.yml")
}

// EdgeFlags adds the flags of a running edge.
func EdgeFlags(flags *pflag.FlagSet) {
	addFlags(flags, edgeSettings(), shown(EdgeFile))
}

// edgeStateSettings are those that a command needs which works on an edge's
// state.
func edgeStateSettings() (few []setting, others []string) {
	for _, s := range edgeSettings() {
		switch s.key {
		case "state", "log_level", "log_format":
			few = append(few, s)
		default:
			others = append(others, s.key)
		}
	}
	return few, append(others, edgeMaps()...)
}

// EdgeStateFlags adds only those flags of an edge that a command needs which
// works on its state: --config, --state, --log-level and --log-format.
func EdgeStateFlags(flags *pflag.FlagSet) {
	few, _ := edgeStateSettings()
	addFlags(flags, few, shown(EdgeFile))
}

// LoadEdgeState is LoadEdge for a command with EdgeStateFlags, and returns the
// state directory. What else the file says is not looked at: its variables may be
// set for the edge alone.
func LoadEdgeState(flags *pflag.FlagSet) (state string, err error) {
	standard, err := standardFile(flags, EdgeFile)
	if err != nil {
		return "", err
	}
	few, others := edgeStateSettings()
	m, err := merge(flags, few, standard, others...)
	if err != nil {
		return "", err
	}
	state = take(m, "state", parseText)
	take(m, "log_level", parseLogLevel)
	take(m, "log_format", parseLogFormat)
	if err := m.err(); err != nil {
		return "", err
	}
	if state == "" {
		return statedir.EdgeDefault()
	}
	return state, nil
}

// LoadEdge merges flags, which may be nil, with the environment, the file and
// the defaults. What is wrong with the settings comes as an *Error.
func LoadEdge(flags *pflag.FlagSet) (Edge, error) {
	standard, err := standardFile(flags, EdgeFile)
	if err != nil {
		return Edge{}, err
	}
	m, err := merge(flags, edgeSettings(), standard, edgeMaps()...)
	if err != nil {
		return Edge{}, err
	}
	return m.edge()
}

func (m *merged) edge() (Edge, error) {
	cfg := Edge{
		File:            m.name,
		More:            m.more,
		State:           take(m, "state", parseText),
		Domain:          take(m, "domain", parseOptionalDomain),
		Endpoint:        take(m, "endpoint", parseEndpoint),
		ListenHTTPS:     take(m, "listen_https", parseListenOrOff),
		HTTP3:           take(m, "http3", parseHTTP3),
		ListenHTTP:      take(m, "listen_http", parseListenOrOff),
		TLS:             take(m, "tls", parseTLS),
		TCPPorts:        take(m, "tcp_ports", tunnel.ParsePortRange),
		ListenTCP:       take(m, "listen_tcp", parseListenAddr),
		WarnRandomNames: take(m, "warn_random_names", parseBool),
		Handshakes:      take(m, "handshake_rate", parseRate),
		TrustedProxies:  take(m, "trusted_proxies", parseNetworks),
		MTU:             take(m, "mtu", parseMTU),
		Metrics:         take(m, "metrics", parseMetrics),
		PublicHTTPSPort: take(m, "public_https_port", parseOptionalPort),
		ACME:            m.issuers(),
		ACMEDNS:         m.dns(),
		LogLevel:        take(m, "log_level", parseLogLevel),
		LogFormat:       take(m, "log_format", parseLogFormat),
	}
	if wg := take(m, "listen_wg", parseListens); len(wg) > 0 {
		cfg.ListenWG, cfg.MoreWG = wg[0], wg[1:]
	}
	cfg.CertFiles, cfg.CertFolder = m.ownCertificates()
	if err := m.err(); err != nil {
		return cfg, err
	}
	if cfg.State == "" {
		var err error
		if cfg.State, err = statedir.EdgeDefault(); err != nil {
			return cfg, err
		}
	}
	switch own := len(cfg.CertFiles) > 0 || cfg.CertFolder != ""; {
	case own && cfg.TLS == certs.Off:
		m.problem(m.firstSet("tls", "certs", "cert_file"), "tls is off, so that the certificates would not be used; set it to acme or internal, or take them out")
	case cfg.ACMEDNS != nil && cfg.TLS != certs.ACME:
		m.problem(m.firstSet("tls"), fmt.Sprintf("is %s, so that acme_dns would not be used; set it to acme, or take acme_dns out", cfg.TLS))
	case cfg.TLS == certs.ACME && local(cfg.Domain):
		m.problem(m.firstSet("tls", "domain"), fmt.Sprintf("no public authority gives certificates for %s; set tls to internal, or name a domain of yours", cfg.Domain))
	case cfg.TLS == certs.Off && cfg.ListenHTTP.Off:
		m.problem("listen_http", "is off, and so is TLS: nothing would be served; give it an address such as :80")
	case cfg.HTTP3 == HTTP3On && cfg.TLS == certs.Off:
		m.problem("http3", "is on, and tls is off: there is no HTTP/3 without TLS; set http3 to auto, or tls to acme or internal")
	case cfg.HTTP3 == HTTP3On && cfg.WireGuardHasHTTP3Port():
		m.problem("http3", fmt.Sprintf("is on, and UDP port %d is WireGuard's by listen_wg: set http3 to off, or give WireGuard another port", cfg.ListenHTTPS.Port))
	case cfg.TLS != certs.Off && cfg.ListenHTTPS.Off:
		m.problem("listen_https", "is off, though TLS is not; give it an address such as :443, or set tls to off")
	}
	return cfg, m.err()
}

// local tells whether a domain means this machine (RFC 6761, section 6.3).
func local(domain string) bool {
	return domain == "localhost" || strings.HasSuffix(domain, ".localhost")
}

func parseOptionalDomain(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	return parseDomain(s)
}

func parseTLS(s string) (certs.Mode, error) {
	return oneOf(s, certs.ACME, certs.Internal, certs.Off)
}

// standardFile is the file to read when none is named. A machine without a
// home directory can still be told everything by flags.
func standardFile(flags *pflag.FlagSet, file func() (string, error)) (string, error) {
	if _, named := configFiles(flags); named {
		return "", nil
	}
	return file()
}
