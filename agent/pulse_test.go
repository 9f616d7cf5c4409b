package agent

import (
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"
)

// TestPulse: what is done at different intervals is done at the same moments.
func TestPulse(t *testing.T) {
	p := pulse{time.Unix(1_700_000_000, 123_456_789)}
	for past, want := range map[time.Duration]time.Duration{
		0: time.Second, 1: time.Second - 1, 300 * time.Millisecond: 700 * time.Millisecond,
		time.Second - 1: 1, time.Second: time.Second, 7*time.Second + 1: time.Second - 1,
	} {
		if got := p.wait(p.began.Add(past), time.Second); got != want {
			t.Errorf("%v after the beginning: %v, want %v", past, got, want)
		}
	}
	for _, every := range []time.Duration{clockEvery, lookEvery, calmEvery, control.Heartbeat} {
		for now := p.began; now.Before(p.began.Add(time.Minute)); now = now.Add(337 * time.Millisecond) {
			due := now.Add(p.wait(now, every))
			if !due.After(now) || due.After(now.Add(every)) || due.Sub(p.began)%time.Second != 0 {
				t.Fatalf("%v after the beginning, what is done every %v is next done %v after it", now.Sub(p.began), every, due.Sub(p.began))
			}
		}
	}
}
