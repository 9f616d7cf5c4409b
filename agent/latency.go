package agent

import (
	"sync/atomic"
	"time"

	"github.com/wgexpose/wgexpose/control"
)

// delay is the latency in milliseconds, 0 while nothing is known of it.
func (l *link) delay() float64 {
	return float64(l.latency.Load()) / float64(time.Millisecond)
}

const (
	// promptAnswer is the latency of a heartbeat, at most, that was surely sent once
	// and answered once: TCP sends again after 200 ms and more.
	promptAnswer = 150 * time.Millisecond
	// promptRow is how many of those in a row make a path that may be trusted.
	promptRow = 8
	// answerWait is how long an answer to a heartbeat is waited for on such a path. It is
	// that of TCP's timer, which then fires in vain after each: one wake for both.
	answerWait = 200 * time.Millisecond
)

// answered notes how long an answer to a heartbeat took.
func (l *link) answered(took time.Duration) {
	l.latency.Store(int64(max(took, 1)))
	if took >= promptAnswer {
		l.prompt.Store(0)
	} else if l.prompt.Load() < promptRow {
		l.prompt.Add(1)
	}
}

// rest is for how long after an event nothing is done to get another one. Half of the
// silence is then left for it, in which some may be lost or late. Where that does not
// happen, the next heartbeat is early enough, and there are no others; what is left if
// it is not answered is for three more.
func (l *link) rest(event time.Time) time.Duration {
	if l.prompt.Load() < promptRow {
		return silence / 2
	}
	return l.pulse.wait(event, control.Heartbeat) + answerWait
}

// pinger times heartbeats: each carries when it was sent, and comes back.
type pinger struct {
	start time.Time
	event atomic.Int64 // when the last event of any kind came, in ns after start
}

// heard notes that an event has come.
func (p *pinger) heard() { p.event.Store(int64(time.Since(p.start))) }

// lastEvent is when the last event came, or the start.
func (p *pinger) lastEvent() time.Time { return p.start.Add(time.Duration(p.event.Load())) }

// ping is the next heartbeat.
func (p *pinger) ping() control.AgentEvent {
	return control.AgentEvent{Type: control.EventHeartbeat, Ping: uint64(time.Since(p.start)) + 1}
}

// latency is how long the answered heartbeat was under way. It is false for an
// answer that makes no sense.
func (p *pinger) latency(pong uint64) (time.Duration, bool) {
	now := uint64(time.Since(p.start)) + 1
	if pong == 0 || pong > now {
		return 0, false
	}
	return time.Duration(now - pong), true
}
