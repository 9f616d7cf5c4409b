//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/wgexpose/wgexpose/bench/stats"
)

// Row is one line of the table.
type Row struct {
	What string `json:"what"`
	Unit string `json:"unit"`
	// Medians over the rounds, absent where it was not measured.
	Wgexpose *float64 `json:"wgexpose,omitempty"`
	Netstack *float64 `json:"netstack,omitempty"`
	Plain    *float64 `json:"plain,omitempty"`
	// Medians over the rounds of wgexpose's value divided by the other's in
	// the same round.
	ToNetstack *float64 `json:"to_netstack,omitempty"`
	ToPlain    *float64 `json:"to_plain,omitempty"`
	Note       string   `json:"note,omitempty"`
}

// metric is a line that a case has for each of its variants.
type metric struct {
	name  string // case
	key   string // of Sample.Values
	label string // after the case and its params
	unit  string
	note  func(r *Report, params string) string
}

// metrics are the lines of the table, by case in order.
var metrics = []metric{
	{"bulk", "gbps", "", "Gbit/s", cpuNote("gb", "s/GB")},
	{"echo", "p50_us", "p50", "µs", nil},
	{"echo", "p99_us", "p99", "µs", transferNote},
	{"echo", "out_p50_us", "p50 outside", "µs", nil},
	{"echo", "out_p99_us", "p99 outside", "µs", nil},
	{"connect", "per_second", "", "1/s", failedNote},
	{"connect", "failed", "failed", "", nil},
	{"connect", "p99_us", "p99", "µs", nil},
	{"https", "per_second", "", "1/s", cpuNote("k", "s/1000")},
	{"https", "p50_us", "p50", "µs", nil},
	{"https", "p99_us", "p99", "µs", nil},
	{"first", "p50_us", "p50", "µs", nil},
	{"first", "p99_us", "p99", "µs", nil},
	{"handshake", "per_second", "", "1/s", nil},
	{"handshake", "p50_us", "p50", "µs", nil},
	{"idle", "edge_kib", "edge, each connection", "KiB", memoryNote("edge")},
	{"idle", "agent_kib", "agent, each connection", "KiB", memoryNote("agent")},
	{"idle", "lost", "lost", "", nil},
	{"memory", "edge_growth", "edge, later half to first", "×", growthNote("edge")},
	{"memory", "agent_growth", "agent, later half to first", "×", growthNote("agent")},
	{"link", "mbps", "", "Mbit/s", linkNote},
}

// rows makes the table of what was measured: case by case, all metrics of a
// variant together.
func (r *Report) rows() []Row {
	var out []Row
	last := ""
	for _, m := range metrics {
		if m.name == last {
			continue
		}
		last = m.name
		for _, params := range r.variants(m.name) {
			for _, k := range metrics {
				if k.name != m.name {
					continue
				}
				if row, ok := r.row(k, params); ok {
					out = append(out, row)
				}
			}
		}
	}
	return out
}

// row makes one line; false when wgexpose has no such value.
func (r *Report) row(m metric, params string) (Row, bool) {
	what := strings.Join(nonEmpty(m.name, params, m.label), " ")
	row := Row{
		What: what, Unit: m.unit,
		Wgexpose:   number(r.median(m.name, params, pathWgexpose, m.key)),
		Netstack:   number(r.median(m.name, params, pathNetstack, m.key)),
		Plain:      number(r.median(m.name, params, pathPlain, m.key)),
		ToNetstack: number(r.ratio(m.name, params, m.key, pathWgexpose, pathNetstack)),
		ToPlain:    number(r.ratio(m.name, params, m.key, pathWgexpose, pathPlain)),
	}
	if m.note != nil {
		row.Note = m.note(r, params)
	}
	return row, row.Wgexpose != nil
}

func nonEmpty(texts ...string) []string {
	var out []string
	for _, t := range texts {
		if t != "" {
			out = append(out, t)
		}
	}
	return out
}

// number is a value, or nil for one that JSON cannot have.
func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// cpuNote tells the processor time that each process of wgexpose used.
func cpuNote(per, unit string) func(*Report, string) string {
	return func(r *Report, params string) string {
		name := "bulk"
		if per == "k" {
			name = "https"
		}
		var parts []string
		for _, process := range []string{"edge", "agent", "origin", "load"} {
			if v := r.cpuPer(name, params, pathWgexpose, process, per); !math.IsNaN(v) {
				parts = append(parts, fmt.Sprintf("%s %.2f", process, v))
			}
		}
		if len(parts) == 0 {
			return ""
		}
		return "cpu " + unit + ": " + strings.Join(parts, ", ") + r.disturbance(name, params)
	}
}

// disturbance says when other programs took part of the machine meanwhile.
func (r *Report) disturbance(name, params string) string {
	worst := 0.0
	for _, s := range r.Samples {
		if s.Case == name && s.Params == params {
			worst = max(worst, s.Others)
		}
	}
	if worst < 0.15 {
		return ""
	}
	return fmt.Sprintf("; others used up to %.1f cpu", worst)
}

func transferNote(r *Report, params string) string {
	v := r.median("echo", params, pathWgexpose, "gbps")
	if math.IsNaN(v) {
		return ""
	}
	return fmt.Sprintf("beside %.2f Gbit/s; netstack beside %.2f", v, r.median("echo", params, pathNetstack, "gbps")) + r.disturbance("echo", params)
}

func failedNote(r *Report, params string) string {
	return fmt.Sprintf("%.0f completed, %.0f failed", r.median("connect", params, pathWgexpose, "completed"),
		r.median("connect", params, pathWgexpose, "failed")) + r.disturbance("connect", params)
}

func memoryNote(side string) func(*Report, string) string {
	return func(r *Report, params string) string {
		value := func(key string) float64 { return r.median("idle", params, pathWgexpose, side+key) }
		return fmt.Sprintf("when opened %.1f, peak %.1f; %.1f MiB before", value("_opened_kib"), value("_peak_kib"), value("_baseline_mib"))
	}
}

func growthNote(side string) func(*Report, string) string {
	return func(r *Report, params string) string {
		var steps []string
		for i := range memorySteps {
			steps = append(steps, fmt.Sprintf("%.1f", r.median("memory", params, pathWgexpose, fmt.Sprintf("%s_mib_%d", side, i+1))))
		}
		return fmt.Sprintf("MiB: %s; %.0f done", strings.Join(steps, " "), r.median("memory", params, pathWgexpose, "done"))
	}
}

func linkNote(r *Report, params string) string {
	value := func(path, key string) float64 { return 100 * r.median("link", params, path, key) }
	return fmt.Sprintf("wire %.0f %%, plain %.0f %%; best second of the first 5: %.0f %%, plain %.0f %%",
		value(pathWgexpose, "wire_share"), value(pathPlain, "wire_share"),
		value(pathWgexpose, "first_5s"), value(pathPlain, "first_5s")) + r.disturbance("link", params)
}

// print writes the table for people.
func (r *Report) print(out io.Writer) error {
	fmt.Fprintf(out, "\n%s\n\n", r.Machine)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "medians\tunit\twgexpose\tnetstack\tplain\t÷netstack\t÷plain\t")
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.What, row.Unit,
			show(row.Wgexpose), show(row.Netstack), show(row.Plain), show(row.ToNetstack), show(row.ToPlain), row.Note)
	}
	for _, other := range r.Against {
		fmt.Fprintf(w, "\nagainst %s\tunit\twgexpose\t%[1]s\twgexpose ÷ %[1]s\tof each round\t\n", other)
		for _, m := range metrics {
			for _, params := range r.variants(m.name) {
				r.compare(w, m, params, other)
			}
		}
	}
	fmt.Fprintln(w)
	for i, v := range r.Targets {
		if i == 0 {
			fmt.Fprintln(w, "target\t\treach\tmeasured\t\t")
		}
		verdict := "missed"
		if v.Reached {
			verdict = "reached"
		}
		fmt.Fprintf(w, "%s\t\t%s %s\t%s\t%s\t\n", v.What, v.Relation, show(&v.Bound), show(&v.Measured), verdict)
	}
	return w.Flush()
}

// compare writes the line of a metric of two builds, if both were measured.
func (r *Report) compare(out io.Writer, m metric, params, other string) {
	ours, theirs := r.values(m.name, params, pathWgexpose, m.key), r.values(m.name, params, other, m.key)
	ratio := number(stats.Median(stats.Ratios(ours, theirs)))
	if ratio == nil {
		return
	}
	var rounds []string
	for _, v := range stats.Ratios(ours, theirs) {
		rounds = append(rounds, show(number(v)))
	}
	fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t\n", strings.Join(nonEmpty(m.name, params, m.label), " "), m.unit,
		show(number(stats.Median(ours))), show(number(stats.Median(theirs))), show(ratio), strings.Join(rounds, " "))
}

// show writes a number with about three digits that matter.
func show(v *float64) string {
	switch {
	case v == nil:
		return "-"
	case math.Abs(*v) >= 100, *v == math.Trunc(*v):
		return fmt.Sprintf("%.0f", *v)
	case math.Abs(*v) >= 10:
		return fmt.Sprintf("%.1f", *v)
	}
	return fmt.Sprintf("%.3g", *v)
}
