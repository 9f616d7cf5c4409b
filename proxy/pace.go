package proxy

import (
	"errors"
	"net/http"
	"time"
)

const (
	// bodyWait is how long a visitor may let the edge wait for an upload of known
	// length. Every paceBytes that arrive give the whole time back, so what is
	// asked for is 4 KiB a minute: less than any line that carries a TLS handshake.
	bodyWait  = time.Minute
	paceBytes = 4 << 10

	// streamWait is how long an upload of unknown length may be silent before its
	// answer begins. Such an upload may be a stream whose source has nothing to say.
	streamWait = 10 * time.Minute
)

// errSlow is why an upload was given up.
var errSlow = errors.New("the upload makes no progress")

// SlowUpload is what the sender of a request reads that stopped arriving.
func SlowUpload() *Problem {
	return &Problem{
		Status: http.StatusRequestTimeout,
		Code:   "slow_request",
		Title:  "The request came too slowly",
		Detail: "The body of the request stopped arriving, so the request was given up. Send it again.",
	}
}

// pace bounds how long an upload may be waited for: those who open many requests
// and finish none must not hold connections and upstreams for ever. Only time
// spent waiting for the visitor counts, not what the upstream takes to read on,
// and it ends when the answer begins: from then on both sides may take their
// time, as in a gRPC stream. The upload's lock guards it.
type pace struct {
	wait   time.Duration // all that may be waited; 0: no bound
	bytes  int           // this many give all of it back
	left   time.Duration
	since  time.Time // the read under way began
	timer  *time.Timer
	firing bool // interrupt is being called
	slow   bool // it was
}

// pace makes the visitor's slowness end the upload: interrupt must make a read
// under way return.
func (u *upload) pace(known, unknown time.Duration, interrupt func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.speed.wait, u.speed.bytes = known, paceBytes
	if u.from.ContentLength < 0 {
		u.speed.wait, u.speed.bytes = unknown, 1
	}
	u.speed.left = u.speed.wait
	u.interrupt = interrupt
}

// startLocked begins to count.
func (p *pace) startLocked(fire func()) {
	if p.wait == 0 {
		return
	}
	p.since = time.Now()
	if p.timer == nil {
		p.timer = time.AfterFunc(p.left, fire)
	} else {
		p.timer.Reset(p.left)
	}
}

// stopLocked ends counting: n bytes came.
func (p *pace) stopLocked(n int) {
	if p.wait == 0 {
		return
	}
	p.timer.Stop()
	earned := p.wait
	if n < p.bytes {
		earned = p.wait / time.Duration(p.bytes) * time.Duration(n)
	}
	p.left = min(p.wait, max(0, p.left-time.Since(p.since))+earned)
}

// tooSlow is the timer's.
func (u *upload) tooSlow() {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := &u.speed
	if p.wait == 0 || !u.reading || time.Since(p.since) < p.left {
		return // it came just in time
	}
	p.slow, p.firing = true, true
	u.mu.Unlock()
	u.interrupt()
	u.mu.Lock()
	p.firing = false
	u.idle.Broadcast()
}

// tooSlowEnded reports whether the visitor's slowness ended the upload.
func (u *upload) tooSlowEnded() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.speed.slow
}

// anyPace lifts the bound. Afterwards interrupt is not called any more.
func (u *upload) anyPace() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.speed.wait = 0
	if u.speed.timer != nil {
		u.speed.timer.Stop()
	}
	for u.speed.firing {
		u.idle.Wait()
	}
}
