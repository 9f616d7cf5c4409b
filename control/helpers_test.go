package control

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/tunnel"
)

func testOverlay(t testing.TB) tunnel.Overlay {
	t.Helper()
	o, err := tunnel.OverlayFrom(netip.MustParsePrefix("fd12:3456:789a::/48"))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func testKey(t testing.TB) keys.Public {
	t.Helper()
	k, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

// fakeHandler is a Handler made of functions; a nil one fails the call.
type fakeHandler struct {
	enroll  func(tunnel.NodeID, EnrollRequest) (EnrollReply, error)
	publish func(tunnel.NodeID, PublishRequest) (PublishReply, error)
	session func(context.Context, tunnel.NodeID, *Session) error
}

var errNotExpected = errors.New("call was not expected")

func (h fakeHandler) Enroll(_ context.Context, from tunnel.NodeID, r EnrollRequest) (EnrollReply, error) {
	if h.enroll == nil {
		return EnrollReply{}, errNotExpected
	}
	return h.enroll(from, r)
}

func (h fakeHandler) Publish(_ context.Context, from tunnel.NodeID, r PublishRequest) (PublishReply, error) {
	if h.publish == nil {
		return PublishReply{}, errNotExpected
	}
	return h.publish(from, r)
}

func (h fakeHandler) Session(ctx context.Context, from tunnel.NodeID, s *Session) error {
	if h.session == nil {
		return errNotExpected
	}
	return h.session(ctx, from, s)
}

// fakeAddrListener makes each connection appear to come from addr, as it
// would on the overlay.
type fakeAddrListener struct {
	net.Listener
	addr func() netip.Addr
}

type fakeAddrConn struct {
	net.Conn
	addr net.Addr
}

func (c fakeAddrConn) RemoteAddr() net.Addr { return c.addr }

func (l fakeAddrListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return fakeAddrConn{c, net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.addr(), 40000))}, nil
}

// serve runs a server on loopback whose connections all come from addr, until
// the test ends or stop is called.
func serve(t *testing.T, h Handler, addr func() netip.Addr) (dial func(context.Context) (net.Conn, error), stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewServer(testOverlay(t), h, nil).Serve(ctx, fakeAddrListener{l, addr}) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}, stop
}

func client(t *testing.T, dial func(context.Context) (net.Conn, error)) *Client {
	t.Helper()
	c := NewClient(dial)
	t.Cleanup(func() { c.Close() })
	return c
}

// abortable notes that it was reset.
type abortable struct {
	net.Conn
	aborted atomic.Bool
}

func (c *abortable) Abort() {
	c.aborted.Store(true)
	c.Conn.Close()
}

func node(t *testing.T, id tunnel.NodeID) func() netip.Addr {
	a := testOverlay(t).NodeAddr(id)
	return func() netip.Addr { return a }
}

// pipeListener hands out the server's ends of pipes.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	addr  netip.Addr
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return fakeAddrConn{c, net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.addr, 40000))}, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }
