package configs

import (
	"bufio"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/wgexpose/wgexpose/tunnel"
)

func decimal(n uint16) string { return strconv.Itoa(int(n)) }

// TestVerifiesUpstreamTLS: what is on this machine is not checked unasked.
func TestVerifiesUpstreamTLS(t *testing.T) {
	for upstream, want := range map[string]bool{
		"https://127.0.0.1:8443": false, "https://localhost:8443": false, "https://[::1]:8443": false, "https://127.9.9.9": false,
		"https://192.168.1.10:5001": true, "https://nas.lan": true, "https://localhost.example.com": true, "http://127.0.0.1:1": true,
	} {
		for _, said := range []string{"", "true", "false"} {
			values := map[string]string{"kind": "http", "upstream": upstream}
			expected := want
			if said != "" {
				values["upstream_tls_verify"] = said
				expected = said == "true"
			}
			tun, _ := ParseTunnel("app", values)
			if got := tun.VerifiesUpstreamTLS(); got != expected {
				t.Errorf("%s, upstream_tls_verify %q: %v", upstream, said, got)
			}
		}
	}
}

// agentText and edgeText load a file's text as if it were test.yml.
func agentText(text string) (Agent, error) {
	m, err := mergeDocument(nil, agentSettings(), parseDocument("test.yml", []byte(text)), tunnelsKey)
	if err != nil {
		return Agent{}, err
	}
	return m.agent()
}

func edgeText(text string) (Edge, error) {
	m, err := mergeDocument(nil, edgeSettings(), parseDocument("test.yml", []byte(text)), edgeMaps()...)
	if err != nil {
		return Edge{}, err
	}
	return m.edge()
}

func TestAgentTunnels(t *testing.T) {
	isolate(t)
	cfg, err := agentText(`
tunnels:
  zebra: {kind: http, upstream: 8089}
  nas:
    kind: http
    upstream: https://192.168.1.10:5001
    url: https://Files.Example.com
    host_header: NAS.lan:5001
    compression: true
    upstream_protocol: http2
    upstream_tls_verify: false
  ssh: {kind: tcp, upstream: "22", port: 20022, proxy_protocol: v2}
  sock: {kind: tcp, upstream: "unix:/run/X.sock", proxy_protocol: v1, cidr_deny: [192.0.2.1, "2001:db8::/32"], cidr_allow: 10.0.0.0/8}
  locked:
    kind: http
    upstream: 1
    basic_auth: ["me:a:b", you:secret]
    request_header_add: "X-A: b: c"
    request_header_remove: [cookie]
    response_header_add: ["X-B:"]
    response_header_remove: server
`)
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := []Tunnel{
		{Name: "zebra", Kind: tunnel.HTTP, Upstream: "http://127.0.0.1:8089"},
		{Name: "nas", Kind: tunnel.HTTP, Upstream: "https://192.168.1.10:5001", URL: "files.example.com",
			HostHeader: "NAS.lan:5001", Compression: true, UpstreamProtocol: "http2", UpstreamTLSVerify: &no},
		{Name: "ssh", Kind: tunnel.TCP, Upstream: "tcp://127.0.0.1:22", Port: 20022, ProxyProtocol: 2},
		{Name: "sock", Kind: tunnel.TCP, Upstream: "unix:/run/X.sock", ProxyProtocol: 1,
			CIDRDeny:  []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32")},
			CIDRAllow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		{Name: "locked", Kind: tunnel.HTTP, Upstream: "http://127.0.0.1:1",
			BasicAuth:      []Credential{{"me", "a:b"}, {"you", "secret"}},
			RequestHeader:  tunnel.HeaderRules{Remove: []string{"cookie"}, Add: []tunnel.Header{{Name: "X-A", Value: "b: c"}}},
			ResponseHeader: tunnel.HeaderRules{Remove: []string{"server"}, Add: []tunnel.Header{{Name: "X-B"}}}},
	}
	if len(cfg.Tunnels) != len(want) {
		t.Fatalf("got %d tunnels, want %d", len(cfg.Tunnels), len(want))
	}
	for i, got := range cfg.Tunnels {
		w := want[i]
		if (got.UpstreamTLSVerify == nil) != (w.UpstreamTLSVerify == nil) ||
			got.UpstreamTLSVerify != nil && *got.UpstreamTLSVerify != *w.UpstreamTLSVerify {
			t.Errorf("tunnel %d: verify differs", i)
		}
		got.UpstreamTLSVerify, w.UpstreamTLSVerify = nil, nil
		if !reflect.DeepEqual(got, w) {
			t.Errorf("tunnel %d is %+v, want %+v", i, got, w)
		}
	}
}

func TestAliasesStandForTheirValue(t *testing.T) {
	isolate(t)
	cfg, err := agentText("tunnels:\n  a: {kind: &k http, upstream: 1}\n  b: {kind: *k, upstream: 2}\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Tunnels) != 2 || cfg.Tunnels[1].Kind != tunnel.HTTP {
		t.Errorf("got %+v", cfg.Tunnels)
	}
}

func TestEmptyFilesSetNothing(t *testing.T) {
	isolate(t)
	for _, text := range []string{"", "\n# nothing\n", "---\n", "null\n", "tunnels:\n"} {
		if cfg, err := agentText(text); err != nil || len(cfg.Tunnels) != 0 {
			t.Errorf("%q: %v, %v", text, cfg.Tunnels, err)
		}
	}
}

// Each mistake must be told with its line, its key, and what is allowed.
func TestMistakes(t *testing.T) {
	isolate(t)
	agent := func(text string) error { _, err := agentText(text); return err }
	edge := func(text string) error { _, err := edgeText(text); return err }
	for _, test := range []struct {
		name string
		load func(string) error
		text string
		want []string // one for each line of the error, in order
	}{
		{"unknown key", agent, "\nstat: x\n", []string{`^test.yml:2: stat: unknown key; allowed here: state, transport, proxy, mtu, certificates, acme_email, acme_ca, acme_root, inspect, web_addr, inspect_unmask, log_level, log_format, tunnels$`}},
		{"unknown tunnel key", agent, "tunnels:\n  app:\n    kind: http\n    upstream: 1\n    uri: x\n",
			[]string{`^test.yml:5: tunnels.app.uri: unknown key; allowed here: kind, upstream, url, port,`}},
		{"other process's key", agent, "listen_wg: :1\n", []string{`^test.yml:1: listen_wg: unknown key`}},
		{"twice", agent, "state: a\nlog_level: info\nstate: b\n", []string{`^test.yml:3: state: set twice; it is on line 1`}},
		{"same tunnel twice", agent, "tunnels:\n  a: {kind: tcp, upstream: 1}\n  a: {kind: tcp, upstream: 1}\n", []string{`^test.yml:3: tunnels.a: set twice`}},
		{"case counts", agent, "State: a\n", []string{`^test.yml:1: State: unknown key`}},
		{"a list for a value", agent, "state: [a]\n", []string{`^test.yml:1: state: must be one value, and is a list$`}},
		{"no value", agent, "log_level:\n", []string{`^test.yml:1: log_level: has no value`}},
		{"no password", agent, "tunnels:\n  a: {kind: http, upstream: 1, basic_auth: [me]}\n", []string{`^test.yml:2: tunnels.a.basic_auth: must be USER:PASSWORD$`}},
		{"long password", agent, "tunnels:\n  a: {kind: http, upstream: 1, basic_auth: 'me:" + strings.Repeat("geheim", 13) + "'}\n",
			[]string{`^test.yml:2: tunnels.a.basic_auth: the password of "me" must have 1 to 72 bytes$`}},
		{"password of tcp", agent, "tunnels:\n  a: {kind: tcp, upstream: 1, basic_auth: me:x}\n", []string{`basic_auth: belongs to a tunnel of kind http`}},
		{"no networks", agent, "tunnels:\n  a: {kind: tcp, upstream: 1, cidr_deny: []}\n", []string{`cidr_deny: is an empty list`}},
		{"a map in a list", agent, "tunnels:\n  a:\n    kind: tcp\n    upstream: 1\n    cidr_deny:\n      - a: b\n", []string{`^test.yml:6: tunnels.a.cidr_deny: must be one value, and is a map$`}},
		{"network", agent, "tunnels:\n  a: {kind: tcp, upstream: 1, cidr_deny: [10.0.0.1/8]}\n", []string{`cidr_deny: "10.0.0.1/8" names one machine of a network: write 10.0.0.0/8`}},
		{"header", agent, "tunnels:\n  a: {kind: http, upstream: 1, request_header_add: [X-A]}\n", []string{`request_header_add: "X-A" must be NAME: VALUE`}},
		{"header of the edge", agent, "tunnels:\n  a: {kind: http, upstream: 1, request_header_remove: [X-Forwarded-For]}\n", []string{`request_header_remove: .*own matter`}},
		{"two lines", agent, "tunnels:\n  a: {kind: http, upstream: 1, request_header_add: \"X-A: b\\nX-C: d\"}\n", []string{`goes over several lines`}},
		{"folder", agent, "tunnels:\n  a: {kind: http, upstream: 'file://www'}\n", []string{`tunnels.a.upstream: "file://www" is no folder`}},
		{"folder of tcp", agent, "tunnels:\n  a: {kind: tcp, upstream: 'file:///www'}\n", []string{`tunnels.a.upstream: `}},
		{"listing of a server", agent, "tunnels:\n  a: {kind: http, upstream: 1, listing: true}\n", []string{`tunnels.a.listing: has a meaning for a folder alone`}},
		{"spa", agent, "tunnels:\n  a: {kind: http, upstream: 'file:///www', spa: yes}\n", []string{`tunnels.a.spa: .*; allowed: true, false`}},
		{"list of tunnels", agent, "tunnels:\n  - a\n", []string{`^test.yml:1: tunnels: must be a map .* is a list$`}},
		{"tunnel without settings", agent, "tunnels:\n  app: 8089\n", []string{`^test.yml:2: tunnels.app: must be a map .* is the value "8089"$`}},
		{"tunnel settings missing", agent, "tunnels:\n  app: {}\n",
			[]string{`^test.yml:2: tunnels.app.kind: missing; allowed: http, tcp, tls$`, `^test.yml:2: tunnels.app.upstream: missing`}},
		{"kind", agent, "tunnels:\n  app:\n    kind: udp\n    upstream: 1\n", []string{`^test.yml:3: tunnels.app.kind: "udp" is not allowed; allowed: http, tcp, tls$`}},
		{"name", agent, "tunnels:\n  my.app: {kind: http, upstream: 1}\n", []string{`^test.yml:2: tunnels.my.app: `}},
		{"upstream", agent, "tunnels:\n  app:\n    kind: http\n    upstream: ftp://x\n", []string{`^test.yml:4: tunnels.app.upstream: `}},
		{"url with a path", agent, "tunnels:\n  app: {kind: http, upstream: 1, url: https://a.example.com/x}\n", []string{`^test.yml:2: tunnels.app.url: .*; allowed: https://HOST`}},
		{"url with a port", agent, "tunnels:\n  app: {kind: http, upstream: 1, url: https://a.example.com:8443}\n", []string{`^test.yml:2: tunnels.app.url: the port is the edge's choice`}},
		{"url of another scheme", agent, "tunnels:\n  app: {kind: http, upstream: 1, url: tcp://a.example.com}\n", []string{`^test.yml:2: tunnels.app.url: .*; allowed: https://HOST`}},
		{"port of http", agent, "tunnels:\n  app: {kind: http, upstream: 1, port: 2}\n", []string{`^test.yml:2: tunnels.app.port: belongs to a tunnel of kind tcp; this one is http$`}},
		{"url of tcp", agent, "tunnels:\n  app: {kind: tcp, upstream: 1, url: a.example.com}\n", []string{`tunnels.app.url: belongs to a tunnel of kind http`}},
		{"port range", agent, "tunnels:\n  app: {kind: tcp, upstream: 1, port: 65536}\n", []string{`tunnels.app.port: "65536" is no port; allowed: 1 to 65535$`}},
		{"TLS nowhere", agent, "tunnels:\n  app: {kind: tls, upstream: 1, terminate_at: cloud}\n", []string{`tunnels.app.terminate_at: .*; allowed: upstream, agent, edge$`}},
		{"TLS of http", agent, "tunnels:\n  app: {kind: http, upstream: 1, terminate_at: upstream}\n", []string{`tunnels.app.terminate_at: .*; allowed: edge, agent$`}},
		{"TLS of tcp", agent, "tunnels:\n  app: {kind: tcp, upstream: 1, terminate_at: agent}\n", []string{`tunnels.app.terminate_at: belongs to a tunnel of kind http or tls; this one is tcp$`}},
		{"password of whom the edge does not see", agent, "tunnels:\n  app: {kind: http, upstream: 1, terminate_at: agent, basic_auth: 'me:secret', cidr_allow: 192.0.2.1}\n",
			[]string{`tunnels.app.basic_auth: is for the edge to enforce, which sees no requests where TLS ends at the agent`}},
		{"PROXY header of http", agent, "tunnels:\n  app: {kind: http, upstream: 1, proxy_protocol: v1}\n", []string{`tunnels.app.proxy_protocol: belongs to a tunnel of kind tcp or tls; this one is http$`}},
		{"tls:// of http", agent, "tunnels:\n  app: {kind: http, upstream: 1, url: 'tls://a.example.com'}\n", []string{`tunnels.app.url: .*; allowed: https://HOST`}},
		{"proxy protocol", agent, "tunnels:\n  app: {kind: tcp, upstream: 1, proxy_protocol: v3}\n", []string{`tunnels.app.proxy_protocol: .*; allowed: v1, v2$`}},
		{"verify", agent, "tunnels:\n  app: {kind: http, upstream: 'https://x', upstream_tls_verify: 1}\n", []string{`tunnels.app.upstream_tls_verify: .*; allowed: true, false$`}},
		{"verify without TLS", agent, "tunnels:\n  app: {kind: http, upstream: 1, upstream_tls_verify: false}\n", []string{`tunnels.app.upstream_tls_verify: has a meaning for an https:// upstream alone`}},
		{"upstream protocol", agent, "tunnels:\n  app: {kind: http, upstream: 1, upstream_protocol: h2c}\n", []string{`tunnels.app.upstream_protocol: .*; allowed: http1, http2$`}},
		{"compression", agent, "tunnels:\n  app: {kind: http, upstream: 1, compression: maybe}\n", []string{`tunnels.app.compression: .*; allowed: true, false$`}},
		{"compression of tcp", agent, "tunnels:\n  app: {kind: tcp, upstream: 1, compression: true}\n", []string{`tunnels.app.compression: belongs to a tunnel of kind http`}},
		{"host header", agent, "tunnels:\n  app: {kind: http, upstream: 1, host_header: 'a b'}\n", []string{`tunnels.app.host_header: must be a host name`}},
		{"all at once, in the order of the file", agent, "tunnels:\n  a: {kind: x, upstream: 1}\nlog_level: loud\nnope: 1\n",
			[]string{`^test.yml:2: tunnels.a.kind`, `^test.yml:3: log_level: "loud" is no log level; allowed: debug, info, warn, error$`, `^test.yml:4: nope`}},
		{"not a map", agent, "hello\n", []string{`^test.yml:1: the file must be a map`}},
		{"two documents", agent, "state: a\n---\nstate: b\n", []string{`^test.yml:\d: a second YAML document`}},
		{"syntax", agent, "state: a\n  b: c\n", []string{`^test.yml:2: not valid YAML: `}},
		{"tab", agent, "tunnels:\n\tapp: 1\n", []string{`^test.yml:2: not valid YAML: `}},
		{"binary", agent, "\x00\x01", []string{`^test.yml:1: not valid YAML: `}},
		{"listen", edge, "listen_wg: here\n", []string{`^test.yml:1: listen_wg: .*; allowed: a port such as :443`}},
		{"WireGuard is never off", edge, "listen_wg: off\n", []string{`^test.yml:1: listen_wg: "off" is no address`}},
		{"tcp ports", edge, "tcp_ports: 9-1\n", []string{`^test.yml:1: tcp_ports: .*range of ports 9-1`}},
		{"domain", edge, "domain: 192.0.2.1\n", []string{`^test.yml:1: domain: .*is an IP address; allowed: a domain name`}},
		{"domain with a space", edge, "domain: a b\n", []string{`^test.yml:1: domain: .*allowed: a domain name`}},
		{"endpoint", edge, "endpoint: 'https://x'\n", []string{`^test.yml:1: endpoint: .*allowed: the public address`}},
		{"endpoint port", edge, "endpoint: 'x:70000'\n", []string{`^test.yml:1: endpoint: "x:70000" is no endpoint`}},
		{"endpoint that is no address to reach", edge, "endpoint: 0.0.0.0\n", []string{`^test.yml:1: endpoint: "0.0.0.0" is no endpoint`}},
		{"listen_tcp", edge, "listen_tcp: ':80'\n", []string{`^test.yml:1: listen_tcp: .*is no IP address; allowed: `}},
		{"email", edge, "acme_email: me\n", []string{`^test.yml:1: acme_email: .*allowed: `}},
		{"acme_ca", edge, "acme_ca: http://x\n", []string{`^test.yml:1: acme_ca: .*allowed: an https:// address`}},
		{"acme for localhost", edge, "\ndomain: a.localhost\ntls: acme\n", []string{`^test.yml:3: tls: no public authority`}},
		{"acme by default for localhost", edge, "\ndomain: localhost\n", []string{`^test.yml:2: domain: no public authority`}},
		{"nothing to serve", edge, "tls: off\nlisten_http: off\n", []string{`^test.yml:2: listen_http: is off, and so is TLS`}},
		{"HTTP/3 without TLS", edge, "tls: off\nhttp3: on\n", []string{`^test.yml:2: http3: is on, and tls is off`}},
		{"HTTP/3 on WireGuard's port", edge, "tls: internal\nhttp3: on\nlisten_wg: ':51820,192.0.2.1:443'\n", []string{`^test.yml:2: http3: is on, and UDP port 443 is WireGuard's by listen_wg`}},
		{"TLS without a listener", edge, "tls: internal\nlisten_https: off\n", []string{`^test.yml:2: listen_https: is off, though TLS is not`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.load(test.text)
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(test.want) {
				t.Fatalf("%d lines, want %d:\n%v", len(lines), len(test.want), err)
			}
			for i, want := range test.want {
				if !regexp.MustCompile(want).MatchString(lines[i]) {
					t.Errorf("line %d is\n%s\nwant\n%s", i, lines[i], want)
				}
			}
		})
	}
}

func TestListen(t *testing.T) {
	for in, want := range map[string]string{
		":443": ":443", "443": ":443", "127.0.0.1:0": "127.0.0.1:0", "[::1]:80": "[::1]:80", "": "off", "off": "off", "[fe80::1%lo]:1": "[fe80::1%lo]:1",
	} {
		if l, err := parseListenOrOff(in); err != nil || l.String() != want {
			t.Errorf("%q: %s, %v, want %s", in, l, err, want)
		}
	}
	for _, in := range []string{"localhost:1", "::1:80", ":", ":-1", ":65536", "a", "1.2.3.4"} {
		if l, err := parseListenOrOff(in); err == nil {
			t.Errorf("%q is taken as %s", in, l)
		}
	}
}

func TestLargeFileIsRefused(t *testing.T) {
	isolate(t)
	config := write(t, "# "+strings.Repeat("x", maxFile))
	_, err := LoadAgent(flagSet(t, AgentFlags, "--config", config))
	if err == nil || !strings.Contains(err.Error(), config+":1: the file is larger than") {
		t.Errorf("err = %v", err)
	}
}

// A file may be small and still name the same map a billion times.
func TestAliasBomb(t *testing.T) {
	isolate(t)
	var text strings.Builder
	text.WriteString("a0: &a0 {x: 1}\n")
	for i := 1; i < 30; i++ {
		n, before := strconv.Itoa(i), strconv.Itoa(i-1)
		text.WriteString("a" + n + ": &a" + n + " {x: *a" + before + ", y: *a" + before + "}\n")
	}
	began := time.Now()
	if _, err := agentText(text.String()); err == nil {
		t.Error("no error")
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %v", took)
	}
}

func TestSamples(t *testing.T) {
	for file, test := range map[string]struct {
		keys  []string
		flags func(*pflag.FlagSet)
		load  func(*pflag.FlagSet) error
	}{
		"wgexpose.yml": {append(keysOf(agentSettings()), append(tunnelKeys(), tunnelsKey)...), AgentFlags,
			func(f *pflag.FlagSet) error { _, err := LoadAgent(f); return err }},
		"edge.yml": {append(keysOf(edgeSettings()), edgeMaps()...), EdgeFlags,
			func(f *pflag.FlagSet) error { _, err := LoadEdge(f); return err }},
	} {
		t.Run(file, func(t *testing.T) {
			isolate(t)
			t.Setenv("EAB_KEY", "c2VjcmV0")
			t.Setenv("CLOUDFLARE_API_TOKEN", "secret")
			if err := test.load(flagSet(t, test.flags, "--config", file)); err != nil {
				t.Errorf("as it is: %v", err)
			}
			all := uncomment(t, file)
			if err := test.load(flagSet(t, test.flags, "--config", write(t, all))); err != nil {
				t.Errorf("with every key: %v", err)
			}
			for _, key := range test.keys {
				if !regexp.MustCompile(`(?m)^ *` + key + `:`).MatchString(all) {
					t.Errorf("the sample does not show %s", key)
				}
			}
		})
	}
}

func keysOf(settings []setting) []string {
	var keys []string
	for _, s := range settings {
		keys = append(keys, s.key)
	}
	return keys
}

// uncomment switches the lines on that show a default: "#key: value".
func uncomment(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var text strings.Builder
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "#"); ok && rest != "" && rest[0] != ' ' {
			line = rest
		}
		text.WriteString(line + "\n")
	}
	return text.String()
}
