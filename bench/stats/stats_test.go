package stats

import (
	"math"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{math.NaN(), 7, math.NaN()}, 7},
	} {
		if got := Median(c.values); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
	for _, none := range [][]float64{nil, {math.NaN()}} {
		if got := Median(none); !math.IsNaN(got) {
			t.Errorf("Median(%v) = %v, want NaN", none, got)
		}
	}
}

func TestMedianKeepsItsArgument(t *testing.T) {
	values := []float64{3, math.NaN(), 1}
	Median(values)
	if values[0] != 3 || !math.IsNaN(values[1]) || values[2] != 1 {
		t.Errorf("the argument became %v", values)
	}
}

func TestQuantileIsNearestRank(t *testing.T) {
	var ten []float64
	for i := range 10 {
		ten = append(ten, float64(i+1))
	}
	for q, want := range map[float64]float64{0: 1, 0.05: 1, 0.1: 1, 0.11: 2, 0.5: 5, 0.9: 9, 0.99: 10, 1: 10} {
		if got := Quantile(ten, q); got != want {
			t.Errorf("Quantile(1…10, %v) = %v, want %v", q, got, want)
		}
	}
	if got := Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("Quantile of nothing = %v, want NaN", got)
	}
}

func TestRatiosArePairedAndSurviveZero(t *testing.T) {
	got := Ratios([]float64{2, 9, 1, 4}, []float64{1, 3, 0})
	if len(got) != 3 || got[0] != 2 || got[1] != 3 || !math.IsNaN(got[2]) {
		t.Errorf("Ratios = %v, want [2 3 NaN]", got)
	}
	// The third round has no ratio, so it does not count.
	if m := Median(got); m != 2.5 {
		t.Errorf("median of the ratios = %v, want 2.5", m)
	}
}

func TestSummarize(t *testing.T) {
	var samples []time.Duration
	for i := 100; i >= 1; i-- {
		samples = append(samples, time.Duration(i)*time.Millisecond)
	}
	got := Summarize(samples)
	want := Latency{N: 100, Mean: 50500, P50: 50000, P90: 90000, P99: 99000, Max: 100000}
	if got != want {
		t.Errorf("Summarize = %+v, want %+v", got, want)
	}
	if got := Summarize(nil); got != (Latency{}) {
		t.Errorf("Summarize of nothing = %+v", got)
	}
}
