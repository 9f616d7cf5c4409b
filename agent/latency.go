package agent

import (
	"time"

	"github.com/wgexpose/wgexpose/control"
)

// delay is the latency in milliseconds, 0 while nothing is known of it.
func (l *link) delay() float64 {
	return float64(l.latency.Load()) / float64(time.Millisecond)
}

// pinger times heartbeats: each carries when it was sent, and comes back.
type pinger struct{ start time.Time }

// ping is the next heartbeat.
func (p pinger) ping() control.AgentEvent {
	return control.AgentEvent{Type: control.EventHeartbeat, Ping: uint64(time.Since(p.start)) + 1}
}

// latency is how long the answered heartbeat was under way. It is false for an
// answer that makes no sense.
func (p pinger) latency(pong uint64) (time.Duration, bool) {
	now := uint64(time.Since(p.start)) + 1
	if pong == 0 || pong > now {
		return 0, false
	}
	return time.Duration(now - pong), true
}
