package inspect

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Metrics count and time what passed a tunnel. Rates are per second, averaged
// with exponential decay over 1, 5 and 15 minutes; percentiles are of the
// newest 512, in nanoseconds.
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

// meters has a meter for each tunnel name.
type meters struct {
	mu     sync.Mutex // guards byName
	byName map[string]*meter
}

// maxMeters bounds names; a process serves far fewer, over all its reloads.
const maxMeters = 1024

func (m *meters) of(tunnel string) *meter {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := m.byName[tunnel]
	if found != nil {
		return found
	}
	found = new(meter)
	if m.byName == nil {
		m.byName = map[string]*meter{}
	}
	if len(m.byName) < maxMeters {
		m.byName[tunnel] = found
	}
	return found
}

type meter struct {
	mu    sync.Mutex // guards what follows
	conns series
	http  series
	open  int64
}

func (m *meter) opened() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open++
	m.conns.add(time.Now())
}

func (m *meter) closed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open--
}

func (m *meter) exchange(at time.Time, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.http.add(at)
	m.http.took(took)
}

func (m *meter) metrics(now time.Time) (conns, http Metrics) {
	m.mu.Lock()
	defer m.mu.Unlock()
	conns, http = m.conns.metrics(now), m.http.metrics(now)
	conns.Gauge = m.open
	return conns, http
}

// series counts events and keeps decayed rates of them.
type series struct {
	count int64
	last  time.Time
	rates [3]float64
	times []time.Duration // a ring of the newest
	next  int
}

// windows are those of the rates, in seconds.
var windows = [3]float64{60, 300, 900}

const maxTimes = 512

func (s *series) add(at time.Time) {
	s.decay(at)
	s.count++
	for i, w := range windows {
		s.rates[i] += 1 / w
	}
}

func (s *series) decay(at time.Time) {
	past := at.Sub(s.last).Seconds()
	if past <= 0 {
		return
	}
	s.last = at
	for i, w := range windows {
		if s.rates[i] > 0 {
			s.rates[i] *= math.Exp(-past / w)
		}
	}
}

func (s *series) took(d time.Duration) {
	if len(s.times) < maxTimes {
		s.times = append(s.times, d)
		return
	}
	s.times[s.next] = d
	s.next = (s.next + 1) % maxTimes
}

func (s *series) metrics(now time.Time) Metrics {
	s.decay(now)
	m := Metrics{Count: s.count, Rate1: s.rates[0], Rate5: s.rates[1], Rate15: s.rates[2]}
	if len(s.times) > 0 {
		sorted := slices.Sorted(slices.Values(s.times))
		at := func(p float64) float64 { return float64(sorted[int(p*float64(len(sorted)-1)+0.5)]) }
		m.P50, m.P90, m.P95, m.P99 = at(0.5), at(0.9), at(0.95), at(0.99)
	}
	return m
}
