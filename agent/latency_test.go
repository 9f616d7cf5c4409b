package agent

import (
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"
)

// TestRest: a link asks for no more than heartbeats where those are answered at
// once, and asks early where any of the last was not.
func TestRest(t *testing.T) {
	var l link
	asksEarly := func() bool { return l.rest() < control.Heartbeat }
	for n := range promptRow {
		if !asksEarly() {
			t.Fatalf("a path is trusted after %d answers", n)
		}
		l.answered(20 * time.Millisecond)
	}
	if asksEarly() {
		t.Error("a path with prompt answers is asked beside the heartbeats")
	}
	if left := silence - l.rest(); left < 2*lookPause {
		t.Errorf("%v are left to ask before the silence is over", left)
	}
	l.answered(promptAnswer)
	for n := range promptRow {
		if !asksEarly() {
			t.Fatalf("a path that lost something is trusted again after %d answers", n)
		}
		l.answered(20 * time.Millisecond)
	}
	if asksEarly() {
		t.Error("a path is never trusted again")
	}
}
