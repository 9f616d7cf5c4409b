package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/wgexpose/wgexpose/store"
)

func watchNamesKeys(h *harness) {
	rev := h.put("a", "1")
	ch := h.watch(h.ctx(), rev)
	for _, step := range []struct {
		ops  []store.Op
		keys []string
	}{
		{[]store.Op{set("b", "1")}, []string{"b"}},
		{[]store.Op{set("c", "1"), set("a", "2"), store.Check("b", rev+1)}, []string{"a", "c"}},
		{[]store.Op{{Key: "a", Any: true}, {Key: "none", Any: true}}, []string{"a"}},
		{[]store.Op{set("b", "1")}, []string{"b"}},
	} {
		// What changes nothing, and what fails, is no news.
		h.commit(store.Op{Key: "none", Any: true})
		h.wantConflict("b", h.get1("b"), store.Check("b", 999))
		rev := h.commit(step.ops...)
		c := h.next(ch)
		if c.Revision != rev || !slices.Equal(c.Keys, step.keys) {
			h.Fatalf("change %d %q, want %d %q", c.Revision, c.Keys, rev, step.keys)
		}
	}
}

// get1 gives the revision of a key, 0 when it is missing.
func (h *harness) get1(key string) store.Revision {
	entries, _ := h.list(key)
	for _, e := range entries {
		if e.Key == key {
			return e.Revision
		}
	}
	return 0
}

func watchCatchesUp(h *harness) {
	h.put("a", "1")
	h.put("b", "1")
	h.commit(store.Op{Key: "a", Any: true})
	for after := range store.Revision(3) {
		ctx, cancel := context.WithCancel(h.ctx())
		c := h.next(h.watch(ctx, after))
		if c.Revision != 3 || !names(c, "a") {
			h.Fatalf("watch after %d begins with %d %q, want revision 3 and the key that is gone", after, c.Revision, c.Keys)
		}
		cancel()
	}
	// After the newest there is no news until something happens.
	ch := h.watch(h.ctx(), 3)
	rev := h.put("c", "1")
	if c := h.next(ch); c.Revision != rev || !slices.Equal(c.Keys, []string{"c"}) {
		h.Fatalf("change %d %q, want %d and c", c.Revision, c.Keys, rev)
	}
	h.reopen()
	if c := h.next(h.watch(h.ctx(), 1)); c.Revision != rev || !names(c, "a", "b", "c") {
		h.Fatalf("after reopening, watch begins with %d %q", c.Revision, c.Keys)
	}
}

// watchMerges: who does not read stops nobody, and gets all of it in the end.
func watchMerges(h *harness) {
	slow := h.watch(h.ctx(), 0)
	const n = 1500
	keys := map[string]bool{}
	var last store.Revision
	for i := range n / 10 {
		ops := make([]store.Op, 10)
		for j := range ops {
			ops[j] = set(fmt.Sprintf("k/%d", i*10+j), "1")
			keys[ops[j].Key] = true
		}
		last = h.commit(ops...)
	}
	var seen store.Revision
	received := 0
	for seen < last {
		c := h.next(slow)
		received++
		if c.Revision <= seen {
			h.Fatalf("revision %d after %d", c.Revision, seen)
		}
		seen = c.Revision
		if c.Keys == nil {
			clear(keys)
		}
		for _, key := range c.Keys {
			delete(keys, key)
		}
	}
	if seen != last || len(keys) > 0 {
		h.Fatalf("the last change is %d, want %d; %d keys were never named", seen, last, len(keys))
	}
	if received > n/20 {
		h.Fatalf("%d changes were kept for a receiver that did not read", received)
	}
}

// watchFollows has several followers build their own copy of the store from
// changes alone, while it is written to, and compares the copies at the end.
func watchFollows(h *harness) {
	const followers, writers, rounds = 4, 3, 60
	copies := make([]map[string]string, followers)
	done := make(chan store.Revision) // closed when final is set
	var final store.Revision
	var all sync.WaitGroup
	for f := range followers {
		ctx, cancel := context.WithCancel(h.ctx())
		ch := h.watch(ctx, 0)
		all.Go(func() {
			defer cancel()
			copies[f] = map[string]string{}
			var seen store.Revision
			finished := done
			for {
				select {
				case c, ok := <-ch:
					if !ok || c.Revision <= seen {
						h.Errorf("change %d after %d, the watch goes on: %v", c.Revision, seen, ok)
						return
					}
					seen = c.Revision
					if err := follow(h, copies[f], c); err != nil {
						h.Errorf("follow: %v", err)
						return
					}
				case <-finished:
					finished = nil
				}
				if finished == nil && seen == final {
					return
				}
			}
		})
	}
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range rounds {
				ops := []store.Op{set(fmt.Sprintf("k/%d/%d", w, i%10), fmt.Sprint(i))}
				if i%3 == 0 {
					ops = append(ops, store.Op{Key: fmt.Sprintf("k/%d/%d", w, (i+1)%10), Any: true})
				}
				if _, err := h.store.Commit(h.ctx(), ops...); err != nil {
					h.Errorf("commit: %v", err)
				}
			}
		})
	}
	writing.Wait()
	entries, rev := h.list("")
	final = rev
	close(done)
	all.Wait()
	want := map[string]string{}
	for _, e := range entries {
		want[e.Key] = string(e.Value)
	}
	for f, got := range copies {
		if !maps.Equal(got, want) {
			h.Errorf("follower %d has %v, want %v", f, got, want)
		}
	}
}

// follow reads again what a change names.
func follow(h *harness, copied map[string]string, c store.Change) error {
	entries, _, err := h.store.List(h.ctx(), "")
	if err != nil {
		return err
	}
	now := map[string]string{}
	for _, e := range entries {
		now[e.Key] = string(e.Value)
	}
	keys := c.Keys
	if keys == nil {
		keys = slices.Concat(slices.Collect(maps.Keys(copied)), slices.Collect(maps.Keys(now)))
	}
	for _, key := range keys {
		if value, ok := now[key]; ok {
			copied[key] = value
		} else {
			delete(copied, key)
		}
	}
	return nil
}

func watchEndsWithContext(h *harness) {
	ctx, cancel := context.WithCancel(h.ctx())
	ended := h.watch(ctx, 0)
	stays := h.watch(h.ctx(), 0)
	cancel()
	h.wantEnd(ended)
	rev := h.put("a", "1")
	if c := h.next(stays); c.Revision != rev {
		h.Fatalf("change %d, want %d", c.Revision, rev)
	}
}

func watchEndsWithStore(h *harness) {
	var chans []<-chan store.Change
	for range 3 {
		chans = append(chans, h.watch(h.ctx(), 0))
	}
	h.put("a", "1")
	if err := h.store.Close(); err != nil {
		h.Fatalf("close: %v", err)
	}
	for _, ch := range chans {
		h.wantEnd(ch)
	}
}
