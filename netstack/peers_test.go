package netstack

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func TestPeers(t *testing.T) {
	var ps peers
	node := netip.MustParseAddr("fd00:2::1:2:3:4")
	a, b := ps.to(node), ps.to(netip.MustParseAddr("fd00:2::1:2:3:5"))
	if a != b || ps.to(netip.MustParseAddr("fd00:3::1")) == a {
		t.Fatal("addresses of one node have different peers, or others the same")
	}
	ps.drop(a)
	ps.drop(b)
	if len(ps.m) != 1 {
		t.Errorf("%d peers, want one", len(ps.m))
	}
	ps.areOne()
	if ps.to(node) != ps.to(netip.MustParseAddr("64:ff9b::1")) {
		t.Error("connections through one node have different peers")
	}
}

// The least round trip time counts at once, and a longer one when nothing shorter was seen
// for a while.
func TestPathsBecomeLonger(t *testing.T) {
	type spell struct {
		from, to time.Duration // of times that are the same again and again
		every    time.Duration
		lasts    time.Duration
	}
	const ms, s = time.Millisecond, time.Second
	for _, c := range []struct {
		name   string
		spells []spell
		want   time.Duration
	}{
		{"a LAN", []spell{{ms, 3 * ms, 100 * ms, 20 * s}}, ms},
		{"out of the LAN", []spell{{ms, ms, s, 10 * s}, {20 * ms, 30 * ms, 20 * ms, 6 * s}}, 20 * ms},
		{"out of the LAN, to nearby", []spell{{2 * ms, 2 * ms, s, 10 * s}, {6 * ms, 9 * ms, 20 * ms, 6 * s}}, 6 * ms},
		{"out of the LAN, just now", []spell{{ms, ms, s, 10 * s}, {20 * ms, 30 * ms, 20 * ms, 4 * s}}, ms},
		{"out of the LAN, heartbeats", []spell{{ms, ms, 2 * s, 10 * s}, {20 * ms, 21 * ms, 2 * s, 12 * s}}, 20 * ms},
		{"a short first handshake", []spell{{4 * ms, 4 * ms, s, ms}, {10 * ms, 15 * ms, 10 * ms, 6 * s}}, 10 * ms},
		{"to another continent", []spell{{20 * ms, 20 * ms, s, s}, {200 * ms, 300 * ms, s, 7 * s}}, 200 * ms},
		{"a little longer", []spell{{20 * ms, 20 * ms, s, s}, {30 * ms, 39 * ms, 100 * ms, 20 * s}}, 20 * ms},
		{"back into the LAN", []spell{{20 * ms, 20 * ms, s, 10 * s}, {ms, ms, s, ms}}, ms},
		{"a queue of some seconds", []spell{{20 * ms, 20 * ms, s, 10 * s}, {90 * ms, 200 * ms, 10 * ms, 4 * s}, {22 * ms, 22 * ms, s, ms}, {90 * ms, 200 * ms, 10 * ms, 4 * s}}, 20 * ms},
		{"a stall, and much at once", []spell{{ms, ms, s, 10 * s}, {60 * ms, 90 * ms, ms, s}, {3 * ms, 8 * ms, s, 6 * s}}, ms},
		{"a busy machine that says little", []spell{{ms, ms, 2 * s, 10 * s}, {10 * ms, 90 * ms, 2 * s, 7 * s}, {4 * ms, 4 * ms, 2 * s, ms}, {10 * ms, 90 * ms, 2 * s, 7 * s}}, ms},
		{"timestamps within a millisecond", []spell{{0, 0, s, 3 * s}}, ms},
	} {
		p, now := &peer{}, boot
		for _, sp := range c.spells {
			for i, end := 0, now.Add(sp.lasts); now.Before(end); i++ {
				rtt := sp.from
				if i%7 != 3 {
					rtt = sp.to
				}
				p.timed(rtt, now)
				now = now.Add(sp.every)
			}
		}
		if p.rtt != c.want {
			t.Errorf("%s: %v, want %v", c.name, p.rtt, c.want)
		}
	}
}

// The least and the middle round trip times, in milliseconds, of seconds of transfers over 8
// connections, then 64, on two processors on which four other programs computed. Nearly all
// of them are those of a far path.
func TestABusyMachineIsNoLongPath(t *testing.T) {
	p, now := &peer{}, boot
	random := rand.New(rand.NewPCG(3, 4))
	p.timed(time.Millisecond, now)
	for _, second := range [][2]int{{2, 14}, {1, 17}, {2, 24}, {1, 14}, {2, 16}, {28, 78}, {3, 56}, {12, 64}, {9, 43}, {13, 60}, {2, 15}, {3, 36}} {
		for i := range 300 {
			ms := second[0]
			if i != 200 {
				ms = max(ms, random.IntN(2*second[1]))
			}
			if !p.timed(time.Duration(ms)*time.Millisecond, now) {
				t.Fatalf("after %v the path counts as one of %v", now.Sub(boot), p.rtt)
			}
			now = now.Add(time.Second / 300)
		}
	}
}

// TestConnectionsForgetTheirPeer counts the references to peers.
func TestConnectionsForgetTheirPeer(t *testing.T) {
	a, b := wired(t, nil)
	client, server := connected(t, a, b)
	client.Close()
	client.Abort()
	server.Abort()
	for _, s := range []*Stack{a, b} {
		if n := len(s.peers.m); n != 0 {
			t.Errorf("%d peers without a connection", n)
		}
	}
}
