package meter_test

import (
	"math"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/meter"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestNothing(t *testing.T) {
	var m meter.Meter
	if got := m.Read(start); got != (meter.Metrics{}) {
		t.Errorf("nothing reads as %+v", got)
	}
}

func TestCounts(t *testing.T) {
	var m meter.Meter
	m.Begin(start)
	m.Begin(start)
	m.End(30 * time.Millisecond)
	m.Add(start, 10*time.Millisecond)
	got := m.Read(start)
	if got.Count != 3 || got.Gauge != 1 {
		t.Errorf("%d in all and %d open, of 3 and 1", got.Count, got.Gauge)
	}
	if got.P50 != 30e6 && got.P50 != 10e6 || got.P99 != 30e6 {
		t.Errorf("p50 is %v and p99 %v of 10 ms and 30 ms", got.P50, got.P99)
	}
}

// TestRates has 10 a second for 20 minutes, and then none.
func TestRates(t *testing.T) {
	var m meter.Meter
	now := start
	for range 20 * 60 * 10 {
		now = now.Add(100 * time.Millisecond)
		m.Add(now, 0)
	}
	near := func(name string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > want/20 {
			t.Errorf("%s is %.2f, not about %.2f", name, got, want)
		}
	}
	got := m.Read(now)
	near("rate1", got.Rate1, 10)
	near("rate5", got.Rate5, 10*(1-math.Exp(-4)))
	got = m.Read(now.Add(5 * time.Minute))
	near("rate5 after 5 minutes of silence", got.Rate5, 10*(1-math.Exp(-4))/math.E)
	if got.Rate1 > 0.1 {
		t.Errorf("rate1 is %.2f after 5 minutes of silence", got.Rate1)
	}
}

// TestNewestCount has the percentiles follow what is new.
func TestNewestCount(t *testing.T) {
	var m meter.Meter
	for range 10_000 {
		m.Add(start, time.Hour)
	}
	for i := range 512 {
		m.Add(start, time.Duration(i)*time.Millisecond)
	}
	got := m.Read(start)
	if got.P50 != 256e6 || got.P90 != 460e6 {
		t.Errorf("p50 is %v and p90 %v of 0…511 ms", time.Duration(got.P50), time.Duration(got.P90))
	}
}
