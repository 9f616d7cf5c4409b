//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/bench/load"
)

func parse(t *testing.T, args ...string) (config, error) {
	t.Helper()
	return parseFlags(append([]string{"-wgexpose", os.Args[0]}, args...), io.Discard)
}

func TestFlags(t *testing.T) {
	full, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if full.rounds != 5 || full.connects != 30*time.Second || full.churn != 100_000 || len(full.streams) != 3 || len(full.paths) != 3 {
		t.Errorf("a full run is %+v", full)
	}
	quick, err := parse(t, "-quick", "-only", "bulk,echo", "-streams", "2", "-time", "2s")
	if err != nil {
		t.Fatal(err)
	}
	if quick.rounds != 1 || quick.duration != 2*time.Second || strings.Join(quick.only, " ") != "bulk echo" || quick.streams[0] != 2 {
		t.Errorf("that quick run is %+v", quick)
	}
	overLink, err := parse(t, "-link", "-rtt", "0,7ms", "-loss", "0,0.5%", "-rate", "50")
	if err != nil {
		t.Fatal(err)
	}
	if overLink.rate != 50e6 || overLink.rtts[1] != 7*time.Millisecond || overLink.losses[1] != 0.005 || len(overLink.paths) != 2 {
		t.Errorf("that link is %+v", overLink)
	}
	for _, bad := range [][]string{
		{"-only", "bulks"}, {"-streams", "0"}, {"-streams", "x"}, {"-streams", ","}, {"-rounds", "-1"}, {"-loss", "101"}, {"-rtt", "-1s"},
		{"-paths", "plain"}, {"-paths", "wgexpose,other"}, {"-rate", "0"}, {"-data", "-1"}, {"extra"}, {"-wgexpose", "/nowhere"},
	} {
		if _, err := parse(t, bad...); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

// sampled is a report with samples of one metric, by path and round.
func sampled(name, params, metric string, byPath map[string][]float64) *Report {
	r := &Report{}
	for path, values := range byPath {
		for round, v := range values {
			r.add(Sample{Case: name, Params: params, Path: path, Round: round, Values: map[string]float64{metric: v}},
				&load.Usage{CPU: map[string]float64{"edge": 2 * v}})
		}
	}
	return r
}

func TestRatiosAreWithinARound(t *testing.T) {
	// The machine was twice as fast in the second round, for both.
	r := sampled("bulk", "down 1", "gbps", map[string][]float64{pathWgexpose: {4, 8, 6}, pathNetstack: {1, 2, 1}})
	if got := r.ratio("bulk", "down 1", "gbps", pathWgexpose, pathNetstack); got != 4 {
		t.Errorf("ratio %v, want 4", got)
	}
	if got := r.median("bulk", "down 1", pathWgexpose, "gbps"); got != 6 {
		t.Errorf("median %v, want 6", got)
	}
	if got := r.cpuPer("bulk", "down 1", pathWgexpose, "edge", "gbps"); got != 2 {
		t.Errorf("processor time per unit %v, want 2", got)
	}
	if got := r.ratio("bulk", "down 8", "gbps", pathWgexpose, pathNetstack); !math.IsNaN(got) {
		t.Errorf("a ratio of nothing is %v", got)
	}
}

// Other builds are compared round by round, and a name means one path.
func TestAgainst(t *testing.T) {
	before := filepath.Join(t.TempDir(), "before")
	if err := os.WriteFile(before, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := config{paths: []string{pathWgexpose}}
	if err := c.findOthers([]string{before}); err != nil || !slices.Equal(c.paths, []string{pathWgexpose, "before"}) || c.against["before"] != before {
		t.Errorf("paths %v, against %v: %v", c.paths, c.against, err)
	}
	for _, name := range []string{"before", pathPlain, "missing"} {
		file := filepath.Join(filepath.Dir(before), name)
		if name != "missing" {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := config{paths: []string{pathWgexpose, "before"}}
		if err := c.findOthers([]string{file}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}

	r := sampled("bulk", "down 1", "gbps", map[string][]float64{pathWgexpose: {4, 8, 6}, "before": {2, 2, 6}})
	var line strings.Builder
	r.compare(&line, metrics[0], "down 1", "before")
	if got, want := line.String(), "bulk down 1\tGbit/s\t6\t2\t2\t2 4 1\t\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	line.Reset()
	if r.compare(&line, metrics[0], "down 1", "other"); line.Len() > 0 {
		t.Errorf("a build that was not measured: %q", line.String())
	}
}

func TestValuesKeepTheirRound(t *testing.T) {
	r := &Report{}
	for round, v := range []float64{1, math.NaN(), 3} {
		r.add(Sample{Case: "c", Path: "p", Round: round, Values: map[string]float64{"m": v}}, nil)
	}
	got := r.values("c", "", "p", "m")
	if len(got) != 3 || got[0] != 1 || !math.IsNaN(got[1]) || got[2] != 3 {
		t.Errorf("values %v, want 1 NaN 3", got)
	}
}

func TestConclusionAndItsFile(t *testing.T) {
	r := sampled("bulk", "down 1", "gbps", map[string][]float64{pathWgexpose: {4.4}, pathNetstack: {1}, pathPlain: {20}})
	r.add(Sample{Case: "idle", Path: pathWgexpose, Values: map[string]float64{"edge_kib": 26, "lost": 0}}, nil)
	r.Started = time.Unix(0, 0)
	r.conclude()
	verdicts := make(map[string]bool)
	for _, v := range r.Targets {
		verdicts[v.What] = v.Reached
	}
	want := map[string]bool{"bulk down 1, against netstack": true, "idle connection in the edge, KiB": false, "idle connections lost": true}
	if len(verdicts) != len(want) {
		t.Errorf("verdicts %v, want %v", verdicts, want)
	}
	for what, reached := range want {
		if got, ok := verdicts[what]; !ok || got != reached {
			t.Errorf("%s: %v, %v; want %v", what, got, ok, reached)
		}
	}
	var table strings.Builder
	if err := r.print(&table); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^bulk down 1 +Gbit/s +4\.4 +1 +20 +4\.4 +0\.22`).MatchString(table.String()) {
		t.Errorf("the table is\n%s", table.String())
	}
	name, err := r.write(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var again Report
	if err := json.Unmarshal(b, &again); err != nil || len(again.Samples) != 4 || len(again.Rows) != len(r.Rows) {
		t.Errorf("%d samples and %d rows were read back, %v", len(again.Samples), len(again.Rows), err)
	}
}

func TestMemoryIsJudgedOnlyAfterEnough(t *testing.T) {
	judged := func(done float64) int {
		r := &Report{}
		r.add(Sample{Case: "memory", Params: "churn", Path: pathWgexpose, Values: map[string]float64{"done": done, "edge_growth": 1, "agent_growth": 2}}, nil)
		r.conclude()
		return len(r.Targets)
	}
	if n := judged(20_000); n != 0 {
		t.Errorf("%d verdicts after 20,000 connections", n)
	}
	if n := judged(100_000); n != 2 {
		t.Errorf("%d verdicts after 100,000 connections, want 2", n)
	}
}

func TestEveryMetricAndTargetNamesACase(t *testing.T) {
	known := strings.Join(append(caseNames(), "link"), " ")
	for _, m := range metrics {
		if !strings.Contains(known, m.name) {
			t.Errorf("a metric of %q, which is no case", m.name)
		}
	}
	empty := &Report{}
	for _, target := range targets() {
		if v := target.value(empty); !math.IsNaN(v) {
			t.Errorf("%q is %v though nothing was measured", target.what, v)
		}
	}
}

func TestBestSecond(t *testing.T) {
	var series []load.Point
	// 1 byte/s for 2 s, 100 for 1 s, 1 for 2 s, 1000 thereafter.
	total := int64(0)
	for i := 1; i <= 70; i++ {
		switch {
		case i <= 20:
			total += 1
		case i <= 30:
			total += 100
		case i <= 50:
			total += 1
		default:
			total += 1000
		}
		series = append(series, load.Point{Seconds: float64(i) / 10, Bytes: total})
	}
	// Readings may be a hair off, so a second is at least one.
	if got := best(series, 5*time.Second); got < 7000 || got > 8000 {
		t.Errorf("best within 5 s is %v bit/s, want about 8000", got)
	}
	if got := best(series, 7*time.Second); got < 70_000 || got > 80_000 {
		t.Errorf("best within 7 s is %v bit/s, want about 80000", got)
	}
	if got := best(series[:5], 5*time.Second); got != 0 {
		t.Errorf("best of half a second is %v", got)
	}
}

func TestRoleEndsWithItsInput(t *testing.T) {
	started := make(chan string, 1)
	serve := role(func(ctx context.Context, name string, ready func(int) error) error {
		started <- name
		if err := ready(7); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	in, feed := io.Pipe()
	var out bytes.Buffer
	ended := make(chan error, 1)
	go func() { ended <- serve(context.Background(), in, &out) }()
	if _, err := io.WriteString(feed, "\"me\"\n"); err != nil {
		t.Fatal(err)
	}
	if name := <-started; name != "me" {
		t.Errorf("the configuration was %q", name)
	}
	feed.Close()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "standard input") {
		t.Errorf("it ended with %v", err)
	}
	if out.String() != "7\n" {
		t.Errorf("it told %q", out.String())
	}
}

// TestSameVersions: only the TUN may differ between the reference and the
// product.
func TestSameVersions(t *testing.T) {
	version := func(file, module string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(module) + ` (\S+)`).FindSubmatch(b)
		if m == nil {
			t.Fatalf("%s does not require %s", file, module)
		}
		return string(m[1])
	}
	for _, module := range []string{"golang.zx2c4.com/wireguard", "gvisor.dev/gvisor", "golang.org/x/crypto"} {
		if ours, theirs := version("go.mod", module), version("../go.mod", module); ours != theirs {
			t.Errorf("%s: %s here, %s in the product", module, ours, theirs)
		}
	}
}
