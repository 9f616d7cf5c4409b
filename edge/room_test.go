package edge

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// addressed is a connection from an address of choice.
type addressed struct {
	net.Conn
	from netip.AddrPort
	gone bool
}

func (c *addressed) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.from) }
func (c *addressed) Close() error         { c.gone = true; return nil }

func TestWaitingRoom(t *testing.T) {
	room := newWaitingRoom(3, 2)
	visit := func(from string) (*addressed, *place, bool) {
		c := &addressed{from: netip.MustParseAddrPort(from)}
		p, ok := room.enter(c)
		return c, p, ok
	}
	first, _, _ := visit("192.0.2.1:1000")
	_, second, ok := visit("192.0.2.1:1001")
	if !ok {
		t.Fatal("the second of one address is turned away")
	}
	if _, _, ok := visit("[::ffff:192.0.2.1]:1002"); ok || first.gone {
		t.Errorf("a third of one address: %v; the first gone: %v", ok, first.gone)
	}
	v6, _, ok := visit("[2001:db8::1]:1000")
	if !ok || first.gone {
		t.Errorf("another address: %v; the first gone: %v", ok, first.gone)
	}
	// The room is full: the longest waiting one goes.
	_, third, ok := visit("[2001:db8::2]:1000")
	if !ok || !first.gone || v6.gone {
		t.Errorf("the fourth: %v; first gone: %v, others: %v", ok, first.gone, v6.gone)
	}
	if _, _, ok := visit("[2001:db8::3]:1000"); ok {
		t.Error("a third of one /64 is let in")
	}
	second.leave()
	second.leave()
	third.leave()
	if _, _, ok := visit("[2001:db8::4]:1000"); !ok || v6.gone || room.waiting.Len() != 2 || len(room.from) != 1 {
		t.Errorf("after two left: %v, %d waiting from %d", ok, room.waiting.Len(), len(room.from))
	}
}

// Visitors that say nothing do not keep others out.
func TestSilentVisitorsDoNotFillTheEdge(t *testing.T) {
	r := newRig(t, func(r *rig) { r.limits.hello, r.limits.greeted = patience, 4 })
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	first := r.dialHTTPS()
	for range 20 {
		r.dialHTTPS()
	}
	if _, body := r.get(r.client(nil), "https://app.edge.test/"); body != "hello from app.edge.test" {
		t.Errorf("%q", body)
	}
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the first silent visitor is still there: %v", err)
	}
}

func TestOneAddressIsBounded(t *testing.T) {
	r := newRig(t, func(r *rig) { r.limits.hello, r.limits.greetedPer = patience, 1 })
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	c := r.client(nil)
	// Its place is free again once the handshake is over: an open connection does
	// not count.
	for range 3 {
		if _, body := r.get(r.client(nil), "https://app.edge.test/"); body != "hello from app.edge.test" {
			t.Errorf("%q", body)
		}
	}
	first := r.dialHTTPS()
	second, err := net.Dial("tcp", r.cfg.HTTPS.Addr().String())
	if err == nil { // the reset may come first
		second.SetDeadline(time.Now().Add(patience))
		_, err = io.ReadAll(second)
		second.Close()
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a second one: %v; want a reset", err)
	}
	first.Close()
	for deadline := time.Now().Add(patience); ; {
		res, err := c.Get("https://app.edge.test/")
		if err == nil {
			res.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
