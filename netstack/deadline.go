package netstack

import (
	"sync"
	"time"
)

// deadline is a time after which operations fail, settable while they wait.
// The zero value never passes.
type deadline struct {
	mu    sync.Mutex // guards timer and passed
	timer *time.Timer
	// passed is closed when the time has come; nil until one is set or
	// waited for, which for an idle connection is never.
	passed chan struct{}
}

// set moves the deadline; the zero time takes it away. When the deadline has
// passed, also is called, if it is not nil.
func (d *deadline) set(t time.Time, also func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // the timer fired: its function is closing, or has closed, the channel
	}
	d.timer = nil
	if d.passed != nil && isClosed(d.passed) {
		d.passed = nil
	}
	if t.IsZero() {
		return
	}
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	pass := func(passed chan struct{}) {
		close(passed)
		if also != nil {
			also()
		}
	}
	passed := d.passed
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { pass(passed) })
	} else {
		pass(passed)
	}
}

// hasPassed tells whether the time has come, and makes nothing to wait on.
func (d *deadline) hasPassed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed != nil && isClosed(d.passed)
}

// done returns a channel that is closed when the deadline passes. A set
// later may supply another channel, but ends waits on this one when it is
// due already.
func (d *deadline) done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	return d.passed
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
