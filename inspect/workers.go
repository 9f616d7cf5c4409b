package inspect

import (
	"runtime"
	"sync"
	"time"
)

// parseDelay is how long queued bytes wait for more to be parsed with them.
// Waking a worker costs as much as parsing a few exchanges, and takes a
// processor from the traffic; nobody sees the difference on a page.
const parseDelay = 4 * time.Millisecond

// workers parse what sessions have queued. They run when parseDelay has passed,
// or at once when a queue fills up, and end when there is nothing left. There
// are at most half as many as processors, so that traffic goes first.
type workers struct {
	mu      sync.Mutex // guards what follows
	later   []*session // have work, and wait for the timer; each is at most once
	ready   []*session // in later or ready, and in none while it is drained
	running int
	armed   bool // the timer will call tick, or tick waits for mu
	timer   *time.Timer
	closed  bool
	changed *sync.Cond // running or armed; nil until close waits
}

// add has a session drained soon. It must not be added again before its drain
// has begun.
func (w *workers) add(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.later = append(w.later, s)
	if w.armed {
		return
	}
	w.armed = true
	if w.timer == nil {
		w.timer = time.AfterFunc(parseDelay, w.tick)
	} else {
		w.timer.Reset(parseDelay)
	}
}

// hurry has all sessions drained that were added.
func (w *workers) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.startLocked()
}

func (w *workers) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = false
	w.startLocked()
	w.tellLocked()
}

func (w *workers) startLocked() {
	if w.closed {
		return
	}
	w.ready = append(w.ready, w.later...)
	clear(w.later)
	w.later = w.later[:0]
	for n := len(w.ready); n > 0 && w.running < max(1, runtime.GOMAXPROCS(0)/2); n-- {
		w.running++
		go w.run()
	}
}

func (w *workers) run() {
	for s := w.next(); s != nil; s = w.next() {
		if s.drain() {
			w.add(s)
		}
	}
}

// next takes the session that has waited longest. Nil ends the worker.
func (w *workers) next() *session {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.ready) == 0 {
		w.ready = nil
		w.running--
		w.tellLocked()
		return nil
	}
	s := w.ready[0]
	w.ready[0] = nil
	w.ready = w.ready[1:]
	return s
}

func (w *workers) tellLocked() {
	if w.changed != nil {
		w.changed.Broadcast()
	}
}

// close ends all workers and waits for them.
func (w *workers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.changed = sync.NewCond(&w.mu)
	if w.armed && w.timer.Stop() {
		w.armed = false
	}
	for w.running > 0 || w.armed {
		w.changed.Wait()
	}
}
