package edge

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
	"github.com/wgexpose/wgexpose/wg"
)

func TestObserved(t *testing.T) {
	w := newWorld(t)
	a := w.agent("laptop")
	key := w.snap().nodes[a].Value.Key
	at := netip.MustParseAddrPort("203.0.113.9:4711")
	for _, c := range []struct {
		name   string
		status wg.PeerStatus
		ops    int
	}{
		{"never shaken hands", wg.PeerStatus{Key: key, Endpoint: at}, 0},
		{"unknown key", wg.PeerStatus{Key: newKey(t).Public(), Endpoint: at, LastHandshake: w.now}, 0},
		{"new", wg.PeerStatus{Key: key, Endpoint: at, LastHandshake: w.now}, 1},
		{"known", wg.PeerStatus{Key: key, Endpoint: at, LastHandshake: w.now}, 0},
		{"moved", wg.PeerStatus{Key: key, Endpoint: netip.MustParseAddrPort("203.0.113.9:4712"), LastHandshake: w.now}, 1},
	} {
		ops, err := planObserved(w.snap(), []wg.PeerStatus{c.status}, "")
		if err != nil || len(ops) != c.ops {
			t.Errorf("%s: %d operations, %v; want %d", c.name, len(ops), err, c.ops)
		}
		if _, err := w.store.Commit(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.snap().nodes[a].Value; !n.Joined || n.Endpoint.Port() != 4712 {
		t.Errorf("node %+v", n)
	}
}

func TestSweep(t *testing.T) {
	w := newWorld(t)
	a, b := w.agent("laptop"), w.agent("desktop")
	generated := w.publishOne(a, web(1, ""))
	w.publish(a, web(1, ""), web(2, "app"))
	w.publish(b, web(1, ""))
	sweep := func(at time.Duration, up ...tunnel.NodeID) {
		t.Helper()
		ops, err := sweeper{
			now: w.now.Add(at), started: w.now, generated: 24 * time.Hour,
			up: func(id tunnel.NodeID) bool { return slices.Contains(up, id) },
		}.plan(w.snap())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.Commit(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	has := func(what string, invites, publics int) {
		t.Helper()
		if s := w.snap(); len(s.invites) != invites || len(s.publics) != publics {
			t.Fatalf("%s: %d invites and %d names, want %d and %d", what, len(s.invites), len(s.publics), invites, publics)
		}
	}
	sweep(23 * time.Hour)
	has("before anything is due", 2, 3)
	sweep(23*time.Hour+time.Minute, a, b) // both are here: seen again
	sweep(24*time.Hour + time.Minute)
	has("invites have their hour of grace", 2, 3)
	sweep(26*time.Hour, b)
	has("invites are gone", 0, 3)
	if s := w.snap(); len(s.byKey) != 3 {
		t.Errorf("%d keys are left, want those of the edge and the agents", len(s.byKey))
	}
	sweep(48*time.Hour, b)
	has("the name of the agent that is away is gone", 0, 2)
	if w.snap().publics[store.HTTPSKey(generated.Name+".example.com")].Revision != 0 {
		t.Error("the wrong name was swept")
	}
	// The edge was off for long: agents get their time to come back.
	ops, err := sweeper{now: w.now.Add(200 * time.Hour), started: w.now.Add(199 * time.Hour), generated: 24 * time.Hour,
		up: func(tunnel.NodeID) bool { return false }}.plan(w.snap())
	if err != nil || len(ops) != 0 {
		t.Errorf("after a pause: %v, %v", ops, err)
	}
}

// One reading of all counters serves all who ask at the same time.
func TestCountersAreReadOnce(t *testing.T) {
	key, other := peerKey(t), peerKey(t)
	reads := 0
	c := &counters{fresh: time.Hour, read: func() ([]wg.PeerStatus, error) {
		reads++
		return []wg.PeerStatus{{Key: key, RxBytes: uint64(reads)}}, nil
	}}
	for range 3 {
		if n, err := c.received(key); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if _, err := c.received(other); err == nil || reads != 2 { // it may be new
		t.Errorf("a peer that is not there: %v after %d readings", err, reads)
	}
	c.fresh = 0
	if n, err := c.received(key); n != 3 || err != nil {
		t.Errorf("later: %d, %v", n, err)
	}
}

func peerKey(t *testing.T) keys.Public {
	t.Helper()
	k, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}
