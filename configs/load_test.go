package configs

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/wgexpose/wgexpose/certs"
)

// isolate keeps the machine's own settings out of a test.
func isolate(t *testing.T) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "WGEXPOSE_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("XDG_STATE_HOME", t.TempDir())
}

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "test.yml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func flagSet(t *testing.T, add func(*pflag.FlagSet), args ...string) *pflag.FlagSet {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	add(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags
}

// process is an agent or an edge, for tests that hold for both.
type process struct {
	settings []setting
	flags    func(*pflag.FlagSet)
	load     func(*pflag.FlagSet) (any, error)
	get      map[string]func(any) string // each key's value after loading, as text
}

func processes() map[string]process {
	agent := func(f func(Agent) string) func(any) string { return func(v any) string { return f(v.(Agent)) } }
	edge := func(f func(Edge) string) func(any) string { return func(v any) string { return f(v.(Edge)) } }
	return map[string]process{
		"agent": {
			settings: agentSettings(),
			flags:    AgentFlags,
			load:     func(f *pflag.FlagSet) (any, error) { return LoadAgent(f) },
			get: map[string]func(any) string{
				"state":          agent(func(a Agent) string { return a.State }),
				"transport":      agent(func(a Agent) string { return a.Transport }),
				"certificates":   agent(func(a Agent) string { return string(a.Certificates) }),
				"acme_email":     agent(func(a Agent) string { return a.ACMEEmail }),
				"acme_ca":        agent(func(a Agent) string { return a.ACMECA }),
				"acme_root":      agent(func(a Agent) string { return a.ACMERoot }),
				"proxy":          agent(func(a Agent) string { return a.Proxy }),
				"mtu":            agent(func(a Agent) string { return strconv.Itoa(a.MTU) }),
				"inspect":        agent(func(a Agent) string { return strconv.FormatBool(a.Inspect) }),
				"web_addr":       agent(func(a Agent) string { return a.WebAddr }),
				"inspect_unmask": agent(func(a Agent) string { return strconv.FormatBool(a.Unmask) }),
				"log_level":      agent(func(a Agent) string { return strings.ToLower(a.LogLevel.String()) }),
				"log_format":     agent(func(a Agent) string { return string(a.LogFormat) }),
			},
		},
		"edge": {
			settings: edgeSettings(),
			flags:    EdgeFlags,
			load:     func(f *pflag.FlagSet) (any, error) { return LoadEdge(f) },
			get: map[string]func(any) string{
				"state":             edge(func(e Edge) string { return e.State }),
				"domain":            edge(func(e Edge) string { return e.Domain }),
				"endpoint":          edge(func(e Edge) string { return e.Endpoint }),
				"listen_wg":         edge(func(e Edge) string { return e.ListenWG.String() }),
				"http3":             edge(func(e Edge) string { return string(e.HTTP3) }),
				"listen_https":      edge(func(e Edge) string { return e.ListenHTTPS.String() }),
				"listen_http":       edge(func(e Edge) string { return e.ListenHTTP.String() }),
				"metrics":           edge(func(e Edge) string { return e.Metrics.String() }),
				"tls":               edge(func(e Edge) string { return string(e.TLS) }),
				"tcp_ports":         edge(func(e Edge) string { return e.TCPPorts.String() }),
				"listen_tcp":        edge(func(e Edge) string { return e.ListenTCP.String() }),
				"public_https_port": edge(func(e Edge) string { return decimal(e.PublicHTTPSPort) }),
				"warn_random_names": edge(func(e Edge) string { return strconv.FormatBool(e.WarnRandomNames) }),
				"handshake_rate":    edge(func(e Edge) string { return strconv.Itoa(e.Handshakes) }),
				"trusted_proxies": edge(func(e Edge) string {
					var all []string
					for _, p := range e.TrustedProxies {
						all = append(all, p.String())
					}
					return strings.Join(all, ",")
				}),
				"mtu":        edge(func(e Edge) string { return strconv.Itoa(e.MTU) }),
				"acme_email": edge(func(e Edge) string { return e.ACME[0].Email }),
				"acme_ca":    edge(func(e Edge) string { return e.ACME[0].CA }),
				"acme_root":  edge(func(e Edge) string { return e.ACME[0].Root }),
				"cert_file":  edge(func(e Edge) string { return ownPair(e).Cert }),
				"key_file":   edge(func(e Edge) string { return ownPair(e).Key }),
				"certs":      edge(func(e Edge) string { return e.CertFolder }),
				"log_level":  edge(func(e Edge) string { return strings.ToLower(e.LogLevel.String()) }),
				"log_format": edge(func(e Edge) string { return string(e.LogFormat) }),
			},
		},
	}
}

func ownPair(e Edge) (p certs.Pair) {
	if len(e.CertFiles) > 0 {
		p = e.CertFiles[0]
	}
	return p
}

// beside is what must be set with a key.
func beside(key string) string {
	switch key {
	case "cert_file":
		return "key_file: x\n"
	case "key_file":
		return "cert_file: x\n"
	}
	return ""
}

// three values of each key, none of them the default where that matters.
func three(key string) (file, variable, flag string) {
	switch key {
	case "state":
		return "/srv/file", "/srv/variable", "/srv/flag"
	case "domain":
		return "file.example.com", "variable.example.com", "flag.example.com"
	case "endpoint":
		return "file.example.com:1", "variable.example.com:2", "192.0.2.3"
	case "metrics":
		return "127.0.0.1:1001", "[::1]:1002", "off"
	case "listen_wg", "listen_https", "listen_http":
		return "127.0.0.1:1001", "[::1]:1002", ":1003"
	case "http3":
		return "off", "on", "auto"
	case "tls":
		return "internal", "off", "acme"
	case "tcp_ports":
		return "1001-2001", "1002-2002", "1003-2003"
	case "listen_tcp":
		return "127.0.0.1", "::1", "127.0.0.3"
	case "public_https_port":
		return "1001", "1002", "1003"
	case "acme_email":
		return "file@example.com", "variable@example.com", "flag@example.com"
	case "certs", "cert_file", "key_file":
		return "/srv/file", "/srv/variable", "/srv/flag"
	case "acme_ca":
		return "https://file.example.com/dir", "https://variable.example.com/dir", "https://flag.example.com/dir"
	case "acme_root":
		return "/srv/file.pem", "/srv/variable.pem", "/srv/flag.pem"
	case "certificates":
		return "internal", "acme", "internal"
	case "transport":
		return "udp", "tls", "udp"
	case "proxy":
		return "http://file.example.com:3128", "socks5://me:secret@variable.example.com", "off"
	case "inspect":
		return "false", "true", "false"
	case "inspect_unmask", "warn_random_names":
		return "true", "false", "true"
	case "web_addr":
		return "127.0.0.1:4041", "[::1]:4042", "0.0.0.0:4043"
	case "handshake_rate":
		return "100", "0", "1000"
	case "trusted_proxies":
		return "10.0.0.0/8,2001:db8::/32", "192.0.2.7/32", "127.0.0.0/8"
	case "mtu":
		return "1300", "1400", "9000"
	case "log_level":
		return "debug", "error", "warn"
	case "log_format":
		return "json", "text", "json"
	}
	return "", "", ""
}

func TestSeveralListenWG(t *testing.T) {
	isolate(t)
	cfg, err := LoadEdge(flagSet(t, EdgeFlags, "--domain", "example.com", "--listen-wg", ":51820, 192.0.2.1:443,[::1]:53"))
	if err != nil {
		t.Fatal(err)
	}
	got := []string{cfg.ListenWG.String()}
	for _, l := range cfg.MoreWG {
		got = append(got, l.String())
	}
	if want := ":51820 192.0.2.1:443 [::1]:53"; strings.Join(got, " ") != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, bad := range []string{":1,", ":1,:1", ":1,off", ""} {
		if _, err := LoadEdge(flagSet(t, EdgeFlags, "--domain", "example.com", "--listen-wg", bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// Leaving the address out lets nobody else in.
func TestMetricsAreLocal(t *testing.T) {
	for given, want := range map[string]string{":9090": "127.0.0.1:9090", "192.0.2.1:9090": "192.0.2.1:9090", "[::1]:9090": "[::1]:9090", "off": "off"} {
		isolate(t)
		cfg, err := LoadEdge(flagSet(t, EdgeFlags, "--domain", "example.com", "--metrics", given))
		if got := cfg.Metrics.String(); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", given, got, err, want)
		}
	}
}

func TestPrecedenceOfEveryKey(t *testing.T) {
	for name, p := range processes() {
		for _, s := range p.settings {
			t.Run(name+"/"+s.key, func(t *testing.T) {
				isolate(t)
				get := p.get[s.key]
				file, variable, flag := three(s.key)
				if get == nil || file == "" {
					t.Fatalf("the test does not know the key %s", s.key)
				}
				config := write(t, s.key+": '"+file+"'\n"+beside(s.key))
				check := func(want string, args ...string) {
					t.Helper()
					cfg, err := p.load(flagSet(t, p.flags, append([]string{"--config", config}, args...)...))
					if err != nil {
						t.Fatal(err)
					}
					if got := get(cfg); got != want {
						t.Errorf("%s = %q, want %q", s.key, got, want)
					}
				}
				check(file)
				t.Setenv(s.variable(), variable)
				check(variable)
				check(flag, "--"+s.flag()+"="+flag)
				t.Setenv(s.variable(), "") // an empty variable is an unset one
				check(file)
				if flag == "true" || flag == "false" {
					return // --inspect alone is true, as users of flags expect
				}
				check(flag, "--"+s.flag(), flag)
			})
		}
	}
}

func TestDefaults(t *testing.T) {
	isolate(t)
	want := map[string]map[string]string{
		"agent": {
			"transport": "auto", "proxy": "", "mtu": "0", "certificates": "acme", "acme_email": "", "acme_ca": "", "acme_root": "",
			"inspect": "true", "web_addr": "127.0.0.1:4040", "inspect_unmask": "false", "log_level": "warn", "log_format": "text",
		},
		"edge": {
			"domain": "", "endpoint": "", "listen_wg": ":51820", "listen_https": ":443", "http3": "auto", "listen_http": ":80",
			"tls": "acme", "tcp_ports": "20000-29999", "listen_tcp": "invalid IP", "public_https_port": "0",
			"metrics": "off", "warn_random_names": "false", "handshake_rate": "200", "trusted_proxies": "", "mtu": "0", "acme_email": "", "acme_ca": "", "acme_root": "", "cert_file": "", "key_file": "", "certs": "", "log_level": "info", "log_format": "text",
		},
	}
	for name, p := range processes() {
		for _, flags := range []*pflag.FlagSet{nil, flagSet(t, p.flags)} {
			cfg, err := p.load(flags)
			if err != nil {
				t.Fatal(err)
			}
			for key, get := range p.get {
				if key == "state" {
					if !filepath.IsAbs(get(cfg)) {
						t.Errorf("%s state = %q, want an absolute path", name, get(cfg))
					}
				} else if got := get(cfg); got != want[name][key] {
					t.Errorf("%s %s = %q, want %q", name, key, got, want[name][key])
				}
			}
		}
	}
}

func TestFileIsFound(t *testing.T) {
	isolate(t)
	file, err := AgentFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("state: /srv/standard\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := write(t, "state: /srv/other\n")
	for _, test := range []struct {
		variable string
		args     []string
		want     string
	}{
		{"", nil, "/srv/standard"},
		{other, nil, "/srv/other"},
		{filepath.Join(t.TempDir(), "none.yml"), []string{"--config", other}, "/srv/other"},
	} {
		t.Setenv(configVariable, test.variable)
		cfg, err := LoadAgent(flagSet(t, AgentFlags, test.args...))
		if err != nil {
			t.Fatal(err)
		}
		if cfg.State != test.want {
			t.Errorf("with %q %q the state is %q, want %q", test.variable, test.args, cfg.State, test.want)
		}
	}
}

func TestFileThatWasNamedMustBeThere(t *testing.T) {
	isolate(t)
	_, err := LoadAgent(flagSet(t, AgentFlags, "--config", filepath.Join(t.TempDir(), "none.yml")))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("err = %v, want one that says the file does not exist", err)
	}
}

func TestFewFlagsSuffice(t *testing.T) {
	isolate(t)
	cfg, err := LoadEdge(flagSet(t, EdgeStateFlags, "--state", "/srv/flag"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.State != "/srv/flag" || cfg.ListenWG.Port != 51820 {
		t.Errorf("got state %q and port %d", cfg.State, cfg.ListenWG.Port)
	}
}

func TestPlaceOfAWrongValue(t *testing.T) {
	isolate(t)
	config := write(t, "\n\ntls: on\n")
	for _, test := range []struct {
		name, variable string
		args           []string
		want           []string
		usage          bool
	}{
		{name: "file", want: []string{config + ":3: tls: ", "allowed: acme, internal, off"}},
		{name: "variable", variable: "no", want: []string{"WGEXPOSE_TLS: ", config + ":3: tls: "}},
		{name: "flag", args: []string{"--tls", "no"}, want: []string{"--tls: ", config + ":3: tls: "}},
		{name: "good flag over a bad file", args: []string{"--tls", "off"}, want: []string{config + ":3: tls: "}},
		{name: "flag alone", args: []string{"--config", write(t, ""), "--tls", "no"}, want: []string{"--tls: "}, usage: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("WGEXPOSE_TLS", test.variable)
			args := test.args
			if len(args) == 0 || args[0] != "--config" {
				args = append([]string{"--config", config}, args...)
			}
			_, err := LoadEdge(flagSet(t, EdgeFlags, args...))
			var problems *Error
			if !errors.As(err, &problems) {
				t.Fatalf("err = %v, want an *Error", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in:\n%v", want, err)
				}
			}
			if problems.Usage() != test.usage {
				t.Errorf("Usage() = %v, want %v", problems.Usage(), test.usage)
			}
		})
	}
}

// TestDifferences: whatever the settings of an agent are, each is looked at.
func TestDifferences(t *testing.T) {
	isolate(t)
	before, err := LoadAgent(nil)
	if err != nil {
		t.Fatal(err)
	}
	if keys := Differences(before, before); len(keys) > 0 {
		t.Errorf("%v differ from themselves", keys)
	}
	for _, s := range agentSettings() {
		value, _, _ := three(s.key)
		after, err := LoadAgent(flagSet(t, AgentFlags, "--"+s.flag()+"="+value))
		if err != nil {
			t.Fatal(err)
		}
		if keys := Differences(before, after); len(keys) != 1 || keys[0] != s.key {
			t.Errorf("%s is another, and %v differ", s.key, keys)
		}
	}
}

// TestSamePublicSide: two tunnels cannot have one public side, and the second is
// told where it says so.
func TestSamePublicSide(t *testing.T) {
	config := write(t, `tunnels:
  a: {kind: http, upstream: 1, url: https://x.example.com}
  b: {kind: tls, upstream: 2, url: tls://x.example.com}
  c: {kind: tcp, upstream: 3, port: 20001}
  d:
    kind: tcp
    upstream: 4
    port: 20001
`)
	isolate(t)
	_, err := LoadAgent(flagSet(t, AgentFlags, "--config", config))
	var problems *Error
	if !errors.As(err, &problems) {
		t.Fatalf("err = %v, want an *Error", err)
	}
	for _, want := range []string{":3: tunnels.b.url: ", "tunnel a asks for", ":8: tunnels.d.port: ", "tunnel c asks for"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}
