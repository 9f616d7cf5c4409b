package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/wgexpose/wgexpose/store"
)

// listIsOneMoment moves one token between keys while others look for it.
func listIsOneMoment(h *harness) {
	h.put("place/0", "token")
	var readers sync.WaitGroup
	ctx, stop := context.WithCancel(h.ctx())
	for range 4 {
		readers.Go(func() {
			var last store.Revision
			for ctx.Err() == nil {
				entries, rev, err := h.store.List(h.ctx(), "place/")
				if err != nil || len(entries) != 1 || entries[0].Revision != rev || rev < last {
					h.Errorf("list: %v at revision %d after %d, %v, want the one token, moved at the list's revision", entries, rev, last, err)
					return
				}
				last = rev
			}
		})
	}
	for i := range 80 {
		h.commit(store.Op{Key: fmt.Sprintf("place/%d", i), Any: true}, set(fmt.Sprintf("place/%d", i+1), "token"))
	}
	stop()
	readers.Wait()
}

// getAll reads some keys, as of one moment.
func getAll(h *harness) {
	entries, rev, err := h.store.GetAll(h.ctx(), []string{"place/0"})
	if err != nil || len(entries) != 0 || rev != 0 {
		h.Errorf("of an empty store: %v, %d, %v", entries, rev, err)
	}
	h.put("place/0", "token")
	h.put("b", "2")
	h.put("a", "1")
	entries, rev, err = h.store.GetAll(h.ctx(), []string{"b", "none", "a"})
	if err != nil || rev != 3 || len(entries) != 2 || entries[0].Key != "b" || string(entries[0].Value) != "2" || entries[0].Revision != 2 || entries[1].Key != "a" || entries[1].Revision != 3 {
		h.Errorf("b, none and a: %v at %d, %v", entries, rev, err)
	}
	if entries, rev, err := h.store.GetAll(h.ctx(), nil); err != nil || len(entries) != 0 || rev != 3 {
		h.Errorf("of no keys: %v at %d, %v", entries, rev, err)
	}
	if _, _, err := h.store.GetAll(h.ctx(), []string{"a", ""}); !errors.Is(err, store.ErrInvalid) {
		h.Errorf("of an empty key: %v", err)
	}
	const moves = 80
	var places []string
	for i := range moves + 1 {
		places = append(places, fmt.Sprintf("place/%d", i))
	}
	var readers sync.WaitGroup
	ctx, stop := context.WithCancel(h.ctx())
	for range 4 {
		readers.Go(func() {
			for first := true; first || ctx.Err() == nil; first = false {
				entries, rev, err := h.store.GetAll(h.ctx(), places)
				// One moment has one token, which the last commit has moved.
				if err != nil || len(entries) != 1 || rev > 3 && entries[0].Revision != rev {
					h.Errorf("get all: %v at revision %d, %v, want the one token, moved at that revision", entries, rev, err)
					return
				}
			}
		})
	}
	for i := range moves {
		h.commit(store.Op{Key: places[i], Any: true}, set(places[i+1], "token"))
	}
	stop()
	readers.Wait()
}

// countingTogether is compare-and-swap in earnest: nobody's count may be lost.
func countingTogether(h *harness) {
	const workers, rounds = 8, 25
	h.put("n", "0")
	var all sync.WaitGroup
	var used sync.Map // revision → worker
	for w := range workers {
		all.Go(func() {
			for range rounds {
				for {
					entry, err := h.store.Get(h.ctx(), "n")
					if err != nil {
						h.Errorf("get: %v", err)
						return
					}
					n, err := strconv.Atoi(string(entry.Value))
					if err != nil {
						h.Errorf("the count is %q", entry.Value)
						return
					}
					rev, err := h.store.Commit(h.ctx(), store.Op{Key: "n", Value: []byte(strconv.Itoa(n + 1)), If: entry.Revision})
					if errors.Is(err, store.ErrConflict) {
						continue
					}
					if err != nil {
						h.Errorf("commit: %v", err)
						return
					}
					if other, taken := used.LoadOrStore(rev, w); taken || rev <= entry.Revision {
						h.Errorf("revision %d after %d, also given to worker %v", rev, entry.Revision, other)
					}
					break
				}
			}
		})
	}
	all.Wait()
	h.want("n", strconv.Itoa(workers*rounds), h.revision())
	if want := store.Revision(workers*rounds + 1); h.revision() != want {
		h.Fatalf("the store's revision is %d, want %d", h.revision(), want)
	}
}

// oneCreatorWins: with a fight for each key, each has one winner.
func oneCreatorWins(h *harness) {
	const workers, keys = 8, 20
	var all sync.WaitGroup
	var wins [keys]atomic.Int32
	for w := range workers {
		all.Go(func() {
			for k := range keys {
				mine := fmt.Sprintf("mine/%d/%d", w, k)
				_, err := h.store.Commit(h.ctx(),
					store.Op{Key: mine, Value: []byte("1")},
					store.Op{Key: fmt.Sprintf("name/%d", k), Value: []byte(mine)})
				if err == nil {
					wins[k].Add(1)
				} else if !errors.Is(err, store.ErrConflict) {
					h.Errorf("commit: %v", err)
				}
			}
		})
	}
	all.Wait()
	for k := range keys {
		if n := wins[k].Load(); n != 1 {
			h.Errorf("name/%d has %d winners", k, n)
		}
		// The winner's other key came with it, and no loser's did.
		h.get(string(h.get(fmt.Sprintf("name/%d", k)).Value))
	}
	if entries, _ := h.list("mine/"); len(entries) != keys {
		h.Errorf("%d keys of winners, want %d", len(entries), keys)
	}
}

func endedContext(h *harness) {
	h.put("a", "1")
	before := h.state()
	ctx, cancel := context.WithCancel(h.ctx())
	cancel()
	_, getErr := h.store.Get(ctx, "a")
	_, _, listErr := h.store.List(ctx, "")
	_, commitErr := h.store.Commit(ctx, set("a", "2"))
	_, watchErr := h.store.Watch(ctx, 0)
	for name, err := range map[string]error{"get": getErr, "list": listErr, "commit": commitErr, "watch": watchErr} {
		if !errors.Is(err, context.Canceled) {
			h.Errorf("%s: %v, want the context's error", name, err)
		}
	}
	if after := h.state(); after != before {
		h.Fatalf("a commit whose context had ended has changed something: %s, was %s", after, before)
	}
}

func closing(h *harness) {
	h.put("a", "1")
	for range 3 {
		if err := h.store.Close(); err != nil {
			h.Fatalf("close: %v", err)
		}
	}
	_, getErr := h.store.Get(h.ctx(), "a")
	_, _, listErr := h.store.List(h.ctx(), "")
	_, commitErr := h.store.Commit(h.ctx(), set("a", "2"))
	_, watchErr := h.store.Watch(h.ctx(), 0)
	for name, err := range map[string]error{"get": getErr, "list": listErr, "commit": commitErr, "watch": watchErr} {
		if !errors.Is(err, store.ErrClosed) {
			h.Errorf("%s: %v, want ErrClosed", name, err)
		}
	}
	h.reopen()
	h.want("a", "1", 1)
}

// closeBesideCommits closes the store under load: what was acknowledged is
// there afterwards, and what was refused is not.
func closeBesideCommits(h *harness) {
	const workers = 6
	var all sync.WaitGroup
	acked := make([]int, workers)
	started := make(chan struct{}, workers)
	for w := range workers {
		all.Go(func() {
			for i := 1; ; i++ {
				_, err := h.store.Commit(h.ctx(), set(fmt.Sprintf("w/%d", w), strconv.Itoa(i)))
				if errors.Is(err, store.ErrClosed) {
					return
				}
				if err != nil {
					h.Errorf("commit: %v", err)
					return
				}
				acked[w] = i
				if i == 3 {
					started <- struct{}{}
				}
				if _, err := h.store.Get(h.ctx(), fmt.Sprintf("w/%d", w)); err != nil && !errors.Is(err, store.ErrClosed) {
					h.Errorf("get: %v", err)
				}
				if _, _, err := h.store.List(h.ctx(), ""); err != nil && !errors.Is(err, store.ErrClosed) {
					h.Errorf("list: %v", err)
				}
			}
		})
	}
	for range workers {
		<-started
	}
	if err := h.store.Close(); err != nil {
		h.Errorf("close: %v", err)
	}
	all.Wait()
	h.reopen()
	for w, i := range acked {
		if got := string(h.get(fmt.Sprintf("w/%d", w)).Value); got != strconv.Itoa(i) {
			h.Errorf("worker %d: %s is stored, %d was the last that was acknowledged", w, got, i)
		}
	}
}
