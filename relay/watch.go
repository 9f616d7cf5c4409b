package relay

import (
	"fmt"
	"sync/atomic"
	"time"
)

// watchEvery is how often the watch looks; a break that nothing else would
// notice is noticed after at most twice this.
const watchEvery = time.Second

// watch finds out that a source has broken while its direction does not read
// it: because a write to a stalled destination is under way, or because the
// source has ended already. Nobody else would notice until the destination
// moves, which it may never do. Go's poller tells a break to readers and
// writers alone, so the watch asks, and only in these two cases: an idle pair
// has no timer.
type watch struct {
	directions [2]*direction
	armed      atomic.Bool // the timer will fire, or look is running
	stopped    atomic.Bool
	timer      *time.Timer
	last       [2]uint64 // what look found; look alone uses it
}

func newWatch(ab, ba *direction) *watch {
	w := &watch{directions: [2]*direction{ab, ba}}
	w.timer = time.AfterFunc(time.Hour, w.look)
	w.timer.Stop()
	return w
}

// start is called by a direction that begins to write or has ended. It costs
// one atomic load while the watch runs.
func (w *watch) start() {
	if !w.armed.Load() && w.armed.CompareAndSwap(false, true) {
		w.timer.Reset(watchEvery)
	}
}

// stop ends the watch. A look under way may still find its connections closed.
func (w *watch) stop() {
	w.stopped.Store(true)
	w.timer.Stop()
}

// look asks the sources that were not read since the look before.
func (w *watch) look() {
	goOn := false
	for i, d := range w.directions {
		now := d.progress.Load()
		if now&notReading == 0 {
			continue
		}
		goOn = true
		if now == w.last[i] {
			d.check()
		}
		w.last[i] = now
	}
	if !goOn {
		w.armed.Store(false)
		// A direction that began since has seen the watch armed.
		if (w.directions[0].progress.Load()|w.directions[1].progress.Load())&notReading == 0 {
			return
		}
		if !w.armed.CompareAndSwap(false, true) {
			return // it has armed the watch itself
		}
	}
	if !w.stopped.Load() {
		w.timer.Reset(watchEvery)
	}
}

// check resets the pair if this direction's source has broken.
func (d *direction) check() {
	if err := Broken(d.src); err != nil {
		d.fail(fmt.Errorf("relay %s: %w", d.name, asReset(err)))
		d.abort()
	}
}

// progress numbers the writes of a direction: its lowest bit is set while the
// direction does not read its source, and two looks that find the same number
// have found the same write.
type progress struct{ atomic.Uint64 }

const notReading = 1

func (p *progress) begin() { p.Add(1) }
func (p *progress) begun() { p.Add(1) }
func (p *progress) end()   { p.Or(notReading) }
