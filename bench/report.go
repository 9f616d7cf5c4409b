//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/bench/load"
	"github.com/wgexpose/wgexpose/bench/procfs"
	"github.com/wgexpose/wgexpose/bench/stats"
)

// Sample is one measurement.
type Sample struct {
	Case   string    `json:"case"`
	Params string    `json:"params"` // what was varied, such as "down 8"
	Path   string    `json:"path"`
	Round  int       `json:"round"`
	At     time.Time `json:"at"`
	// Values by metric, such as "gbps" or "p99_us".
	Values map[string]float64 `json:"values"`
	// CPU is processor seconds by process.
	CPU map[string]float64 `json:"cpu,omitempty"`
	// Others is how many processors everything else took at that time, and
	// Load the machine's load average: whether to trust the sample.
	Others float64           `json:"others"`
	Load   float64           `json:"load"`
	Series []load.Point      `json:"series,omitempty"`
	Notes  map[string]string `json:"notes,omitempty"`
}

// Report is a run.
type Report struct {
	Machine  Machine   `json:"machine"`
	Args     []string  `json:"args"`
	Started  time.Time `json:"started"`
	Against  []string  `json:"against,omitempty"` // other builds, by the names of their paths
	Seconds  float64   `json:"seconds"`
	Samples  []Sample  `json:"samples"`
	Rows     []Row     `json:"rows"`
	Targets  []Verdict `json:"targets"`
	Complete bool      `json:"complete"` // false when the run failed or was interrupted
}

func newReport(cfg config, args []string) *Report {
	return &Report{Args: append([]string{}, args...), Started: time.Now(), Against: slices.Sorted(maps.Keys(cfg.against))}
}

// add notes a sample, and what disturbed it.
func (r *Report) add(s Sample, usage *load.Usage) {
	s.At = time.Now()
	if usage != nil {
		s.CPU, s.Others = usage.CPU, usage.Others
	}
	// Without it the sample is as good; /proc was readable at the start.
	s.Load, _ = procfs.LoadAverage()
	for metric, v := range s.Values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			delete(s.Values, metric) // JSON has no such numbers
		}
	}
	r.Samples = append(r.Samples, s)
}

// values returns a metric of all rounds, by round; NaN where it was not
// measured.
func (r *Report) values(name, params, path, metric string) []float64 {
	var out []float64
	for _, s := range r.Samples {
		if s.Case != name || s.Params != params || s.Path != path {
			continue
		}
		for len(out) <= s.Round {
			out = append(out, math.NaN())
		}
		if v, ok := s.Values[metric]; ok {
			out[s.Round] = v
		}
	}
	return out
}

// median over the rounds; NaN if it was never measured.
func (r *Report) median(name, params, path, metric string) float64 {
	return stats.Median(r.values(name, params, path, metric))
}

// ratio is the median over the rounds of the ratio within each.
func (r *Report) ratio(name, params, metric, path, other string) float64 {
	return stats.Median(stats.Ratios(r.values(name, params, path, metric), r.values(name, params, other, metric)))
}

// within is the median over the rounds of one metric to another of the same
// samples.
func (r *Report) within(name, params, path, metric, other string) float64 {
	return stats.Median(stats.Ratios(r.values(name, params, path, metric), r.values(name, params, path, other)))
}

// cpuPer is the median over the rounds of a process's processor seconds per
// unit of a metric.
func (r *Report) cpuPer(name, params, path, process, metric string) float64 {
	var out []float64
	for _, s := range r.Samples {
		cpu, ok := s.CPU[process]
		if s.Case != name || s.Params != params || s.Path != path || !ok || s.Values[metric] == 0 {
			continue
		}
		out = append(out, cpu/s.Values[metric])
	}
	return stats.Median(out)
}

// variants lists the params of a case in the order they were measured.
func (r *Report) variants(name string) []string {
	var out []string
	for _, s := range r.Samples {
		if s.Case == name && !slices.Contains(out, s.Params) {
			out = append(out, s.Params)
		}
	}
	return out
}

// write puts the report into a file of its own in dir, whose name it returns.
func (r *Report) write(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, r.Started.UTC().Format("20060102T150405Z")+".json")
	return name, os.WriteFile(name, append(b, '\n'), 0o644)
}

// Machine is what it was measured on.
type Machine struct {
	Kernel     string  `json:"kernel"`
	CPU        string  `json:"cpu"`
	CPUs       int     `json:"cpus"`
	Go         string  `json:"go"`         // that built this program
	Program    string  `json:"program"`    // what wgexpose version says
	Congestion string  `json:"congestion"` // of kernel TCP, where the processes ran
	Rmem       string  `json:"net_core_rmem_max"`
	Wmem       string  `json:"net_core_wmem_max"`
	TCPRmem    string  `json:"tcp_rmem"`
	TCPWmem    string  `json:"tcp_wmem"`
	LoadBefore float64 `json:"load_before"`
	LoadAfter  float64 `json:"load_after"`
	GOGC       string  `json:"gogc"`
	Setting    string  `json:"setting"` // loopback, or the link
}

func (m Machine) String() string {
	return fmt.Sprintf("%s on %d × %s, Linux %s\n%s; kernel TCP uses %s; GOGC %s; load average %.2f before, %.2f after",
		m.Program, m.CPUs, m.CPU, m.Kernel, m.Setting, m.Congestion, m.GOGC, m.LoadBefore, m.LoadAfter)
}

// sysctl reads a setting of the kernel; what cannot be read is shown as such.
func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b)), " ")
}
