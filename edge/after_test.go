package edge

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
	"github.com/wgexpose/wgexpose/wg"
)

// A snapshot that followed changes is the one that is read anew, whatever they
// were, and the one before it has stayed as it was.
func TestSnapshotAfter(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	changes, err := w.store.Watch(ctx, w.snap().rev)
	if err != nil {
		t.Fatal(err)
	}
	snap := w.snap()
	follow := func(what string) {
		t.Helper()
		c := await(t, changes, "change")
		for want := w.snap().rev; c.Revision < want; {
			more := await(t, changes, "change")
			c = store.Change{Revision: more.Revision, Keys: append(c.Keys, more.Keys...)}
		}
		slices.Sort(c.Keys)
		keys := slices.Compact(c.Keys)
		entries, rev, err := w.store.GetAll(ctx, keys)
		if err != nil {
			t.Fatal(err)
		}
		before := w.snapAgain(snap)
		next, _, err := snap.after(rev, keys, entries)
		if err != nil {
			t.Fatal(err)
		}
		if want := w.snap(); !reflect.DeepEqual(next, want) {
			t.Errorf("after %s: %+v, want %+v", what, next, want)
		}
		if !reflect.DeepEqual(snap, before) {
			t.Errorf("%s has changed the snapshot before it", what)
		}
		snap = next
	}
	laptop := w.agent("laptop")
	follow("joining")
	nas := w.agent("nas")
	follow("joining again")
	w.publish(laptop, web(1, "b"), tcp(2, "ssh", 20001))
	follow("publishing")
	w.publish(laptop, web(1, "b"), web(3, "a"), tcp(2, "ssh", 20001), web(4, ""))
	follow("publishing more")
	w.publish(laptop, web(3, "a"))
	follow("withdrawing")
	w.publish(nas, web(9, "nas"))
	follow("publishing by another one")
	if err := w.admin.Release(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	follow("releasing")
	ops, err := planObserved(snap, []wg.PeerStatus{{Key: snap.nodes[nas].Value.Key, Endpoint: netip.MustParseAddrPort("203.0.113.9:1"), LastHandshake: w.now}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Commit(ctx, ops...); err != nil {
		t.Fatal(err)
	}
	follow("moving")
	if err := w.admin.Revoke(ctx, "laptop"); err != nil {
		t.Fatal(err)
	}
	follow("revoking")
	i := w.invite(InviteOptions{TTL: time.Hour})
	follow("inviting")
	if err := w.admin.RevokeInvite(ctx, store.InviteID(i.Key.Public())); err != nil {
		t.Fatal(err)
	}
	follow("withdrawing an invite")
	ops, err = sweeper{now: w.now.Add(1000 * time.Hour), started: w.now, generated: time.Hour, up: func(tunnel.NodeID) bool { return false }}.plan(snap)
	if err != nil || len(ops) == 0 {
		t.Fatal(ops, err)
	}
	if _, err := w.store.Commit(ctx, ops...); err != nil {
		t.Fatal(err)
	}
	follow("sweeping")
	if err := saveServing(ctx, w.store, serving{Endpoint: "198.51.100.8:1", Scheme: "https", Port: 443}); err != nil {
		t.Fatal(err)
	}
	follow("another endpoint")
	if len(snap.nodes) == 0 || len(snap.invites) != 0 {
		t.Errorf("in the end %+v", snap)
	}
}

// snapAgain is a copy of snap that shares no map and no slice of them with it.
func (w *world) snapAgain(snap *snapshot) *snapshot {
	c := *snap
	copyMap(&c.nodes)
	copyMap(&c.byKey)
	copyMap(&c.byName)
	copyMap(&c.invites)
	copyMap(&c.publics)
	copyMap(&c.owned)
	for id, keys := range c.owned {
		c.owned[id] = slices.Clone(keys)
	}
	return &c
}

func copyMap[K comparable, V any](m *map[K]V) {
	c := make(map[K]V, len(*m))
	for k, v := range *m {
		c[k] = v
	}
	*m = c
}

// countingStore counts what is read of a store.
type countingStore struct {
	store.Store
	watched chan struct{} // closed when a watch has begun

	mu     sync.Mutex // guards all below
	lists  int
	read   int
	before func() // run once before the next GetAll
}

func (s *countingStore) Watch(ctx context.Context, after store.Revision) (<-chan store.Change, error) {
	changes, err := s.Store.Watch(ctx, after)
	close(s.watched)
	return changes, err
}

func (s *countingStore) List(ctx context.Context, prefix string) ([]store.Entry, store.Revision, error) {
	entries, rev, err := s.Store.List(ctx, prefix)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	return entries, rev, err
}

func (s *countingStore) GetAll(ctx context.Context, keys []string) ([]store.Entry, store.Revision, error) {
	s.mu.Lock()
	before := s.before
	s.before = nil
	s.mu.Unlock()
	if before != nil {
		before()
	}
	entries, rev, err := s.Store.GetAll(ctx, keys)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read += len(entries)
	return entries, rev, err
}

// crowd writes the records of n agents, each with a tunnel.
func (w *world) crowd(t testing.TB, n int) []store.Node {
	t.Helper()
	var nodes []store.Node
	for i := range n {
		key := newKey(w.t).Public()
		id := tunnel.NodeID(1000 + i)
		node := store.Node{ID: id, Kind: store.AgentNode, Name: fmt.Sprint("agent-", i), Key: key, Created: w.now, Joined: true}
		spec := web(tunnel.ID(i+1), fmt.Sprint("t", i))
		host := spec.Name + ".example.com"
		ops, err := puts(
			put(store.NodeKey(id), node, 0), put(store.NodeKeyKey(key), id, 0), put(store.NameKey(node.Name), id, 0),
			put(store.HTTPSKey(host), store.Public{Node: id, Name: spec.Name, Kind: spec.Kind, Host: host, Active: true, Spec: spec, Created: w.now, Seen: w.now}, 0),
		)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.Commit(w.t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
	}
	return nodes
}

// move commits another endpoint of an agent, and returns the revision.
func (w *world) move(t testing.TB, s store.Store, node store.Node, port uint16) store.Revision {
	t.Helper()
	_, rev, err := store.Read[store.Node](w.t.Context(), s, store.NodeKey(node.ID))
	if err != nil {
		t.Fatal(err)
	}
	node.Endpoint = netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), port)
	ops, err := puts(put(store.NodeKey(node.ID), node, rev))
	if err != nil {
		t.Fatal(err)
	}
	if rev, err = s.Commit(w.t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
	return rev
}

// following is a reconciler that runs, over a store that counts.
func (w *world) following(a *acted) (*reconciler, *countingStore) {
	w.t.Helper()
	s := &countingStore{Store: w.store, watched: make(chan struct{})}
	r := w.reconciler(a)
	r.store = s
	if err := r.pass(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.run(ctx) }()
	w.t.Cleanup(func() {
		stop()
		if err := await(w.t, done, "end of run"); err != nil {
			w.t.Error(err)
		}
	})
	// What changes before is told without its keys, and the store is read whole.
	<-s.watched
	return r, s
}

// What one agent changes costs as many reads among a hundred as among ten: none of
// the others is read, and a table that has not changed is not built anew.
func TestFollowReadsWhatHasChanged(t *testing.T) {
	var reads []int
	for _, n := range []int{10, 100} {
		w := newWorld(t)
		nodes := w.crowd(t, n)
		a := newActed()
		r, s := w.following(a)
		a.take()
		for i, node := range nodes[:10] {
			if err := r.applied.wait(t.Context(), w.move(t, w.store, node, uint16(i+1))); err != nil {
				t.Fatal(err)
			}
		}
		if log := a.take(); len(log) != 0 {
			t.Errorf("agents that moved: %v", log)
		}
		s.mu.Lock()
		if s.lists != 1 {
			t.Errorf("%d agents: the store was read whole %d times, want once", n, s.lists)
		}
		reads = append(reads, s.read)
		s.mu.Unlock()
		if got, want := r.snap.Load(), w.snap(); !reflect.DeepEqual(got, want) {
			t.Errorf("it has %+v, want %+v", got, want)
		}
	}
	if reads[0] != 10 || reads[1] != reads[0] {
		t.Errorf("%v records were read among 10 and 100 agents, want ten each", reads)
	}
}

// A change that others have overtaken when it is read is applied with them, as one
// moment; and what changes the table does so.
func TestFollowCatchesUp(t *testing.T) {
	w := newWorld(t)
	nodes := w.crowd(t, 3)
	a := newActed()
	r, s := w.following(a)
	a.take()
	s.mu.Lock()
	s.before = func() { w.move(t, w.store, nodes[1], 2) }
	s.mu.Unlock()
	moved := w.move(t, w.store, nodes[0], 1)
	if err := r.applied.wait(t.Context(), moved+1); err != nil {
		t.Fatal(err)
	}
	if got, want := r.snap.Load(), w.snap(); !reflect.DeepEqual(got, want) {
		t.Errorf("it has %+v, want %+v", got, want)
	}
	if err := w.admin.Revoke(t.Context(), nodes[2].Name); err != nil {
		t.Fatal(err)
	}
	if err := r.applied.wait(t.Context(), w.snap().rev); err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, there := a.peers[nodes[2].Key]; there || a.table.Len() != 2 {
		t.Errorf("after a revocation %d tunnels, and the peer is there: %v", a.table.Len(), there)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lists != 1 {
		t.Errorf("the store was read whole %d times, want once", s.lists)
	}
}

// BenchmarkFollow is what a change of one agent among many costs, beside reading
// the whole store.
func BenchmarkFollow(b *testing.B) {
	for _, n := range []int{100, 1000} {
		w := newWorld(b)
		nodes := w.crowd(b, n)
		snap := w.snap()
		keys := []string{store.NodeKey(nodes[n/2].ID)}
		b.Run(fmt.Sprintf("change/agents=%d", n), func(b *testing.B) {
			for b.Loop() {
				entries, rev, err := w.store.GetAll(b.Context(), keys)
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := snap.after(rev, keys, entries); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("whole/agents=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := readSnapshot(b.Context(), w.store); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
