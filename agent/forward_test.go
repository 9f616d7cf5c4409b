package agent

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pires/go-proxyproto"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/internal/logbuf"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/tunnel"
)

var netipVisitor = netip.MustParseAddrPort("198.51.100.7:40001")

func readFull(r io.Reader, b []byte) (int, error) { return io.ReadFull(r, b) }

// serving is an agent that serves the tunnels, and how to dial each of them.
func serving(t testing.TB, e *fakeEdge, cfg Config) (r *running, addr map[string]netip.Addr, j Joined) {
	t.Helper()
	cfg.Dir, j = joined(t, e)
	names := make([]string, 0, len(cfg.Tunnels))
	for _, tun := range cfg.Tunnels {
		names = append(names, tun.Name)
	}
	r = start(t, cfg)
	addr = map[string]netip.Addr{}
	for _, s := range e.published(j.Node, names...) {
		addr[s.Name] = e.overlay.TunnelAddr(j.Node, s.ID)
	}
	for _, name := range names {
		r.tunnel(0, name, TunnelUp)
	}
	return r, addr, j
}

// TestOnlyTunnelsCanBeReached: whatever else of the overlay the edge asks for
// is refused, though something would listen there.
func TestOnlyTunnelsCanBeReached(t *testing.T) {
	e := newFakeEdge(t)
	up := listen(t)
	var reached atomic.Bool
	serveConns(t, up, func(net.Conn) { reached.Store(true) })
	_, addr, j := serving(t, e, Config{Tunnels: []Tunnel{tcpTunnel("app", up.Addr().String())}})
	_, _, id, _ := e.overlay.Parse(addr["app"])
	private := e.overlay.NodePrefix(j.Node).Addr().As16()
	private[11] = 4 // kind 4, value 127.0.0.1
	copy(private[12:], []byte{127, 0, 0, 1})
	for name, to := range map[string]netip.Addr{
		"the node itself":     e.overlay.NodeAddr(j.Node),
		"another id":          e.overlay.TunnelAddr(j.Node, tunnel.ID(id)+1),
		"another node":        e.overlay.TunnelAddr(j.Node+1, tunnel.ID(id)),
		"a handle":            e.overlay.HandleAddr(j.Node, id),
		"a private address":   netip.AddrFrom16(private),
		"loopback through v6": netip.MustParseAddr("64:ff9b::7f00:1"),
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if name == "another node" || name == "loopback through v6" {
			cancel() // WireGuard itself sends such packets nowhere
		}
		c, err := e.dial(ctx, netipVisitor, to)
		cancel()
		if err == nil {
			c.Close()
			t.Errorf("%s can be reached", name)
		} else if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if reached.Load() {
		t.Error("an upstream was dialled")
	}
}

// TestForwarderDecidesByAddress: the same without WireGuard's help, for the
// destinations that an edge which was taken over could invent.
func TestForwarderDecidesByAddress(t *testing.T) {
	e := newFakeEdge(t)
	up := listen(t)
	var reached atomic.Bool
	serveConns(t, up, func(net.Conn) { reached.Store(true) })
	s := newSet(slog.New(slog.DiscardHandler))
	c, err := s.add(1, offered(tcpTunnel("app", up.Addr().String())), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{overlay: e.overlay, node: 300, set: s, log: slog.New(slog.DiscardHandler)}
	a, _ := stackPair(t, f.handle)
	id := c.tunnels[0].ID
	for _, to := range []netip.Addr{
		e.overlay.TunnelAddr(301, id), e.overlay.TunnelAddr(300, id+1), netip.MustParseAddr("64:ff9b::7f00:1"), netip.MustParseAddr("2001:db8::1"),
	} {
		if c, err := a.DialTCP(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(to, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				c.Close()
			}
			t.Errorf("%v: %v", to, err)
		}
	}
	if reached.Load() {
		t.Error("an upstream was dialled")
	}
	// The very same request to the right address works.
	conn, err := a.DialTCP(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(e.overlay.TunnelAddr(300, id), 1))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestUpstreamComesAndGoes(t *testing.T) {
	e := newFakeEdge(t)
	l := listen(t)
	target := l.Addr().String()
	l.Close()
	r, addr, _ := serving(t, e, Config{Tunnels: []Tunnel{tcpTunnel("app", target)}})
	if _, err := e.dial(t.Context(), netipVisitor, addr["app"]); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial: %v", err)
	}
	rep := e.reported(func(ev control.AgentEvent) bool { return !ev.OK })
	if want := "connection refused by " + target; rep.Error != want || e.overlay.TunnelAddr(addrNode(e, addr["app"]), rep.Tunnel) != addr["app"] {
		t.Errorf("report %+v, want %q", rep, want)
	}
	ev, n := r.tunnel(0, "app", TunnelError)
	if ev.Error.Code != control.CodeUpstreamRefused || ev.PublicURL == "" {
		t.Errorf("event %+v", ev)
	}

	l, err := net.Listen("tcp", target)
	if err != nil {
		t.Skipf("the port is not free any more: %v", err)
	}
	echo(t, l, "app")
	c, err := e.dial(t.Context(), netipVisitor, addr["app"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	talk(t, c, "app")
	e.reported(func(ev control.AgentEvent) bool { return ev.OK })
	if ev, _ := r.tunnel(n, "app", TunnelUp); ev.Error != nil || ev.PublicURL == "" {
		t.Errorf("event %+v", ev)
	}
}

func addrNode(e *fakeEdge, a netip.Addr) tunnel.NodeID {
	id, _, _, _ := e.overlay.Parse(a)
	return id
}

// TestReportComesFirst: the edge has the reason before the refusal, each time.
func TestReportComesFirst(t *testing.T) {
	e := newFakeEdge(t)
	l := listen(t)
	target := l.Addr().String()
	l.Close()
	_, addr, _ := serving(t, e, Config{Tunnels: []Tunnel{tcpTunnel("app", target)}})
	for i := range 20 {
		if _, err := e.dial(t.Context(), netipVisitor, addr["app"]); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial: %v", err)
		}
		e.wait("a report for each refusal", func() bool { return len(e.reports) > i })
	}
}

func TestUnixUpstream(t *testing.T) {
	e := newFakeEdge(t)
	path := filepath.Join(testDir(t).String(), "app.sock")
	_, addr, _ := serving(t, e, Config{Tunnels: []Tunnel{httpTunnel("app", "unix:"+path)}})
	if _, err := e.dial(t.Context(), netipVisitor, addr["app"]); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial: %v", err)
	}
	if rep := e.reported(func(control.AgentEvent) bool { return true }); !strings.Contains(rep.Error, path) {
		t.Errorf("report %+v", rep)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, l, "unix")
	c, err := e.dial(t.Context(), netipVisitor, addr["app"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	talk(t, c, "unix")
}

func TestTLSUpstream(t *testing.T) {
	e := newFakeEdge(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto+" "+r.TLS.ServerName)
	}))
	srv.EnableHTTP2 = true // the agent must not ask for it
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	strict := httpTunnel("strict", "https://localhost:"+port)
	lax := httpTunnel("lax", "https://localhost:"+port)
	lax.InsecureUpstreamTLS = true
	plain := listen(t)
	serveConns(t, plain, func(c net.Conn) { io.WriteString(c, "SSH-2.0-no\r\n") })
	wrong := httpTunnel("wrong", "https://"+plain.Addr().String())
	_, addr, _ := serving(t, e, Config{Tunnels: []Tunnel{strict, lax, wrong}})

	for name, want := range map[string]string{"strict": "not trusted", "wrong": "does not speak TLS"} {
		if _, err := e.dial(t.Context(), netipVisitor, addr[name]); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", name, err)
		}
		e.reported(func(ev control.AgentEvent) bool { return strings.Contains(ev.Error, want) })
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return e.dial(ctx, netipVisitor, addr["lax"])
		},
	}}
	resp, err := client.Get("http://app.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != "HTTP/1.1 localhost" {
		t.Errorf("got %q, %v", body, err)
	}
}

// TestTLSUpstreamNamesItself: an address has no place in SNI (RFC 6066,
// section 3), a name has.
func TestTLSUpstreamNamesItself(t *testing.T) {
	l := listen(t)
	names := make(chan string, 1)
	serveConns(t, l, func(c net.Conn) {
		srv := tls.Server(c, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			names <- h.ServerName + " " + strings.Join(h.SupportedProtos, ",")
			return nil, errors.New("seen enough")
		}})
		srv.Handshake()
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{"https://localhost:" + port: "localhost http/1.1", "https://127.0.0.1:" + port: " http/1.1"} {
		u, err := tunnel.ParseUpstream(tunnel.HTTP, target)
		if err != nil {
			t.Fatal(err)
		}
		c, failure := dialUpstream(t.Context(), u, "http/1.1", true)
		if failure == nil {
			c.Close()
			t.Error("the handshake did not fail")
		}
		if got := <-names; got != want {
			t.Errorf("%s: hello with %q, want %q", target, got, want)
		}
	}
}

func TestProxyHeader(t *testing.T) {
	e := newFakeEdge(t)
	headers := make(chan *proxyproto.Header, 1)
	l := listen(t)
	serveConns(t, l, func(c net.Conn) {
		in := bufio.NewReader(c)
		h, err := proxyproto.Read(in)
		if err != nil {
			t.Errorf("PROXY header: %v", err)
		}
		headers <- h
		io.Copy(c, in)
	})
	v1, v2 := tcpTunnel("v1", l.Addr().String()), tcpTunnel("v2", l.Addr().String())
	v1.ProxyProtocol, v2.ProxyProtocol = 1, 2
	_, addr, _ := serving(t, e, Config{Tunnels: []Tunnel{v1, v2}})
	for name, version := range map[string]byte{"v1": 1, "v2": 2} {
		for _, visitor := range []netip.AddrPort{netipVisitor, netip.MustParseAddrPort("[2001:db8::7]:40002"), netip.MustParseAddrPort("[::1]:40003"), {}} {
			if visitor.IsValid() { // a port of its own, as the last one is in TIME_WAIT
				visitor = netip.AddrPortFrom(visitor.Addr(), visitor.Port()+1000*uint16(version))
			}
			c, err := e.dial(t.Context(), visitor, addr[name])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 5)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
				t.Errorf("%s %v: after the header: %q, %v", name, visitor, b, err)
			}
			c.Close()
			h := <-headers
			if h.Version != version {
				t.Errorf("%s: version %d", name, h.Version)
			}
			if !visitor.IsValid() {
				if h.Command != proxyproto.LOCAL && h.TransportProtocol != proxyproto.UNSPEC {
					t.Errorf("%s: a visitor for a connection of the edge's own: %+v", name, h)
				}
				continue
			}
			if src, ok := h.SourceAddr.(*net.TCPAddr); !ok || src.AddrPort() != visitor {
				t.Errorf("%s: source %v, want %v", name, h.SourceAddr, visitor)
			}
			if dst, ok := h.DestinationAddr.(*net.TCPAddr); !ok || !dst.IP.IsUnspecified() || dst.Port != 20022 {
				t.Errorf("%s: destination %v, want port 20022", name, h.DestinationAddr)
			}
		}
	}
}

// TestVisitorIsLogged: the agent's own log says who came.
func TestVisitorIsLogged(t *testing.T) {
	e := newFakeEdge(t)
	l := listen(t)
	echo(t, l, "app")
	var log logbuf.Buffer
	_, addr, _ := serving(t, e, Config{
		Tunnels: []Tunnel{tcpTunnel("app", l.Addr().String())},
		Logger:  slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	c, err := e.dial(t.Context(), netipVisitor, addr["app"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	talk(t, c, "app")
	for _, want := range []string{"tunnel=app", "visitor=" + netipVisitor.String(), "upstream=tcp://" + l.Addr().String()} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, log.String())
		}
	}
}

// TestBurst: many more visitors at once than dials are allowed all get
// through to an upstream that is well.
func TestBurst(t *testing.T) {
	e := newFakeEdge(t)
	l := listen(t)
	echo(t, l, "app")
	_, addr, _ := serving(t, e, Config{Tunnels: []Tunnel{tcpTunnel("app", l.Addr().String())}})
	var all sync.WaitGroup
	for range 8 * maxDials {
		all.Go(func() {
			c, err := e.dial(t.Context(), netip.AddrPort{}, addr["app"])
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		})
	}
	all.Wait()
}

// TestStuckUpstream: what waits for one upstream is bounded, refused when that
// takes too long, and in nobody's way.
func TestStuckUpstream(t *testing.T) {
	e := newFakeEdge(t)
	stuck := listen(t) // accepts, and never answers the TLS handshake
	var accepted atomic.Int32
	release := make(chan struct{})
	all := make(chan struct{})
	serveConns(t, stuck, func(net.Conn) {
		if accepted.Add(1) == maxDials {
			close(all)
		}
		<-release
	})
	t.Cleanup(func() { close(release) })
	good := listen(t)
	echo(t, good, "good")
	_, addr, _ := serving(t, e, Config{Tunnels: []Tunnel{httpTunnel("stuck", "https://"+stuck.Addr().String()), tcpTunnel("good", good.Addr().String())}})

	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range maxDials {
		waiting.Go(func() {
			if c, err := e.dial(ctx, netip.AddrPort{}, addr["stuck"]); err == nil {
				c.Close()
				t.Error("a stuck upstream took a visitor")
			}
		})
	}
	<-all
	if _, err := e.dial(t.Context(), netip.AddrPort{}, addr["stuck"]); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("one too many: %v", err)
	}
	if n := accepted.Load(); n != maxDials {
		t.Errorf("%d dials of the upstream", n)
	}
	c, err := e.dial(t.Context(), netipVisitor, addr["good"])
	if err != nil {
		t.Fatalf("another tunnel: %v", err)
	}
	talk(t, c, "good")
	c.Close()
	cancel()
	waiting.Wait()
}

// TestHalfClose: a server that answers after its client's end gets to.
func TestHalfClose(t *testing.T) {
	e := newFakeEdge(t)
	l := listen(t)
	serveConns(t, l, func(c net.Conn) {
		b, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("upstream: %v", err)
		}
		c.Write(bytes.ToUpper(b))
	})
	_, addr, _ := serving(t, e, Config{Tunnels: []Tunnel{tcpTunnel("app", l.Addr().String())}})
	c, err := e.dial(t.Context(), netipVisitor, addr["app"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "question"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*netstack.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "QUESTION" {
		t.Errorf("got %q, %v", b, err)
	}
}
