package netstack

import (
	"sync/atomic"
	"time"
)

// dialogue tells whether somebody waits for answers: types, or asks for small things.
// Heartbeats are too rare for one.
type dialogue struct {
	last  atomic.Int64 // when something small was said, a time.Duration
	until atomic.Int64 // when the dialogue ends unless something is said
}

const (
	// dialogueGap is the most that lies between two things said in a dialogue: less
	// than between heartbeats, more than between keystrokes.
	dialogueGap = 400 * time.Millisecond
	// dialogueHold is how long it lasts after the last two such things.
	dialogueHold = 2 * time.Second
)

// said notes that a connection that is not busy sent something small, after it had heard
// something.
func (d *dialogue) said(now time.Duration) {
	if last := d.last.Swap(int64(now)); last != 0 && now-time.Duration(last) < dialogueGap {
		d.until.Store(int64(now + dialogueHold))
	}
}

func (d *dialogue) goesOn(now time.Duration) bool { return int64(now) < d.until.Load() }
