package agent

import (
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"
)

// TestRest: a link asks for no more than heartbeats where those are answered at
// once, and asks early where any of the last was not.
func TestRest(t *testing.T) {
	l := link{pulse: pulse{time.Now()}}
	answered := l.pulse.began.Add(7*control.Heartbeat + promptAnswer)
	asksEarly := func() bool { return answered.Add(l.rest(answered)).Before(l.pulse.began.Add(8 * control.Heartbeat)) }
	earnsTrust := func(path string) {
		t.Helper()
		for n := range promptRow {
			if !asksEarly() {
				t.Fatalf("%s is trusted after %d answers", path, n)
			}
			l.answered(20 * time.Millisecond)
		}
		if asksEarly() {
			t.Errorf("%s with prompt answers is asked beside the heartbeats", path)
		}
	}
	earnsTrust("a path")
	if left := silence - l.rest(l.pulse.began.Add(7*control.Heartbeat)); left < 2*lookPause {
		t.Errorf("%v are left to ask before the silence is over", left)
	}
	l.answered(promptAnswer)
	earnsTrust("a path that lost something")
}
