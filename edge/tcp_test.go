package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/tunnel"
)

// freePort finds a port that nobody uses. The front listens on it through
// portListener, which holds the port in between.
type portListener struct {
	mu   sync.Mutex // guards held
	held map[uint16]net.Listener
}

func (p *portListener) take(t *testing.T) uint16 {
	t.Helper()
	l := listenLocal(t)
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(map[uint16]net.Listener)
	}
	p.held[port] = l
	t.Cleanup(func() { l.Close() })
	return port
}

func (p *portListener) listen(at netip.AddrPort) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.held[at.Port()]
	if l == nil {
		return listenTCP(at)
	}
	delete(p.held, at.Port())
	return l, nil
}

// tcpTunnel makes a TCP tunnel on a free port, whose upstream serves each
// connection with serve and closes it.
func (r *rig) tcpTunnel(id tunnel.ID, serve func(net.Conn)) (port uint16, entry tunnel.Entry) {
	r.t.Helper()
	var ports portListener
	port = ports.take(r.t)
	r.front.applyMu.Lock()
	next := r.front.listen
	r.front.listen = func(at netip.AddrPort) (net.Listener, error) {
		if at.Port() == port {
			return ports.listen(at)
		}
		return next(at)
	}
	r.front.applyMu.Unlock()

	r.rawUpstream(id, serve)
	return port, tcpEntry(id, port)
}

func (r *rig) dialPort(port uint16) *net.TCPConn {
	r.t.Helper()
	c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func echoOver(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("echo: %q %v", b, err)
	}
}

// wantReset says that a visitor reads a reset, and not an end.
func wantReset(t *testing.T, c net.Conn, when string) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: read %d bytes, %v; want a reset", when, n, err)
	}
}

// wantTurnedAway says that a new visitor of port gets a reset: it may come before
// connect has returned.
func (r *rig) wantTurnedAway(port uint16, when string) {
	r.t.Helper()
	c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	wantReset(r.t, c, when)
}

func TestTCPCarriesTheVisitorsAddress(t *testing.T) {
	r := newRig(t, nil)
	port, entry := r.tcpTunnel(7, func(c net.Conn) { io.Copy(c, c) })
	r.apply(entry)
	c := r.dialPort(port)
	echoOver(t, c, "hello")
	mine := c.LocalAddr().(*net.TCPAddr).AddrPort()
	want := netip.AddrPortFrom(testOverlay.VisitorAddr(testEdge, mine.Addr()), mine.Port())
	if froms := r.dialer.dials(); len(froms) != 1 || froms[0] != want {
		t.Errorf("dialled from %v, want %v", froms, want)
	}
}

func TestTCPKeepsHalfClose(t *testing.T) {
	r := newRig(t, nil)
	port, entry := r.tcpTunnel(7, func(c net.Conn) {
		b, err := io.ReadAll(c) // answers only after the end
		fmt.Fprintf(c, "%d %v", len(b), err)
	})
	r.apply(entry)
	c := r.dialPort(port)
	io.WriteString(c, strings.Repeat("x", 200_000))
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "200000 <nil>" {
		t.Errorf("%q %v", b, err)
	}
}

func TestTCPResetStaysReset(t *testing.T) {
	r := newRig(t, nil)
	port, entry := r.tcpTunnel(7, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 1))
		c.(*net.TCPConn).SetLinger(0)
	})
	r.apply(entry)
	c := r.dialPort(port)
	io.WriteString(c, "x")
	wantReset(t, c, "upstream resets")
}

// Where there is no way, the visitor gets a reset at once.
func TestTCPWithoutAWay(t *testing.T) {
	refuse := func(context.Context) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	t.Run("refused", func(t *testing.T) {
		r := newRig(t, nil)
		port, entry := r.tcpTunnel(7, func(net.Conn) {})
		r.dialer.set(7, refuse)
		r.apply(entry)
		r.wantTurnedAway(port, "refused")
	})
	t.Run("timeout", func(t *testing.T) {
		r := newRig(t, func(r *rig) { r.limits.dial = 20 * time.Millisecond })
		port, entry := r.tcpTunnel(7, func(net.Conn) {})
		r.dialer.set(7, hangDial)
		r.apply(entry)
		r.wantTurnedAway(port, "no answer")
	})
	t.Run("away", func(t *testing.T) {
		r := newRig(t, nil)
		port, entry := r.tcpTunnel(7, func(net.Conn) {})
		r.live.SetAway()
		r.apply(entry)
		r.wantTurnedAway(port, "agent away")
		if n := len(r.dialer.dials()); n != 0 {
			t.Errorf("dialled %d times", n)
		}
	})
	t.Run("turns away while dialling", func(t *testing.T) {
		r := newRig(t, func(r *rig) { r.limits.dial = time.Hour })
		port, entry := r.tcpTunnel(7, func(net.Conn) {})
		dialling := make(chan struct{})
		r.dialer.set(7, func(ctx context.Context) (net.Conn, error) {
			close(dialling)
			return hangDial(ctx)
		})
		r.apply(entry)
		c := r.dialPort(port)
		await(t, dialling, "dial")
		r.live.SetAway()
		wantReset(t, c, "agent turns away")
	})
}

// One upstream that never answers takes a bounded number of visitors, and none
// of another tunnel's.
func TestTCPBoundsDials(t *testing.T) {
	const bound = 3
	r := newRig(t, func(r *rig) { r.limits.dials = bound })
	port, entry := r.tcpTunnel(7, func(net.Conn) {})
	otherPort, other := r.tcpTunnel(8, func(c net.Conn) { io.Copy(c, c) })
	dialling := make(chan struct{}, bound+1)
	r.dialer.set(7, func(ctx context.Context) (net.Conn, error) {
		dialling <- struct{}{}
		return hangDial(ctx)
	})
	r.apply(entry, other)
	for range bound {
		r.dialPort(port)
		await(t, dialling, "dial")
	}
	r.wantTurnedAway(port, "one too many")
	echoOver(t, r.dialPort(otherPort), "not starved")
	r.live.SetAway() // ends the dials
}

func TestPortsOpenAndClose(t *testing.T) {
	r := newRig(t, nil)
	port, entry := r.tcpTunnel(7, func(c net.Conn) { io.WriteString(c, "seven") })
	_, eight := r.tcpTunnel(8, func(c net.Conn) { io.WriteString(c, "eight") })
	r.apply(entry)
	read := func() string {
		b, err := io.ReadAll(r.dialPort(port))
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	if got := read(); got != "seven" {
		t.Errorf("%q", got)
	}
	// The port moves to another tunnel: it stays open and serves the new one.
	eight.Port = port
	r.apply(eight)
	if got := read(); got != "eight" {
		t.Errorf("after the change: %q", got)
	}
	r.apply()
	if c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
		c.Close()
		t.Error("the port is open without a tunnel")
	}
}

func TestPortInUse(t *testing.T) {
	r := newRig(t, nil)
	taken := listenLocal(t)
	port := taken.Addr().(*net.TCPAddr).AddrPort().Port()
	free, good := r.tcpTunnel(8, func(c net.Conn) { io.Copy(c, c) })
	table, err := tunnel.NewTable([]tunnel.Entry{tcpEntry(7, port), good})
	if err != nil {
		t.Fatal(err)
	}
	live := func(tunnel.NodeID) *liveness { return r.live }
	failed := r.Apply(table, live)
	if len(failed) != 1 || !errors.Is(failed[port], syscall.EADDRINUSE) || !strings.Contains(failed[port].Error(), "in use") {
		t.Errorf("%v", failed)
	}
	echoOver(t, r.dialPort(free), "the other port serves")
	taken.Close()
	if failed := r.Apply(table, live); len(failed) != 0 {
		t.Errorf("tried again: %v", failed)
	}
}

// flaky fails a few times before it accepts.
type flaky struct {
	net.Listener
	mu    sync.Mutex // guards fails
	fails int
}

func (f *flaky) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails > 0 {
		f.fails--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return f.Listener.Accept()
}

// Running out of file descriptors for a while does not end a listener.
func TestAcceptErrorsPass(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.cfg.HTTPS = &flaky{Listener: r.cfg.HTTPS, fails: 3}
		r.cfg.HTTP = &flaky{Listener: r.cfg.HTTP, fails: 3}
		r.listen = func(at netip.AddrPort) (net.Listener, error) {
			l, err := listenTCP(at)
			return &flaky{Listener: l, fails: 3}, err
		}
	})
	r.upstream(1, greet)
	l := listenLocal(t)
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	l.Close()
	up := listenLocal(t)
	defer up.Close()
	r.dialer.set(2, leadTo(up.Addr()))
	r.apply(httpEntry(1, "a.edge.test"), tcpEntry(2, port))
	c := r.client(nil)
	if res, _ := r.get(c, "https://a.edge.test/"); res.StatusCode != 200 {
		t.Errorf("https: %s", res.Status)
	}
	if res, _ := r.get(c, "http://a.edge.test/"); res.StatusCode != 308 {
		t.Errorf("http: %s", res.Status)
	}
	r.dialPort(port)
	conn, err := up.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
