package wg

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

// nat stands between a device and its peer's address, and can change the
// address that the peer sees.
type nat struct {
	t      testing.TB
	inside *net.UDPConn
	target netip.AddrPort
	device atomic.Pointer[netip.AddrPort] // who sends to inside

	outside atomic.Pointer[net.UDPConn]
	wg      sync.WaitGroup
}

func newNAT(t testing.TB, target netip.AddrPort) *nat {
	t.Helper()
	n := &nat{t: t, inside: listenUDP(t), target: target}
	t.Cleanup(n.wg.Wait) // after the sockets have been closed
	t.Cleanup(func() { n.inside.Close() })
	n.move()
	n.wg.Go(func() {
		buf := make([]byte, 65535)
		for {
			k, from, err := n.inside.ReadFromUDPAddrPort(buf)
			if err != nil {
				return // closed
			}
			n.device.Store(&from)
			// Lost packets are in the nature of this.
			_, _ = n.outside.Load().WriteToUDPAddrPort(buf[:k], n.target)
		}
	})
	return n
}

// move gives the device a new outside address, and returns it. The old one
// goes on to receive.
func (n *nat) move() netip.AddrPort {
	n.t.Helper()
	c := listenUDP(n.t)
	n.t.Cleanup(func() { c.Close() })
	n.wg.Go(func() {
		buf := make([]byte, 65535)
		for {
			k, _, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return // closed
			}
			if device := n.device.Load(); device != nil {
				_, _ = n.inside.WriteToUDPAddrPort(buf[:k], *device)
			}
		}
	})
	n.outside.Store(c)
	return addrOf(c)
}

func listenUDP(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback4))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// A peer whose address changes keeps its session, and is answered where it is
// now; being told again what is allowed does not bring the old address back.
func TestRoaming(t *testing.T) {
	a, b := newNode(t, 1, UDP(loopback4)), newNode(t, 2, UDP(netip.AddrPort{}))
	nat := newNAT(t, netip.AddrPortFrom(loopback4.Addr(), b.Port()))
	introduce(t, a, b, addrOf(nat.inside))
	deliver(t, a, b, 0, 100)
	deliver(t, b, a, 0, 100)
	first := peerOf(t, b, a)
	if want := addrOf(nat.outside.Load()); first.Endpoint != want {
		t.Fatalf("endpoint %v, want %v", first.Endpoint, want)
	}
	for seq := range uint32(5) {
		now := nat.move()
		deliver(t, a, b, seq, 1420)
		setPeer(t, b, Peer{Key: a.pub, AllowedIPs: append(host(a), netip.PrefixFrom(netip.IPv6LinkLocalAllNodes(), 128-int(seq)))})
		deliver(t, b, a, seq, 1420)
		got := peerOf(t, b, a)
		if got.Endpoint != now {
			t.Errorf("endpoint %v, want %v", got.Endpoint, now)
		}
		if got.LastHandshake != first.LastHandshake {
			t.Error("there was another handshake")
		}
	}
}
