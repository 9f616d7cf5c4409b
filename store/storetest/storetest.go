// Package storetest holds every [store.Store] to its contract:
//
//	func TestBolt(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) storetest.Open {
//			path := filepath.Join(t.TempDir(), "edge.db")
//			return func() (store.Store, error) { return store.OpenBolt(path) }
//		})
//	}
//
// The suite asks nothing of the time that a store takes, and everything of the
// order in which things happen.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/store"
)

// Open opens the store of one test. It is called again when the one before is
// closed, and must then find what that one has left.
type Open func() (store.Store, error)

// patience is how long a test waits for what must come before it fails.
const patience = 30 * time.Second

// Run runs the suite. fresh is called once for each test, and gives the means
// to open one store, which is empty at first.
func Run(t *testing.T, fresh func(t *testing.T) Open) {
	tests := []struct {
		name string
		run  func(h *harness)
	}{
		{"missing key", missingKey},
		{"values come back", valuesComeBack},
		{"values are copies", valuesAreCopies},
		{"odd keys", oddKeys},
		{"conditions", conditions},
		{"checks", checks},
		{"all or nothing", allOrNothing},
		{"invalid operations", invalidOps},
		{"limits are usable", limitsAreUsable},
		{"revisions", revisions},
		{"list", list},
		{"list is one moment", listIsOneMoment},
		{"get all", getAll},
		{"counting together", countingTogether},
		{"one creator wins", oneCreatorWins},
		{"watch names keys", watchNamesKeys},
		{"watch catches up", watchCatchesUp},
		{"watch merges for the slow", watchMerges},
		{"watch never loses the last", watchFollows},
		{"watch ends with its context", watchEndsWithContext},
		{"watch ends with the store", watchEndsWithStore},
		{"ended context", endedContext},
		{"close", closing},
		{"close beside commits", closeBesideCommits},
		{"reopen", reopen},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := &harness{T: t, open: fresh(t)}
			h.reopen()
			t.Cleanup(func() {
				if err := h.store.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			test.run(h)
		})
	}
}

// harness is one test's store, and helpers that fail the test.
type harness struct {
	*testing.T
	open  Open
	store store.Store
}

// reopen closes the store if it is open, and opens it.
func (h *harness) reopen() {
	h.Helper()
	if h.store != nil {
		if err := h.store.Close(); err != nil {
			h.Fatalf("close: %v", err)
		}
	}
	s, err := h.open()
	if err != nil {
		h.Fatalf("open: %v", err)
	}
	h.store = s
}

func (h *harness) ctx() context.Context { return h.Context() }

func (h *harness) commit(ops ...store.Op) store.Revision {
	h.Helper()
	rev, err := h.store.Commit(h.ctx(), ops...)
	if err != nil {
		h.Fatalf("commit %v: %v", keysOf(ops), err)
	}
	return rev
}

// put stores a string whatever was there.
func (h *harness) put(key, value string) store.Revision {
	h.Helper()
	return h.commit(set(key, value))
}

func (h *harness) get(key string) store.Entry {
	h.Helper()
	entry, err := h.store.Get(h.ctx(), key)
	if err != nil {
		h.Fatalf("get %s: %v", key, err)
	}
	if entry.Key != key || entry.Value == nil {
		h.Fatalf("get %s: got key %q, value %v", key, entry.Key, entry.Value)
	}
	return entry
}

// want demands a value and a revision.
func (h *harness) want(key, value string, rev store.Revision) {
	h.Helper()
	if entry := h.get(key); string(entry.Value) != value || entry.Revision != rev {
		h.Fatalf("%s is %q at revision %d, want %q at %d", key, entry.Value, entry.Revision, value, rev)
	}
}

func (h *harness) wantMissing(key string) {
	h.Helper()
	if entry, err := h.store.Get(h.ctx(), key); !errors.Is(err, store.ErrNotFound) {
		h.Fatalf("get %s: got %q, %v, want ErrNotFound", key, entry.Value, err)
	}
}

// wantConflict demands that a commit fails because of key, and names it.
func (h *harness) wantConflict(key string, have store.Revision, ops ...store.Op) {
	h.Helper()
	rev, err := h.store.Commit(h.ctx(), ops...)
	var conflict *store.ConflictError
	if !errors.Is(err, store.ErrConflict) || !errors.As(err, &conflict) {
		h.Fatalf("commit %v: got revision %d, %v, want a conflict", keysOf(ops), rev, err)
	}
	if conflict.Key != key || conflict.Have != have {
		h.Fatalf("the conflict is at %s with revision %d, want %s with %d", conflict.Key, conflict.Have, key, have)
	}
}

func (h *harness) list(prefix string) ([]store.Entry, store.Revision) {
	h.Helper()
	entries, rev, err := h.store.List(h.ctx(), prefix)
	if err != nil {
		h.Fatalf("list %q: %v", prefix, err)
	}
	return entries, rev
}

// state is all of the store in one comparable string.
func (h *harness) state() string {
	h.Helper()
	entries, rev := h.list("")
	s := fmt.Sprintf("revision %d", rev)
	for _, e := range entries {
		s += fmt.Sprintf(", %q=%q@%d", e.Key, e.Value, e.Revision)
	}
	return s
}

func (h *harness) revision() store.Revision {
	h.Helper()
	_, rev := h.list("")
	return rev
}

func (h *harness) watch(ctx context.Context, after store.Revision) <-chan store.Change {
	h.Helper()
	ch, err := h.store.Watch(ctx, after)
	if err != nil {
		h.Fatalf("watch: %v", err)
	}
	return ch
}

// next takes one change.
func (h *harness) next(ch <-chan store.Change) store.Change {
	h.Helper()
	c, ok := h.receive(ch)
	if !ok {
		h.Fatal("the watch has ended")
	}
	return c
}

// wantEnd demands that the channel is closed once what is in it is taken.
func (h *harness) wantEnd(ch <-chan store.Change) {
	h.Helper()
	for {
		if _, ok := h.receive(ch); !ok {
			return
		}
	}
}

func (h *harness) receive(ch <-chan store.Change) (store.Change, bool) {
	h.Helper()
	select {
	case c, ok := <-ch:
		return c, ok
	case <-time.After(patience):
		h.Fatal("nothing comes from the watch")
		panic("unreachable")
	}
}

// names tells whether a change speaks of all the keys: by name, or by naming none.
func names(c store.Change, keys ...string) bool {
	for _, key := range keys {
		if c.Keys != nil && !slices.Contains(c.Keys, key) {
			return false
		}
	}
	return true
}

func set(key, value string) store.Op {
	return store.Op{Key: key, Value: []byte(value), Any: true}
}

func keysOf(ops []store.Op) []string {
	keys := make([]string, 0, len(ops))
	for _, op := range ops {
		keys = append(keys, op.Key)
	}
	return keys
}
