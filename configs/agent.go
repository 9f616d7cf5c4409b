package configs

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/statedir"
)

// DefaultWebAddr is where the inspector's page is, unless it is told otherwise.
const DefaultWebAddr = "127.0.0.1:4040"

// Agent is what an agent is told from outside.
type Agent struct {
	File      string   // the file that was read, or would have been if it were there
	More      []string // the files over it, in order
	State     string   // the state directory
	Transport string   // auto, udp or tls
	Proxy     string   // for tls: a URL, "off", or "" for what the environment says
	MTU       int      // of packets inside WireGuard, in bytes; 0: found out

	// Where the certificates of tunnels whose TLS ends at this agent come from.
	Certificates certs.Mode // certs.ACME or certs.Internal
	ACMEEmail    string
	ACMECA       string // ACME directory; empty: certmagic's default
	ACMERoot     string // file of roots to trust for it, besides the system's

	Inspect   bool   // whether requests of http tunnels are shown
	WebAddr   string // HOST:PORT where they are
	Unmask    bool   // with the values of headers that carry secrets
	LogLevel  slog.Level
	LogFormat LogFormat
	Tunnels   []Tunnel // in the order of the file
}

const tunnelsKey = "tunnels"

// Differences are the keys of settings, tunnels aside, that are not the same.
func Differences(a, b Agent) []string {
	var keys []string
	for _, s := range []struct {
		key  string
		same bool
	}{
		{"state", a.State == b.State},
		{"transport", a.Transport == b.Transport},
		{"proxy", a.Proxy == b.Proxy},
		{"mtu", a.MTU == b.MTU},
		{"certificates", a.Certificates == b.Certificates},
		{"acme_email", a.ACMEEmail == b.ACMEEmail},
		{"acme_ca", a.ACMECA == b.ACMECA},
		{"acme_root", a.ACMERoot == b.ACMERoot},
		{"inspect", a.Inspect == b.Inspect},
		{"web_addr", a.WebAddr == b.WebAddr},
		{"inspect_unmask", a.Unmask == b.Unmask},
		{"log_level", a.LogLevel == b.LogLevel},
		{"log_format", a.LogFormat == b.LogFormat},
	} {
		if !s.same {
			keys = append(keys, s.key)
		}
	}
	return keys
}

func agentSettings() []setting {
	return []setting{
		{"state", "", "`DIR` that holds keys and all other state (default " + shown(statedir.AgentDefault) + ")"},
		{"transport", "auto", "`WAY` to the edge: udp, tls (WireGuard inside HTTPS, for networks without UDP), or auto for whichever works"},
		{"proxy", "", "`URL` of a proxy for transport tls: http://[USER:PASSWORD@]HOST:PORT, https:// or socks5://; off for none (default: as HTTPS_PROXY says)"},
		{"mtu", "auto", "size of packets inside WireGuard, in `BYTES`, 1200–65472; auto finds out what the path takes, and follows it"},
		{"certificates", "acme", "where certificates for tunnels with terminate_at agent come from, `MODE`: acme (agrees to the authority's terms of service) or internal (an own CA)"},
		{"acme_email", "", "mail `ADDRESS` that the certificate authority may write to"},
		{"acme_ca", "", "ACME directory `URL` for this agent's certificates (default Let's Encrypt)"},
		{"acme_root", "", "`FILE` with root certificates to trust for --acme-ca besides the system's, in PEM"},
		{"inspect", "true", "show the requests of http tunnels on a local page"},
		{"web_addr", DefaultWebAddr, "`ADDRESS` of the page with the requests; when its port is taken, one of the next nine"},
		{"inspect_unmask", "false", "show cookies, passwords and other secrets on that page unmasked"},
		{"log_level", "warn", "least important `LEVEL` that is logged to stderr: debug, info, warn, error"},
		{"log_format", "text", "`FORMAT` of log lines: text, json"},
	}
}

// AgentFile is the file that is read when none is named; it need not be there.
func AgentFile() (string, error) { return userFile("wgexpose.yml") }

// AgentFlags adds the flags that LoadAgent reads, --config and one for each
// setting.
func AgentFlags(flags *pflag.FlagSet) {
	addFlags(flags, agentSettings(), shown(AgentFile))
}

// LoadAgent merges flags, which may be nil, with the environment, the file and
// the defaults. What is wrong with the settings comes as an *Error.
func LoadAgent(flags *pflag.FlagSet) (Agent, error) {
	standard, err := standardFile(flags, AgentFile)
	if err != nil {
		return Agent{}, err
	}
	m, err := merge(flags, agentSettings(), standard, tunnelsKey)
	if err != nil {
		return Agent{}, err
	}
	return m.agent()
}

// SalvageAgent is LoadAgent, without tunnels, for who goes on where files or variables have
// mistakes: these come as problems, and what they are about is at its default. A mistake
// in the flags is an *Error as ever.
func SalvageAgent(flags *pflag.FlagSet) (Agent, []Problem, error) {
	standard, err := standardFile(flags, AgentFile)
	if err != nil {
		return Agent{}, nil, err
	}
	var unreadable, wrong *Error
	doc, err := readDocuments(flags, standard)
	if err != nil && !errors.As(err, &unreadable) {
		return Agent{}, nil, err
	}
	m, err := mergeDocument(flags, agentSettings(), doc, tunnelsKey)
	if err != nil {
		return Agent{}, nil, err
	}
	cfg, err := m.agent()
	if err != nil && !errors.As(err, &wrong) {
		return Agent{}, nil, err
	}
	var problems []Problem
	for _, e := range []*Error{unreadable, wrong} {
		if e != nil {
			problems = append(problems, e.Problems...)
		}
	}
	if slices.ContainsFunc(problems, func(p Problem) bool { return p.flag }) {
		return Agent{}, nil, &Error{Problems: problems}
	}
	cfg.Tunnels = nil
	return cfg, problems, nil
}

func (m *merged) agent() (Agent, error) {
	cfg := Agent{
		File:      m.name,
		More:      m.more,
		State:     take(m, "state", parseText),
		Transport: take(m, "transport", parseTransport),
		Proxy:     take(m, "proxy", parseProxy),
		MTU:       take(m, "mtu", parseMTU),

		Certificates: take(m, "certificates", parseCertificates),
		ACMEEmail:    take(m, "acme_email", parseEmail),
		ACMECA:       take(m, "acme_ca", parseCA),
		ACMERoot:     take(m, "acme_root", parseText),

		Inspect:   take(m, "inspect", parseBool),
		WebAddr:   take(m, "web_addr", parseWebAddr),
		Unmask:    take(m, "inspect_unmask", parseBool),
		LogLevel:  take(m, "log_level", parseLogLevel),
		LogFormat: take(m, "log_format", parseLogFormat),
	}
	if cfg.State == "" {
		var err error
		if cfg.State, err = statedir.AgentDefault(); err != nil {
			return cfg, err
		}
	}
	if f, ok := m.fields[tunnelsKey]; ok {
		cfg.Tunnels = m.tunnels(f)
	}
	return cfg, m.err()
}

func parseCertificates(s string) (certs.Mode, error) { return oneOf(s, certs.ACME, certs.Internal) }

func (m *merged) tunnels(f field) []Tunnel {
	if isNull(f.value) {
		return nil // "tunnels:" with everything below it commented out
	}
	if f.value.Kind != yaml.MappingNode {
		m.add(f.line, tunnelsKey, "must be a map of a tunnel's name to its settings, and is %s", describe(f.value))
		return nil
	}
	var tunnels []Tunnel
	m.each(f.value, tunnelsKey, func(name string, f field) {
		path := join(tunnelsKey, name)
		if f.value.Kind != yaml.MappingNode {
			m.add(f.line, path, "must be a map of settings such as kind and upstream, and is %s", describe(f.value))
			return
		}
		fields := m.document.fields(f.value, path, tunnelKeys())
		values := make(map[string]string)
		complete := true
		for _, key := range tunnelKeys() {
			field, ok := fields[key]
			if !ok {
				continue
			}
			read := m.scalar
			if slices.Contains(policyKeys(), key) {
				read = m.list
			}
			if values[key], ok = read(field, join(path, key)); !ok {
				complete = false
			}
		}
		if !complete {
			return
		}
		t, problems := ParseTunnel(name, values)
		for _, p := range problems {
			at, line := path, f.line
			if field, ok := fields[p.Key]; ok {
				line = field.line
			}
			if p.Key != "" {
				at = join(path, p.Key)
			}
			m.add(line, at, "%s", p.Message)
		}
		for _, o := range tunnels {
			switch {
			case t.URL != "" && t.URL == o.URL:
				m.add(fields["url"].line, join(path, "url"), "%s is what tunnel %s asks for, too: give each another name", t.URL, o.Name)
			case t.Port != 0 && t.Port == o.Port:
				m.add(fields["port"].line, join(path, "port"), "%d is what tunnel %s asks for, too: give each another port", t.Port, o.Name)
			}
		}
		tunnels = append(tunnels, t)
	})
	return tunnels
}
