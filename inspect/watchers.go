package inspect

import (
	"sync"
	"sync/atomic"
)

// Watcher learns which exchanges changed. Changes are joined until they are
// taken, so a slow one costs no more than a fast one.
type Watcher struct {
	insp *Inspector
	wake chan struct{} // holds one

	mu      sync.Mutex // guards what follows
	dirty   map[uint64]struct{}
	cleared bool
	missed  bool // there were more changes than are listed
	ended   bool
}

// maxDirty bounds the changes that wait to be taken.
const maxDirty = 2000

// News is what a Watcher was told since the last time.
type News struct {
	// Exchanges is how the changed ones look by now, oldest first.
	Exchanges []Summary
	// Cleared tells that all exchanges were forgotten before these.
	Cleared bool
	// Missed tells that there were more changes than could be noted: list
	// all again.
	Missed bool
}

// Watch begins to note changes. Close must be called.
func (i *Inspector) Watch() *Watcher {
	w := &Watcher{insp: i, wake: make(chan struct{}, 1), dirty: map[uint64]struct{}{}}
	i.watchers.add(w)
	return w
}

// Wake delivers a value when there is something to take. It is closed with
// the Inspector.
func (w *Watcher) Wake() <-chan struct{} { return w.wake }

// Take returns the changes since the last Take.
func (w *Watcher) Take() News {
	w.mu.Lock()
	dirty, c := w.dirty, News{Cleared: w.cleared, Missed: w.missed}
	w.dirty, w.cleared, w.missed = map[uint64]struct{}{}, false, false
	w.mu.Unlock()
	c.Exchanges = make([]Summary, 0, len(dirty))
	for sequence := range dirty {
		if x := w.insp.ring.find(sequence); x != nil {
			c.Exchanges = append(c.Exchanges, w.insp.summary(x))
		}
	}
	sortOldestFirst(c.Exchanges)
	return c
}

// Close ends the watch.
func (w *Watcher) Close() { w.insp.watchers.remove(w) }

func (w *Watcher) note(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	fn()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.ended = true
		close(w.wake)
	}
}

// watchers tell each Watcher. Without any, a change costs one atomic load.
type watchers struct {
	count atomic.Int32

	mu     sync.Mutex // guards what follows; taken before Watcher.mu
	all    map[*Watcher]struct{}
	closed bool
}

func (w *watchers) add(n *Watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		n.end()
		return
	}
	if w.all == nil {
		w.all = map[*Watcher]struct{}{}
	}
	w.all[n] = struct{}{}
	w.count.Store(int32(len(w.all)))
}

func (w *watchers) remove(n *Watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, n)
	w.count.Store(int32(len(w.all)))
	n.end()
}

func (w *watchers) changed(sequence uint64) {
	if w.count.Load() == 0 {
		return
	}
	w.each(func(n *Watcher) {
		if len(n.dirty) == maxDirty {
			n.missed = true
			return
		}
		n.dirty[sequence] = struct{}{}
	})
}

func (w *watchers) cleared() {
	w.each(func(n *Watcher) {
		clear(n.dirty)
		n.cleared, n.missed = true, false
	})
}

func (w *watchers) each(fn func(*Watcher)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range w.all {
		n.note(func() { fn(n) })
	}
}

func (w *watchers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for n := range w.all {
		n.end()
	}
}
