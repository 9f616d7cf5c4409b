// Package harness runs a whole edge and its agents in one test process, on
// loopback addresses and ports that are the test's own:
//
//	e := harness.Start(t, harness.Options{})
//	run := e.AddAgent("laptop").Publish(harness.HTTP("app", upstream.URL))
//	resp, err := e.Client().Get(run.WaitUp("app"))
//
// All parts are the real ones: UDP sockets, wireguard-go, netstack, TLS with
// the internal authority, the database on disk. What a single process cannot
// have is done around them: [Options].Relay puts a UDP relay between agents and
// edge, which can black-hole one of them ([Agent.Sleep]), and [Edge.OpenNode]
// opens a bare overlay node with an agent's key, from which a test sends what no
// agent would.
//
// It is for tests only, above agent and edge, and nothing imports it but tests.
package harness

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/internal/ports"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

// patience is how long anything may take that is waited for. It is no
// expectation: a test that runs into it has failed.
const patience = 60 * time.Second

// Options say what Start starts. The zero value is an edge with TLS from its
// internal authority.
type Options struct {
	TLS    certs.Mode // "" = certs.Internal
	Timing edge.Timing
	Relay  bool // put a relay between agents and edge, for Sleep and Kill
	Second bool // a second WireGuard address, which no relay is in front of
	HTTP3  bool // serve it as well

	Metrics bool // listen for Prometheus

	CertFolder string // own certificates
	Lookup     func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Edge is an edge that runs until the test ends.
type Edge struct {
	t       testing.TB
	o       Options
	Dir     *statedir.Dir
	Domain  string // of this edge alone
	Ready   edge.Ready
	Log     *slog.Logger
	relay   *relay
	running *process
	clients sync.Map // *http.Transport

	// The same each time that it starts.
	wg, second, https, http netip.AddrPort
	tcp                     tunnel.PortRange
}

// process is one run of something until it is stopped.
type process struct {
	stop context.CancelFunc
	done chan struct{}
	err  error // valid when done is closed
}

func start(run func(context.Context) error) *process {
	ctx, stop := context.WithCancel(context.Background())
	p := &process{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = run(ctx)
	}()
	return p
}

// end stops the process and waits for it.
func (p *process) end(t testing.TB) error {
	t.Helper()
	p.stop()
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		t.Fatal("it does not stop")
		return nil
	}
}

// Start starts an edge. It fails the test when that does not serve.
func Start(t testing.TB, o Options) *Edge {
	t.Helper()
	if o.TLS == "" {
		o.TLS = certs.Internal
	}
	e := &Edge{
		t: t, o: o, Dir: openDir(t), Log: Logger(t),
		// certmagic shares some maps between its users in a process.
		Domain: "t" + strings.ToLower(rand.Text()[:10]) + ".localhost",
	}
	b := ports.Reserve(t)
	e.wg, e.second, e.https, e.http = b.Addr(), b.Addr(), b.Addr(), b.Addr()
	e.tcp.First, e.tcp.Last = b.Range(64)
	t.Cleanup(func() {
		if e.running != nil {
			e.Stop()
		}
	})
	if o.Relay {
		e.relay = newRelay(t)
	}
	e.start()
	return e
}

// start runs an edge on the state directory, with the same addresses each time.
func (e *Edge) start() {
	e.t.Helper()
	cfg := edge.Config{
		Dir: e.Dir, Domain: e.Domain, TLS: e.o.TLS, Timing: e.o.Timing, Version: "test", Logger: e.Log,
		WG: e.wg, TCPPorts: e.tcp, ListenTCP: loopback.Addr(), CertFolder: e.o.CertFolder, Lookup: e.o.Lookup,
		HTTP: listen(e.t, e.http),
	}
	if e.o.Metrics {
		cfg.Metrics = listen(e.t, loopback)
	}
	if e.o.Second {
		cfg.MoreWG = []netip.AddrPort{e.second}
	}
	if e.o.TLS != certs.Off {
		cfg.HTTPS = listen(e.t, e.https)
	}
	if e.o.HTTP3 {
		udp, err := net.ListenPacket("udp", e.https.String())
		if err != nil {
			e.t.Fatal(err)
		}
		cfg.HTTP3 = udp
	}
	if e.relay != nil {
		cfg.Endpoint = e.relay.addr().String()
	}
	ready := make(chan edge.Ready, 1)
	cfg.Ready = func(r edge.Ready) { ready <- r }
	ed, err := edge.New(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	e.running = start(ed.Run)
	select {
	case e.Ready = <-ready:
	case <-e.running.done:
		e.t.Fatalf("the edge ended: %v", e.running.err)
	case <-time.After(patience):
		e.t.Fatal("the edge does not get ready")
	}
	if e.relay != nil {
		e.relay.setEdge(e.Ready.WG)
	}
}

// Stop drains the edge and waits for its end.
func (e *Edge) Stop() {
	e.t.Helper()
	running := e.running
	e.running = nil
	if err := running.end(e.t); err != nil {
		e.t.Errorf("the edge ended: %v", err)
	}
	e.closeClients()
}

// Restart stops the edge and starts it again, on the same state and addresses.
func (e *Edge) Restart() {
	e.t.Helper()
	e.Stop()
	e.start()
}

// Crash restarts the edge as after kill -9, as far as agents can tell: from one
// packet to the next the edge is silent, and the next process knows what is on
// disk. It needs Options.Relay.
func (e *Edge) Crash() {
	e.t.Helper()
	e.relay.hold(true)
	e.Stop()
	e.relay.hold(false)
	e.start()
}

// BlockUDP drops all packets between agents and edge, or lets them pass again,
// as a firewall does. It needs Options.Relay.
func (e *Edge) BlockUDP(blocked bool) { e.relay.hold(blocked) }

// UDPFlows is how many addresses have sent UDP to the edge. It needs
// Options.Relay.
func (e *Edge) UDPFlows() int {
	e.relay.mu.Lock()
	defer e.relay.mu.Unlock()
	return len(e.relay.flows)
}

// StartAgain starts an edge that was stopped.
func (e *Edge) StartAgain() {
	e.t.Helper()
	e.start()
}

// Admin opens the edge's admin interface, by socket or database.
func (e *Edge) Admin() edge.Admin {
	e.t.Helper()
	a, err := edge.OpenAdmin(e.t.Context(), e.Dir)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { a.Close() })
	return a
}

// Invite makes an invite.
func (e *Edge) Invite(o edge.InviteOptions) keys.Invite {
	e.t.Helper()
	a := e.Admin()
	defer a.Close()
	r, err := a.Invite(e.t.Context(), o)
	if err != nil {
		e.t.Fatal(err)
	}
	i, err := keys.ParseInvite(r.Token)
	if err != nil {
		e.t.Fatal(err)
	}
	return i
}

// Client is a new HTTP client that trusts the edge's internal authority and
// finds every host name at the edge. It follows no redirects. Each has its own
// connections.
func (e *Edge) Client() *http.Client {
	e.t.Helper()
	tr := &http.Transport{ForceAttemptHTTP2: true, DialContext: e.dialContext}
	if e.o.TLS != certs.Off {
		tr.TLSClientConfig = e.TLSConfig()
	}
	e.clients.Store(tr, nil)
	return &http.Client{
		Transport: tr, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// closeClients leaves no connections for the leak check to find.
func (e *Edge) closeClients() {
	e.clients.Range(func(tr, _ any) bool {
		tr.(*http.Transport).CloseIdleConnections()
		return true
	})
}

// TLSConfig trusts the edge's internal authority and nobody else.
func (e *Edge) TLSConfig() *tls.Config {
	e.t.Helper()
	pem, err := edge.CA(e.Dir)
	if err != nil {
		e.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		e.t.Fatal("the edge's root is no certificate")
	}
	return &tls.Config{RootCAs: pool}
}

// dialContext finds this edge's names at its listeners.
func (e *Edge) dialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if host != e.Domain && !strings.HasSuffix(host, "."+e.Domain) {
		return nil, errors.New(host + " is no name of this edge")
	}
	var d net.Dialer
	return d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
}

// Dial connects to a tcp:// public URL.
func (e *Edge) Dial(url string) *net.TCPConn {
	e.t.Helper()
	c, err := e.TryDial(url)
	if err != nil {
		e.t.Fatal(err)
	}
	return c
}

// TryDial is Dial for connections that the edge may turn away. It does so by a
// reset after it has accepted, which may come before the dial has returned: the
// error is then ECONNRESET.
func (e *Edge) TryDial(url string) (*net.TCPConn, error) {
	e.t.Helper()
	addr, ok := strings.CutPrefix(url, "tcp://")
	if !ok {
		e.t.Fatalf("%s is no tcp:// URL", url)
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	c, err := e.dialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	e.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// Get asks for a page and returns status, error code and body.
func (e *Edge) Get(c *http.Client, url string) (status int, code, body string) {
	e.t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Wgexpose-Error"), string(data)
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func listen(t testing.TB, addr netip.AddrPort) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// openDir makes a state directory with a path that is short enough for sockets.
func openDir(t testing.TB) *statedir.Dir {
	t.Helper()
	parent, err := os.MkdirTemp("", "wgx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	dir, err := statedir.Open(filepath.Join(parent, "s"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Logger logs to the test, with WGEXPOSE_TEST_LOG=debug in all detail.
func Logger(t testing.TB) *slog.Logger {
	level := slog.LevelInfo
	if os.Getenv("WGEXPOSE_TEST_LOG") == "debug" {
		level = slog.LevelDebug
	}
	w := &testWriter{t: t}
	t.Cleanup(w.stop)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// testWriter writes to a test's log as long as that runs.
type testWriter struct {
	mu sync.Mutex // guards t
	t  testing.TB
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

func (w *testWriter) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}

// Main is TestMain for packages that use the harness: it fails when goroutines
// are left at the end.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m)
}
