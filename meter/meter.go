// Package meter counts and times what passes: connections, or requests.
//
//	var m meter.Meter
//	m.Begin(time.Now())
//	…
//	m.End(took)
//	fmt.Println(m.Read(time.Now()).P50)
//
// A Meter takes a few hundred bytes, 4 KiB once it has timed anything, and some
// ten nanoseconds for each event, however many there are.
package meter

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Metrics are what a Meter has to say. Rates are per second, averaged with
// exponential decay over 1, 5 and 15 minutes; percentiles are of the newest
// 512, in nanoseconds.
type Metrics struct {
	Count  int64   `json:"count"`
	Gauge  int64   `json:"gauge"` // open now
	Rate1  float64 `json:"rate1"`
	Rate5  float64 `json:"rate5"`
	Rate15 float64 `json:"rate15"`
	P50    float64 `json:"p50"`
	P90    float64 `json:"p90"`
	P95    float64 `json:"p95"`
	P99    float64 `json:"p99"`
}

// windows are those of the rates, in seconds.
var windows = [3]float64{60, 300, 900}

// maxTimes is how many durations are kept.
const maxTimes = 512

// Meter counts one kind of thing. Its zero value is ready, and its methods may be
// called beside each other.
type Meter struct {
	mu    sync.Mutex // guards all below
	count int64
	open  int64
	last  time.Time // when rates were right
	rates [3]float64
	times []time.Duration // a ring of the newest
	next  int
}

// Begin counts something that goes on until End.
func (m *Meter) Begin(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open++
	m.addLocked(now)
}

// End times something that Begin counted.
func (m *Meter) End(took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open--
	m.tookLocked(took)
}

// Add counts and times something that is over.
func (m *Meter) Add(now time.Time, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.addLocked(now)
	m.tookLocked(took)
}

// Read tells how it is by now.
func (m *Meter) Read(now time.Time) Metrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.decayLocked(now)
	out := Metrics{Count: m.count, Gauge: m.open, Rate1: m.rates[0], Rate5: m.rates[1], Rate15: m.rates[2]}
	if len(m.times) > 0 {
		sorted := slices.Sorted(slices.Values(m.times))
		at := func(p float64) float64 { return float64(sorted[int(p*float64(len(sorted)-1)+0.5)]) }
		out.P50, out.P90, out.P95, out.P99 = at(0.5), at(0.9), at(0.95), at(0.99)
	}
	return out
}

func (m *Meter) addLocked(now time.Time) {
	m.decayLocked(now)
	m.count++
	for i, w := range windows {
		m.rates[i] += 1 / w
	}
}

// decayLocked brings the rates up to now. Each event adds what the decay takes
// away over the window, so that a steady stream of them reads as its rate.
func (m *Meter) decayLocked(now time.Time) {
	past := now.Sub(m.last).Seconds()
	if past <= 0 {
		return
	}
	m.last = now
	for i, w := range windows {
		if m.rates[i] > 0 {
			m.rates[i] *= math.Exp(-past / w)
		}
	}
}

func (m *Meter) tookLocked(d time.Duration) {
	if len(m.times) < maxTimes {
		m.times = append(m.times, d)
		return
	}
	m.times[m.next] = d
	m.next = (m.next + 1) % maxTimes
}
