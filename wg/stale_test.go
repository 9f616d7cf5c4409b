package wg

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/keys"
)

// Packets for a peer that is away do not wait for it for ever.
func TestPacketsForAPeerThatIsAway(t *testing.T) {
	a, b := newNode(t, 1, UDP(loopback4)), newNode(t, 2, UDP(loopback4))
	setPeer(t, a, Peer{Key: b.pub, AllowedIPs: host(b)}) // and b is to call
	eventually(t, "a reads", func() bool { return a.tun.reads.Load() == 1 })
	a.tun.out <- packet(a, b, 1, 100)
	eventually(t, "the packet waits", func() bool { return a.tun.reads.Load() == 2 })
	s := make(stale)
	for range 2 {
		if rest, err := a.dropStale(&s); err != nil || rest != staleEvery {
			t.Fatalf("the next look is in %v, %v", rest, err)
		}
	}
	introduce(t, b, a, a.bind.LocalAddr())
	if err := b.Handshake(a.pub); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the handshake", func() bool { return !peerOf(t, a, b).LastHandshake.IsZero() })
	deliver(t, a, b, 2, 100) // and not the first
}

// While all have sessions nobody looks.
func TestStaleRests(t *testing.T) {
	now := time.Now()
	shaken := func(ago time.Duration) PeerStatus { return PeerStatus{LastHandshake: now.Add(-ago)} }
	for _, tc := range []struct {
		name  string
		peers []PeerStatus
		want  time.Duration
	}{
		{"nobody", nil, 180 * time.Second},
		{"sessions", []PeerStatus{shaken(20 * time.Second), shaken(130 * time.Second), shaken(0)}, 50 * time.Second},
		{"one that is just ending", []PeerStatus{shaken(180 * time.Second)}, staleEvery},
		{"one that has ended", []PeerStatus{shaken(0), shaken(181 * time.Second)}, staleEvery},
		{"one that has none yet", []PeerStatus{shaken(0), {}}, staleEvery},
	} {
		s := make(stale)
		s.look(tc.peers, now)
		if got := s.rest(tc.peers, now); got != tc.want {
			t.Errorf("%s: the next look is in %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestStale(t *testing.T) {
	now := time.Now()
	var away, silent, speaks, up, gone keys.Public
	for i, key := range []*keys.Public{&away, &silent, &speaks, &up, &gone} {
		var b [keys.Size]byte
		b[0] = byte(i + 1)
		*key = keys.PublicFrom(b)
	}
	s := make(stale)
	look := func(peers ...PeerStatus) []keys.Public {
		found := s.look(peers, now)
		slices.SortFunc(found, func(a, b keys.Public) int {
			x, y := a.Bytes(), b.Bytes()
			return bytes.Compare(x[:], y[:])
		})
		return found
	}
	old := now.Add(-181 * time.Second)
	if found := look(PeerStatus{Key: away}, PeerStatus{Key: silent, LastHandshake: old, RxBytes: 7}, PeerStatus{Key: speaks, LastHandshake: old, RxBytes: 7},
		PeerStatus{Key: up, LastHandshake: now.Add(-time.Minute)}, PeerStatus{Key: gone}); len(found) != 0 {
		t.Errorf("at the first look: %v", found)
	}
	if found := look(PeerStatus{Key: away}, PeerStatus{Key: silent, LastHandshake: old, RxBytes: 7}, PeerStatus{Key: speaks, LastHandshake: old, RxBytes: 8},
		PeerStatus{Key: up, LastHandshake: now.Add(-time.Minute)}); !slices.Equal(found, []keys.Public{away, silent}) {
		t.Errorf("at the second: %v", found)
	}
	if found := look(PeerStatus{Key: gone}, PeerStatus{Key: away, LastHandshake: now}); len(found) != 0 {
		t.Errorf("those that came back: %v", found)
	}
}
