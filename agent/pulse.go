package agent

import "time"

// pulse is when a process does what it does every few seconds: all at the same
// moments. One that rests is woken for it, which costs more (some 0.15 ms of a
// processor, for each time) than what it then does. Each process counts from a
// moment of its own, so that the agents of an edge do not all call it at once.
type pulse struct{ began time.Time }

// wait is how long after now the next multiple of every, since the beginning, is:
// more than nothing, and at most every.
func (p pulse) wait(now time.Time, every time.Duration) time.Duration {
	return every - now.Sub(p.began)%every
}
