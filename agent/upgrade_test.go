package agent

import (
	"testing"
	"time"
)

// UDP that does not answer is tried at one pace, however long it takes. UDP
// that answers and then fails holds up users, and is tried less and less.
func TestTrialPauses(t *testing.T) {
	var u trial
	now := time.Now()
	for range 100 {
		if got := u.next(now); got != trialPause {
			t.Fatalf("the pause is %v after trials without an answer", got)
		}
		now = now.Add(trialPause)
	}
	want := trialPause
	for range 10 {
		u.since = now
		now = now.Add(goodTrial - time.Second)
		want = min(2*want, longestTrial)
		if got := u.next(now); got != want {
			t.Fatalf("the pause is %v, want %v", got, want)
		}
	}
	if want != longestTrial || u.next(now) != want {
		t.Errorf("the longest pause is %v", want)
	}
	u.since = now
	if got := u.next(now.Add(goodTrial)); got != trialPause {
		t.Errorf("the pause is %v after UDP was good", got)
	}
}
