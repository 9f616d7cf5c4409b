package relay

import (
	"net"
	"net/netip"
	"testing"
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
	room := NewWaitingRoom(3, 2)
	visit := func(from string) (*addressed, *Place, bool) {
		c := &addressed{from: netip.MustParseAddrPort(from)}
		p, ok := room.Enter(c)
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
	second.Leave()
	second.Leave()
	third.Leave()
	if _, _, ok := visit("[2001:db8::4]:1000"); !ok || v6.gone || room.waiting.Len() != 2 || len(room.from) != 1 {
		t.Errorf("after two left: %v, %d waiting from %d", ok, room.waiting.Len(), len(room.from))
	}
}
