package ports

import (
	"net"
	"testing"
)

// Two tests never have a port in common, and none is one of the kernel's.
func TestReserve(t *testing.T) {
	seen := make(map[uint16]bool)
	for range 10 {
		b := Reserve(t)
		first, last := b.Range(64)
		if last != first+63 {
			t.Errorf("64 ports from %d to %d", first, last)
		}
		own := []uint16{b.Addr().Port()}
		for p := first; p <= last; p++ {
			own = append(own, p)
		}
		for _, p := range own {
			if seen[p] {
				t.Errorf("port %d twice", p)
			}
			if int(p) >= kernelRange() || p >= edgeFirst && p <= edgeLast {
				t.Errorf("port %d is one of those that others take", p)
			}
			seen[p] = true
		}
	}
}

// A test may ask for more than a block has.
func TestMore(t *testing.T) {
	b := Reserve(t)
	seen := make(map[uint16]bool)
	for range 4 {
		first, last := b.Range(60)
		for p := first; p <= last; p++ {
			if seen[p] {
				t.Errorf("port %d twice", p)
			}
			seen[p] = true
		}
	}
}

// A port in use is left out.
func TestTaken(t *testing.T) {
	b := Reserve(t)
	for _, network := range []string{"tcp", "udp"} {
		next := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(b.next)}
		switch network {
		case "tcp":
			l, err := net.ListenTCP(network, &next)
			if err != nil {
				t.Skip("somebody else has the port already: ", err)
			}
			defer l.Close()
		case "udp":
			l, err := net.ListenUDP(network, (*net.UDPAddr)(&next))
			if err != nil {
				t.Skip("somebody else has the port already: ", err)
			}
			defer l.Close()
		}
		if got := b.Addr(); int(got.Port()) == next.Port {
			t.Errorf("%s port %d is in use", network, next.Port)
		}
	}
}

// What a test leaves is there for the next one.
func TestRelease(t *testing.T) {
	for range 150 { // more than there are blocks
		t.Run("", func(t *testing.T) { Reserve(t).Addr() })
	}
}
