// Package stats reduces repeated measurements to the numbers that are shown.
//
//	l := stats.Summarize(roundTrips)
//	fmt.Println(l.P50, l.P99)
//	ratio := stats.Median(stats.Ratios(ours, theirs))
//
// Quantiles are by nearest rank, so that each is a value that was measured.
package stats

import (
	"math"
	"slices"
	"time"
)

// Quantile returns the q-quantile (0 ≤ q ≤ 1) of sorted by nearest rank: the
// smallest value that at least q of all values do not exceed. It is NaN for no
// values.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[rank(len(sorted), q)]
}

// rank is the index of the q-quantile of n sorted values.
func rank(n int, q float64) int {
	return min(max(int(math.Ceil(q*float64(n)))-1, 0), n-1)
}

// Median returns the middle value, or the mean of the middle two; NaN for no
// values. NaNs among the values are left out.
func Median(values []float64) float64 {
	v := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	middle := len(v) / 2
	if len(v)%2 == 1 {
		return v[middle]
	}
	return (v[middle-1] + v[middle]) / 2
}

// Ratios returns a[i]/b[i] of each round. What surrounds a measurement
// changes over time, and two halves of one round share it, so the median of
// these is steadier than the ratio of two medians. A zero in b gives NaN.
func Ratios(a, b []float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = math.NaN()
		if b[i] != 0 {
			out[i] = a[i] / b[i]
		}
	}
	return out
}

// Latency sums up durations, in microseconds.
type Latency struct {
	N    int     `json:"n"`
	Mean float64 `json:"mean_us"`
	P50  float64 `json:"p50_us"`
	P90  float64 `json:"p90_us"`
	P99  float64 `json:"p99_us"`
	Max  float64 `json:"max_us"`
}

// Summarize sorts samples and sums them up. Without samples N is 0 and so is
// all else.
func Summarize(samples []time.Duration) Latency {
	n := len(samples)
	if n == 0 {
		return Latency{}
	}
	slices.Sort(samples)
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	sum := 0.0
	for _, d := range samples {
		sum += us(d)
	}
	return Latency{
		N: n, Mean: sum / float64(n),
		P50: us(samples[rank(n, 0.5)]), P90: us(samples[rank(n, 0.9)]), P99: us(samples[rank(n, 0.99)]),
		Max: us(samples[n-1]),
	}
}
