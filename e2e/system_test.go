package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/e2e/process"
	"github.com/wgexpose/wgexpose/internal/ports"
)

// domain is the edge's. Names below it lead to this machine by themselves in
// curl and browsers (RFC 6761 section 6.3), and test clients dial its address.
const domain = "localhost"

// share is a tunnel of the agent's config file.
type share struct {
	name, kind, upstream string
	more                 string // further lines of its section
}

// system is an edge and an agent, each a process.
type system struct {
	t           *testing.T
	edge, agent *process.Process
	ready       process.Event // the edge's
	dir         string        // holds edge/, agent/, ca.pem and wgexpose.yml
	ca          string        // file with the internal CA's root
	roots       *x509.CertPool
	public      map[string]string // URL by tunnel
}

// startSystem starts an edge, and an agent that shares the tunnels, all of
// which are up when it returns.
func startSystem(t *testing.T, tunnels ...share) *system {
	t.Helper()
	s := newSystem(t)
	s.share("", tunnels...)
	return s
}

// newSystem starts an edge, and has an agent join it.
func newSystem(t *testing.T) *system {
	t.Helper()
	s := &system{t: t, dir: t.TempDir(), public: make(map[string]string)}
	b := ports.Reserve(t) // tests start the edge again
	s.startEdge(b.Addr().String(), b.Addr().String(), b.Addr().String())
	s.ca = filepath.Join(s.dir, "ca.pem")
	pem := s.run("", "edge", "ca", "--state", s.edgeDir())
	if err := os.WriteFile(s.ca, []byte(pem), 0o600); err != nil {
		t.Fatal(err)
	}
	s.roots = x509.NewCertPool()
	if !s.roots.AppendCertsFromPEM([]byte(pem)) {
		t.Fatalf("edge ca printed no certificate: %q", pem)
	}
	token := s.run("", "edge", "invite", "--name", "laptop", "--state", s.edgeDir())
	s.run(token, "join", "-", "--state", s.agentDir())
	return s
}

// share starts the agent with the tunnels and other settings, and returns when all
// are up.
func (s *system) share(settings string, tunnels ...share) {
	s.t.Helper()
	s.configure(settings, tunnels...)
	s.startAgent()
	for _, sh := range tunnels {
		s.public[sh.name] = s.awaitUp(0, sh.name).PublicURL
	}
}

// configure writes the agent's config file.
func (s *system) configure(settings string, tunnels ...share) {
	s.t.Helper()
	if err := os.WriteFile(s.configFile(), []byte(configText(settings, tunnels...)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// configText is a config file.
func configText(settings string, tunnels ...share) string {
	var config strings.Builder
	config.WriteString(settings)
	config.WriteString("tunnels:\n")
	for _, sh := range tunnels {
		fmt.Fprintf(&config, "  %s:\n    kind: %s\n    upstream: %s\n", sh.name, sh.kind, sh.upstream)
		for line := range strings.Lines(sh.more) {
			fmt.Fprintf(&config, "    %s\n", strings.TrimSpace(line))
		}
	}
	return config.String()
}

func (s *system) edgeDir() string    { return filepath.Join(s.dir, "edge") }
func (s *system) agentDir() string   { return filepath.Join(s.dir, "agent") }
func (s *system) configFile() string { return filepath.Join(s.dir, "wgexpose.yml") }

// run runs a command of the program to its end.
func (s *system) run(stdin string, args ...string) string {
	s.t.Helper()
	return process.Run(s.t, process.Config{Path: binary, Args: args, Stdin: stdin})
}

// startEdge starts the edge on these addresses, with more arguments, and waits until
// it serves.
func (s *system) startEdge(wg, https, plain string, more ...string) {
	s.t.Helper()
	s.edge = process.Start(s.t, process.Config{Name: "edge", Path: binary, Args: append([]string{
		"edge", "--json", "--state", s.edgeDir(), "--domain", domain, "--tls", "internal", "--log-level", "info",
		"--listen-wg", wg, "--listen-https", https, "--listen-http", plain, "--listen-tcp", "127.0.0.1",
	}, more...)})
	s.ready = s.edge.Await("the edge serves", func(e process.Event) bool { return e.Event == "ready" })
}

// startAgent starts the agent; its tunnels may not be up yet.
func (s *system) startAgent() {
	s.t.Helper()
	s.agent = process.Start(s.t, process.Config{Name: "agent", Path: binary, Args: []string{
		"up", "--json", "--state", s.agentDir(), "--config", s.configFile(), "--log-level", "debug", "--web-addr", "127.0.0.1:0",
	}})
}

// awaitUp waits until the tunnel is up, in events after the first n. A certificate
// may take its time.
func (s *system) awaitUp(n int, name string) process.Event {
	s.t.Helper()
	e := s.agent.AwaitAfter(n, name+" is up", func(e process.Event) bool {
		return e.Event == "tunnel" && e.Name == name && (e.State == "up" || e.State == "error" && e.Error.Code != "certificate_pending")
	})
	if e.State != "up" {
		s.t.Fatalf("tunnel %s: %+v", name, *e.Error)
	}
	return e
}

// host returns the host and port of a tunnel's public address.
func (s *system) host(name string) string {
	s.t.Helper()
	u, err := url.Parse(s.public[name])
	if err != nil || u.Host == "" {
		s.t.Fatalf("tunnel %s has the public address %q (%v)", name, s.public[name], err)
	}
	return u.Host
}

// addr returns the address of a tunnel's public port on this machine.
func (s *system) addr(name string) string {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.host(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// client returns a visitor who speaks HTTP/2 or HTTP/1.1 only and trusts the
// edge's CA. It resolves every name to the edge.
func (s *system) client(http2 bool) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	t := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.roots},
		DialContext:     (&edgeDialer{addr: s.ready.HTTPS}).DialContext,
		Protocols:       &protocols,
	}
	s.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}
