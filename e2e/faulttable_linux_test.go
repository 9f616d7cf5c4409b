package e2e

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// maxFalseUp is how long the status may lag behind.
const maxFalseUp = 5 * time.Second

type result struct {
	fault          fault
	lost, dead     int
	stalls, served []time.Duration
	before, after  [2]int64
	falseUp        time.Duration
}

// results print as a table.
type results []result

func (rs results) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "FAULT\tTIMES\tLOST\tENDED\tTYPIST WAITS (p50 p95 max)\tSERVED AGAIN (p50 p95 max)\tGOAL\tMET\tAGENT MiB\tEDGE MiB\tFALSE UP")
	for _, r := range rs {
		times := max(len(r.stalls), len(r.served))
		goal, met := "-", "-"
		if r.fault.goal > 0 {
			measured, what := r.stalls, "typist"
			if r.fault.served {
				measured, what = r.served, "served"
			}
			goal, met = fmt.Sprintf("%s %v", what, r.fault.goal), "yes"
			if percentile(measured, 95) > r.fault.goal {
				met = "NO"
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%.1f s\n", r.fault.name, times, r.lost, r.dead,
			spread(r.stalls), spread(r.served), goal, met, growthOf(r.before[0], r.after[0]), growthOf(r.before[1], r.after[1]), r.falseUp.Seconds())
	}
	w.Flush()
	return b.String()
}

// pairOf is the agent's and the edge's.
func pairOf(m [2]int64) string {
	return fmt.Sprintf("%.0f and %.0f", float64(m[0])/(1<<20), float64(m[1])/(1<<20))
}

func growthOf(before, after int64) string {
	return fmt.Sprintf("%.0f→%.0f", float64(before)/(1<<20), float64(after)/(1<<20))
}

func spread(ds []time.Duration) string {
	if len(ds) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f %.2f %.2f s", percentile(ds, 50).Seconds(), percentile(ds, 95).Seconds(), slices.Max(ds).Seconds())
}

func percentile(ds []time.Duration, p int) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(ds))
	return sorted[(len(sorted)*p+99)/100-1]
}
