package inspect

import (
	"runtime"
	"sync"
)

// workers parse what sessions have queued. A worker is started when there is
// work and ends when there is none; there are at most half as many as
// processors, so that traffic goes first.
type workers struct {
	mu      sync.Mutex // guards what follows
	ready   []*session // sessions with work, each at most once
	running int
	closed  bool
	ended   *sync.Cond // running is 0; nil until close waits
}

// add has a session drained soon. A session must not be added again before
// its drain has returned false.
func (w *workers) add(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.ready = append(w.ready, s)
	if w.running < max(1, runtime.GOMAXPROCS(0)/2) {
		w.running++
		go w.run()
	}
}

func (w *workers) run() {
	for s := w.next(); s != nil; s = w.next() {
		if s.drain() {
			w.again(s)
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
		if w.running == 0 && w.ended != nil {
			w.ended.Broadcast()
		}
		return nil
	}
	s := w.ready[0]
	w.ready[0] = nil
	w.ready = w.ready[1:]
	return s
}

// again puts a session that has more work behind the others.
func (w *workers) again(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready = append(w.ready, s)
}

// close ends all workers and waits for them.
func (w *workers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.ended = sync.NewCond(&w.mu)
	for w.running > 0 {
		w.ended.Wait()
	}
}
