package netstack

import (
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// TestDialAfterReset dials again from the port of a connection that was reset
// just before, with a wire that delivers the RST and the SYN together. From the
// same port, the SYN would be refused or lost.
func TestDialAfterReset(t *testing.T) {
	var mu sync.Mutex
	var held [][]byte
	a, b := wired(t, func(bufs [][]byte) [][]byte {
		const offset = 16
		mu.Lock()
		defer mu.Unlock()
		var out [][]byte
		for _, p := range bufs {
			flags := header.TCP(p[offset+header.IPv6MinimumSize:]).Flags()
			if flags.Contains(header.TCPFlagRst) {
				held = append(held, append([]byte(nil), p...))
				continue
			}
			if flags == header.TCPFlagSyn {
				out = append(out, held...)
				held = nil
			}
			out = append(out, p)
		}
		return out
	})
	b.ForwardTCP(func(r *Request) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(c, c)
		c.Close()
	})
	to := netip.AddrPortFrom(addrB, 1)
	from := netip.AddrPortFrom(addrA, 4000)
	for n := range 8 {
		c := dial(t, a, from, to)
		mustWrite(t, c, "x")
		mustRead(t, c, "x")
		if n > 0 && c.local == from {
			t.Fatalf("%v was reset just now, and is dialled from again", from)
		}
		from = c.local
		c.Abort()
	}
	if n := a.Stats().Retransmits; n != 0 {
		t.Errorf("%d SYNs were lost", n)
	}
}

func TestResetsForget(t *testing.T) {
	var rs resets
	start := time.Unix(1, 0)
	at := func(n int) pair {
		return pair{local: netip.AddrPortFrom(addrA, uint16(n)), remote: netip.AddrPortFrom(addrB, uint16(n>>16))}
	}
	rs.note(at(1), start)
	rs.note(at(2), start)
	rs.note(at(1), start.Add(resetPause/2)) // again
	if !rs.recent(at(1), start) || !rs.recent(at(2), start) || rs.recent(at(3), start) {
		t.Error("it does not remember what was reset")
	}
	rs.note(at(3), start.Add(resetPause))
	if len(rs.last) != 2 || !rs.recent(at(1), start.Add(resetPause)) {
		t.Errorf("after %v: %v", resetPause, rs.last)
	}
	if rs.recent(at(1), start.Add(2*resetPause)) {
		t.Error("it remembers for too long")
	}
	for n := range 2 * resetsMost {
		rs.note(at(n), start.Add(resetPause))
	}
	if len(rs.last) > resetsMost || len(rs.order) > resetsMost {
		t.Errorf("it remembers %d pairs, at most %d are allowed", len(rs.last), resetsMost)
	}
}
