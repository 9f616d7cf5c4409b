package netstack

import (
	"testing"
	"time"
)

// TestWindow reads at several rates, and looks what the windows
// come to.
func TestWindow(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name        string
		rtt         time.Duration
		rate        float64 // bytes per second of each connection
		conns       int
		least, most int // bytes in all windows
	}{
		{"one machine", ms, 250e6, 1, 3e6, 3e6},
		{"one machine, 8 connections", ms, 31e6, 8, 8 * windowEnough, 8 * windowEnough},
		{"one machine, 64 connections", ms, 4e6, 64, windowsMost, windowsMost},
		{"one machine, 512 connections", ms, 4e6, 512, 512 * windowLeast, 512 * windowLeast},
		{"200 ms and 1 Gbit/s, 4 connections", 200 * ms, 31e6, 4, 25e6, 4 * windowMost},
		{"a visitor who reads 20 KB/s", 40 * ms, 20e3, 1, windowFirst, windowFirst},
		{"a visitor who reads 1 MB/s", 40 * ms, 1e6, 1, 400e3, 2e6},
	} {
		p := &peer{}
		p.timed(c.rtt, boot)
		windows := make([]window, c.conns)
		for i := range windows {
			windows[i].size = windowFirst
		}
		for now := ms; now < 5*time.Second; now += ms {
			for i := range windows {
				had := windows[i].size
				if got := windows[i].read(int(c.rate/1000), now, p); got < had/2 || got < windowLeast || got > windowMost {
					t.Fatalf("%s: %d bytes after %d", c.name, got, had)
				}
			}
		}
		sum := 0
		for _, w := range windows {
			sum += w.size
		}
		if sum < c.least || sum > c.most {
			t.Errorf("%s: windows of %d bytes in all, want %d to %d", c.name, sum, c.least, c.most)
		}
	}
}

// TestShareOfBusy lets connections fall silent, whose share others get.
func TestShareOfBusy(t *testing.T) {
	p := &peer{}
	p.timed(time.Millisecond, boot)
	var a, b time.Duration
	now := time.Second
	alone := p.share(&a, now)
	if got := p.share(&b, now); got != alone/2 {
		t.Errorf("%d of %d for one of two", got, alone)
	}
	for range 3 {
		now += growWithin
		p.share(&a, now)
	}
	if got := p.share(&a, now); got != alone {
		t.Errorf("%d of %d for the one that is left", got, alone)
	}
	now += time.Hour
	if got := p.share(&b, now); got != alone {
		t.Errorf("%d of %d after a long pause", got, alone)
	}
}
