package store

import (
	"context"
	"slices"
	"sync"
)

// maxChangeKeys bounds what a receiver that does not read can make us keep.
const maxChangeKeys = 512

// watchers hands changes to those who watch. It is made for one publisher,
// which it never makes wait.
type watchers struct {
	mu     sync.Mutex // guards all of it; held to send, which never blocks
	rev    Revision   // the last one published
	all    map[*watcher]struct{}
	closed bool
}

// A watcher's channel holds one change. Who sends is under watchers.mu, and
// takes an unread change out before it puts the merged one in: so there is
// always room, and what is in the channel always ends with the last revision.
type watcher struct {
	ch    chan Change
	after Revision // what the receiver has, or is going to have
	stop  func() bool
}

func newWatchers(rev Revision) *watchers {
	return &watchers{rev: rev, all: map[*watcher]struct{}{}}
}

func (ws *watchers) watch(ctx context.Context, after Revision) (<-chan Change, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.closed {
		return nil, ErrClosed
	}
	w := &watcher{ch: make(chan Change, 1), after: after}
	ws.all[w] = struct{}{}
	if ws.rev > after {
		w.sendLocked(Change{Revision: ws.rev})
	}
	// Runs on a goroutine of its own, and blocks on nothing but the mutex.
	w.stop = context.AfterFunc(ctx, func() { ws.remove(w) })
	return w.ch, nil
}

// publish tells all watchers. Revisions come in ascending order.
func (ws *watchers) publish(rev Revision, keys []string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.rev = rev
	for w := range ws.all {
		// A watcher may know more than was published when it came: it listed
		// between the commit and this.
		if rev > w.after {
			w.sendLocked(Change{Revision: rev, Keys: slices.Clone(keys)})
		}
	}
}

// sendLocked needs watchers.mu.
func (w *watcher) sendLocked(c Change) {
	select {
	case unread := <-w.ch:
		c.Keys = mergeKeys(unread.Keys, c.Keys)
	default:
	}
	w.after = c.Revision
	w.ch <- c
}

// mergeKeys joins two sorted lists; nil, which stands for all keys, wins.
func mergeKeys(a, b []string) []string {
	if a == nil || b == nil {
		return nil
	}
	keys := slices.Concat(a, b)
	slices.Sort(keys)
	if keys = slices.Compact(keys); len(keys) > maxChangeKeys {
		return nil
	}
	return keys
}

func (ws *watchers) remove(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if _, ok := ws.all[w]; ok {
		delete(ws.all, w)
		close(w.ch)
	}
}

// close ends all watches, and refuses new ones.
func (ws *watchers) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.closed = true
	for w := range ws.all {
		w.stop()
		delete(ws.all, w)
		close(w.ch)
	}
}
