//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wgexpose/wgexpose/bench/load"
)

// TestMain lets this test program play the roles that the benchmarks start.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// tiny is a configuration whose measurements take no time, and mean nothing.
func tiny(t *testing.T, binary string, args ...string) config {
	t.Helper()
	cfg, err := parseFlags(append([]string{
		"-wgexpose", binary, "-out", t.TempDir(), "-rounds", "1", "-quick", "-time", "100ms", "-streams", "2", "-hold", "100ms",
		"-idle-conns", "20", "-connect-time", "200ms", "-data", "0.01", "-churn", "100", "-link-time", "100ms",
	}, args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// leftovers are directories of rigs.
func leftovers(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(os.TempDir(), "wgexpose-bench-*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestReferencePathsWorkAndLeaveNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	r, err := newRig(t.Context(), tiny(t, os.Args[0]), loopback, pathNetstack, pathPlain)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range r.paths {
		for _, up := range []bool{false, true} {
			a, err := r.job(t.Context(), p, load.Job{Bulk: &load.Bulk{Addr: p.tcp, Up: up, Streams: 2, For: time.Minute, Until: 1 << 20, Control: r.control}})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if a.Bulk.Bytes < 1<<20 {
				t.Errorf("%s moved %d bytes", name, a.Bulk.Bytes)
			}
			for process := range p.pids {
				if _, ok := a.Usage.CPU[process]; !ok {
					t.Errorf("%s: no processor time of %s in %v", name, process, a.Usage.CPU)
				}
			}
		}
	}
	pids := r.paths[pathNetstack].pids
	if err := r.close(); err != nil {
		t.Error(err)
	}
	for name, pid := range pids {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	if left := leftovers(t); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

func TestRigThatFailsLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	// This program does not know "edge", so the edge ends at once.
	_, err := newRig(t.Context(), tiny(t, os.Args[0]), loopback, pathPlain, pathWgexpose)
	if err == nil || !strings.Contains(err.Error(), "wgexpose edge") {
		t.Errorf("the error is %v, want one about the edge", err)
	}
	if left := leftovers(t); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

func TestInterruptedRunKeepsWhatItHas(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cfg := tiny(t, buildProgram(t), "-only", "bulk", "-time", "20s")
	s := &session{config: cfg, report: newReport(cfg, nil), out: io.Discard}
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	cancel(why)
	if err := <-ended; !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if err := s.finish(); err != nil {
		t.Error(err)
	}
	if s.report.Complete {
		t.Error("the report says that it is complete")
	}
	if left := leftovers(t); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// buildProgram builds wgexpose.
func buildProgram(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and runs wgexpose")
	}
	binary := filepath.Join(t.TempDir(), "wgexpose")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/wgexpose")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// TestAllCases runs everything once, far too short to measure anything.
func TestAllCases(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	cfg := tiny(t, buildProgram(t))
	var out strings.Builder
	s := &session{config: cfg, report: newReport(cfg, nil), out: &out}
	if err := s.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if err := s.finish(); err != nil {
		t.Fatal(err)
	}
	for _, name := range caseNames() {
		if len(s.report.variants(name)) == 0 {
			t.Errorf("case %s has no samples", name)
		}
	}
	have := make(map[string]Row)
	for _, row := range s.report.Rows {
		have[row.What] = row
	}
	for _, what := range []string{"bulk down 2", "bulk up 2", "echo idle p50", "echo beside bulk down p99"} {
		if row := have[what]; row.Wgexpose == nil || row.Netstack == nil || row.Plain == nil || row.ToNetstack == nil || row.ToPlain == nil {
			t.Errorf("%s: a value is missing in %+v", what, row)
		}
	}
	if row := have["https 1 KiB"]; row.Wgexpose == nil || row.ToPlain == nil {
		t.Errorf("https: a value is missing in %+v", row)
	}
	if left := leftovers(t); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

func TestLinkRun(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces take root")
	}
	t.Setenv("TMPDIR", t.TempDir())
	cfg := tiny(t, buildProgram(t), "-link", "-rtt", "4ms", "-loss", "0")
	var out strings.Builder
	s := &session{config: cfg, report: newReport(cfg, nil), out: &out}
	if err := s.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, path := range []string{pathWgexpose, pathPlain} {
		v := s.report.median("link", linkParams(4*time.Millisecond, 0, 2), path, "mbps")
		// No more than the link carries, and something.
		if !(v > 0 && v <= 200) {
			t.Errorf("%s: %v Mbit/s over a link of 200", path, v)
		}
	}
	if left := leftovers(t); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}
