//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wgexpose/wgexpose/bench/load"
	"github.com/wgexpose/wgexpose/bench/procfs"
)

// readSides reads the memory of the edge and of the agent.
func (p *path) readSides() (map[string]procfs.Memory, error) {
	out := make(map[string]procfs.Memory)
	for _, side := range []string{"edge", "agent"} {
		m, err := procfs.ReadMemory(p.pids[side])
		if err != nil {
			return nil, fmt.Errorf("memory of the %s: %w", side, err)
		}
		out[side] = m
	}
	return out, nil
}

// wait returns after d, or with an error when ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tunnelPaths are those that have an edge and an agent.
func (s *session) tunnelPaths() []string {
	var out []string
	for _, p := range s.paths {
		// The reference is slow at this, and its memory is no target.
		if p == pathWgexpose || p == pathNetstack && !s.quick {
			out = append(out, p)
		}
	}
	return out
}

// idle holds many connections and looks at what they take.
func (s *session) idle(ctx context.Context) error {
	if err := raiseFiles(s.idleConns + 200); err != nil {
		return err
	}
	for _, name := range s.tunnelPaths() {
		if err := s.withRig(ctx, func(r *rig) error { return s.idleOnce(ctx, r, r.paths[name]) }, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (s *session) idleOnce(ctx context.Context, r *rig, p *path) error {
	// The first visitors make each process grow once; that is no cost of a
	// connection.
	warm := load.Job{Connect: &load.Connect{Addr: p.tcp, Workers: 8, For: 10 * time.Second, Count: 500, Sources: visitorAddrs}}
	if _, err := r.job(ctx, p, warm); err != nil {
		return err
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	if err := wait(ctx, s.hold/4); err != nil {
		return err
	}
	before, err := p.readSides()
	if err != nil {
		return err
	}
	started := time.Now()
	job, err := r.startJob(ctx, p, load.Job{Idle: &load.Idle{Addr: p.tcp, Conns: s.idleConns, Workers: connectWorkers}})
	if err != nil {
		return err
	}
	defer job.proc.Stop()
	if _, err := job.await(ctx, load.EventHeld); err != nil {
		return err
	}
	opened := time.Since(started)
	full, err := p.readSides()
	if err != nil {
		return err
	}
	if err := wait(ctx, s.hold); err != nil {
		return err
	}
	after, err := p.readSides()
	if err != nil {
		return err
	}
	if err := job.proc.Send("go"); err != nil {
		return err
	}
	a, err := job.await(ctx, load.EventResult)
	if err != nil {
		return err
	}
	values := map[string]float64{
		"conns": float64(s.idleConns), "alive": float64(a.Idle.Alive), "lost": float64(s.idleConns - a.Idle.Alive), "open_seconds": opened.Seconds(),
	}
	for _, side := range []string{"edge", "agent"} {
		per := func(bytes int64) float64 { return float64(bytes) / 1024 / float64(s.idleConns) }
		values[side+"_baseline_mib"] = float64(before[side].RSS) / (1 << 20)
		values[side+"_kib"] = per(after[side].RSS - before[side].RSS)
		values[side+"_opened_kib"] = per(full[side].RSS - before[side].RSS)
		values[side+"_peak_kib"] = per(after[side].Peak - before[side].RSS)
	}
	s.report.add(Sample{Case: "idle", Params: "", Path: p.name, Values: values}, a.Usage)
	s.progress("idle %-9s %d connections, %d alive; KiB each after %v: edge %.1f (peak %.1f), agent %.1f (peak %.1f)",
		p.name, s.idleConns, a.Idle.Alive, s.hold, values["edge_kib"], values["edge_peak_kib"], values["agent_kib"], values["agent_peak_kib"])
	return nil
}

// raiseFiles lets this process and those it starts have n open files.
func raiseFiles(n int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	want := limit
	want.Max = max(limit.Max, uint64(n))
	want.Cur = want.Max
	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%d open files are needed, and the limit is %d: raise it (ulimit -n), or ask for fewer with -idle-conns", n, limit.Max)
	}
	return err
}

// memorySteps is how often the memory case looks.
const memorySteps = 10

// memory moves much data, then opens many connections, and looks whether edge
// and agent grow.
func (s *session) memory(ctx context.Context) error {
	return s.withRig(ctx, func(r *rig) error {
		p := r.paths[pathWgexpose]
		err := s.watch(ctx, r, p, "data", func(step int) (float64, error) {
			a, err := r.job(ctx, p, load.Job{Bulk: &load.Bulk{
				Addr: p.tcp, Up: step%2 == 1, Streams: 8, Warmup: 0, For: 30 * time.Minute,
				Until: int64(s.data / memorySteps * 1e9), Control: r.control,
			}})
			if err != nil {
				return 0, err
			}
			return float64(a.Bulk.Bytes) / 1e9, nil
		})
		if err != nil {
			return err
		}
		return s.watch(ctx, r, p, "churn", func(int) (float64, error) {
			a, err := r.job(ctx, p, load.Job{Connect: &load.Connect{
				Addr: p.tcp, Workers: connectWorkers, For: 30 * time.Minute, Count: s.churn / memorySteps, Sources: visitorAddrs,
			}})
			if err != nil {
				return 0, err
			}
			if a.Connect.Failed > 0 {
				return 0, fmt.Errorf("%d connections failed: %v", a.Connect.Failed, a.Connect.Errors)
			}
			return float64(a.Connect.Completed), nil
		})
	}, pathWgexpose)
}

// watch does some steps and reads the memory after each.
func (s *session) watch(ctx context.Context, r *rig, p *path, what string, step func(int) (float64, error)) error {
	values := make(map[string]float64)
	done := 0.0
	for i := range memorySteps {
		n, err := step(i)
		if err != nil {
			return err
		}
		done += n
		if err := r.settle(ctx); err != nil {
			return err
		}
		sides, err := p.readSides()
		if err != nil {
			return err
		}
		for side, m := range sides {
			values[fmt.Sprintf("%s_mib_%d", side, i+1)] = float64(m.RSS) / (1 << 20)
		}
		s.progress("memory %-5s %10.1f done: edge %.1f MiB, agent %.1f MiB", what, done,
			float64(sides["edge"].RSS)/(1<<20), float64(sides["agent"].RSS)/(1<<20))
	}
	values["done"] = done
	for _, side := range []string{"edge", "agent"} {
		// A heap goes up and down with its garbage collections, so tops are
		// compared: a flat one reaches its top early.
		half := func(from, to int) (top float64) {
			for i := from; i < to; i++ {
				top = max(top, values[fmt.Sprintf("%s_mib_%d", side, i+1)])
			}
			return top
		}
		values[side+"_growth"] = half(memorySteps/2, memorySteps) / half(0, memorySteps/2)
	}
	s.report.add(Sample{Case: "memory", Params: what, Path: p.name, Values: values}, nil)
	return nil
}
