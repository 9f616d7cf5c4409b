//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wgexpose/wgexpose/bench/load"
	"github.com/wgexpose/wgexpose/bench/stats"
)

const (
	// bulkWarmup is for TCP to find its pace.
	bulkWarmup = 500 * time.Millisecond

	echoSize  = 64 // bytes of a message
	echoThink = time.Millisecond
	// besideStreams is how many connections make the transfer beside which
	// echoes are measured.
	besideStreams = 8

	// connectWorkers is how many connections are opened at a time. A tunnel
	// turns visitors away while 64 dials are under way.
	connectWorkers = 32
	visitorAddrs   = 16

	httpsConns = 32
)

func direction(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// bulk moves as much as goes through each path.
func (s *session) bulk(ctx context.Context) error {
	return s.withRig(ctx, func(r *rig) error {
		for round := range s.rounds {
			for _, streams := range s.streams {
				for _, up := range []bool{false, true} {
					for _, name := range s.turns(round) {
						if err := s.bulkOnce(ctx, r, round, r.paths[name], streams, up); err != nil {
							return err
						}
					}
				}
			}
		}
		return nil
	}, s.paths...)
}

func (s *session) bulkOnce(ctx context.Context, r *rig, round int, p *path, streams int, up bool) error {
	params := fmt.Sprintf("%s %d", direction(up), streams)
	if err := r.settle(ctx); err != nil {
		return err
	}
	a, err := r.job(ctx, p, load.Job{Bulk: &load.Bulk{
		Addr: p.tcp, Up: up, Streams: streams, Warmup: bulkWarmup, For: s.duration, Control: r.control,
	}})
	if err != nil {
		return fmt.Errorf("%s through %s: %w", params, p.name, err)
	}
	b := a.Bulk
	s.report.add(Sample{
		Case: "bulk", Params: params, Path: p.name, Round: round, Series: b.Series,
		Values: map[string]float64{"gbps": b.Gbps, "gb": float64(b.Bytes) / 1e9, "least": float64(b.Least), "most": float64(b.Most)},
	}, a.Usage)
	s.progress("bulk %-8s %-9s %7.3f Gbit/s  others %.2f", params, p.name, b.Gbps, a.Usage.Others)
	return nil
}

// echo measures round trips in an idle tunnel, then in one that is full, and
// outside of the tunnel at the same time.
func (s *session) echo(ctx context.Context) error {
	// Quantiles take longer than rates, and there are many combinations.
	duration, rounds := 2*s.duration, (s.rounds+1)/2
	ups := []bool{false, true}
	if s.quick {
		ups = ups[:1]
	}
	return s.withRig(ctx, func(r *rig) error {
		for round := range rounds {
			for _, name := range s.turns(round) {
				if err := s.echoIdle(ctx, r, round, r.paths[name], duration); err != nil {
					return err
				}
			}
			for _, up := range ups {
				for _, name := range s.turns(round) {
					if err := s.echoBeside(ctx, r, round, r.paths[name], duration, up); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}, s.paths...)
}

func latencyValues(prefix string, l stats.Latency) map[string]float64 {
	return map[string]float64{
		prefix + "n": float64(l.N), prefix + "mean_us": l.Mean,
		prefix + "p50_us": l.P50, prefix + "p90_us": l.P90, prefix + "p99_us": l.P99, prefix + "max_us": l.Max,
	}
}

func (s *session) echoIdle(ctx context.Context, r *rig, round int, p *path, duration time.Duration) error {
	if err := r.settle(ctx); err != nil {
		return err
	}
	a, err := r.job(ctx, p, load.Job{Echo: &load.Echo{
		Targets: map[string]string{"in": p.tcp}, Size: echoSize, Think: echoThink, For: duration,
	}})
	if err != nil {
		return err
	}
	l := a.Echo.Targets["in"]
	s.report.add(Sample{Case: "echo", Params: "idle", Path: p.name, Round: round, Values: latencyValues("", l)}, a.Usage)
	s.progress("echo idle %-9s p50 %.0f µs, p99 %.0f µs (%d)  others %.2f", p.name, l.P50, l.P99, l.N, a.Usage.Others)
	return nil
}

// echoBeside measures echoes beside a transfer that takes all it can get:
// through the same path, and straight to the origin.
func (s *session) echoBeside(ctx context.Context, r *rig, round int, p *path, duration time.Duration, up bool) error {
	params := "beside bulk " + direction(up)
	if err := r.settle(ctx); err != nil {
		return err
	}
	bulk, err := r.startJob(ctx, p, load.Job{Bulk: &load.Bulk{
		Addr: p.tcp, Up: up, Streams: besideStreams, Warmup: bulkWarmup, For: duration + time.Minute, Control: r.control,
	}})
	if err != nil {
		return err
	}
	defer bulk.proc.Stop()
	if _, err := bulk.await(ctx, load.EventWarm); err != nil {
		return err
	}
	targets := map[string]string{"in": p.tcp}
	if p.name != pathPlain {
		targets["out"] = r.origin.TCP
	}
	echo, err := r.job(ctx, p, load.Job{Echo: &load.Echo{Targets: targets, Size: echoSize, Think: echoThink, For: duration}})
	if err != nil {
		return err
	}
	if err := bulk.proc.Send("stop"); err != nil {
		return err
	}
	transfer, err := bulk.await(ctx, load.EventResult)
	if err != nil {
		return fmt.Errorf("the transfer beside: %w", err)
	}
	in, out := echo.Echo.Targets["in"], echo.Echo.Targets["out"]
	values := latencyValues("", in)
	values["gbps"] = transfer.Bulk.Gbps
	if out.N > 0 {
		maps.Copy(values, latencyValues("out_", out))
	}
	s.report.add(Sample{Case: "echo", Params: params, Path: p.name, Round: round, Values: values}, transfer.Usage)
	outside := ""
	if out.N > 0 {
		outside = fmt.Sprintf("  outside: p50 %.0f p99 %.0f µs", out.P50, out.P99)
	}
	s.progress("echo %s %-9s p50 %.0f p99 %.0f µs (%d)%s  at %.2f Gbit/s  others %.2f",
		params, p.name, in.P50, in.P99, in.N, outside, transfer.Bulk.Gbps, transfer.Usage.Others)
	return nil
}

// connect opens connections as fast as they open.
func (s *session) connect(ctx context.Context) error {
	return s.withRig(ctx, func(r *rig) error {
		for _, name := range s.paths {
			if err := r.settle(ctx); err != nil {
				return err
			}
			// The target is for wgexpose; the others are there to compare.
			duration := s.connects
			if name != pathWgexpose {
				duration = max(duration/3, 2*time.Second)
			}
			p := r.paths[name]
			a, err := r.job(ctx, p, load.Job{Connect: &load.Connect{
				Addr: p.tcp, Workers: connectWorkers, For: duration, Sources: visitorAddrs,
			}})
			if err != nil {
				return err
			}
			c := a.Connect
			values := latencyValues("", c.Latency)
			maps.Copy(values, map[string]float64{
				"per_second": c.PerSecond, "failed": float64(c.Failed), "completed": float64(c.Completed), "k": float64(c.Completed) / 1000,
			})
			notes := make(map[string]string)
			for reason, n := range c.Errors {
				notes["failed: "+reason] = fmt.Sprint(n)
			}
			s.report.add(Sample{Case: "connect", Params: "", Path: name, Values: values, Notes: notes}, a.Usage)
			s.progress("connect %-9s %.0f/s for %.0f s, %d failed %v, p50 %.0f p99 %.0f µs  others %.2f",
				name, c.PerSecond, c.Seconds, c.Failed, slices.Sorted(maps.Keys(c.Errors)), c.Latency.P50, c.Latency.P99, a.Usage.Others)
		}
		return nil
	}, s.paths...)
}

// https compares the edge with a reverse proxy that has no tunnel behind it, and
// requests that the inspector reads along with others.
func (s *session) https(ctx context.Context) error {
	paths := append([]string{pathWgexpose, pathPlain, pathQuiet}, s.others()...)
	return s.withRig(ctx, func(r *rig) error {
		for round := range s.rounds {
			for _, kib := range []int{1, 100} {
				for i := range paths {
					p := r.paths[paths[(i+round)%len(paths)]]
					if err := r.settle(ctx); err != nil {
						return err
					}
					size := kib << 10
					a, err := r.job(ctx, p, load.Job{HTTPS: &load.HTTPS{
						Addr: p.https, Host: p.host, Path: fmt.Sprintf("/bytes/%d", size), Size: size,
						Conns: httpsConns, Warmup: bulkWarmup, For: s.duration,
					}})
					if err != nil {
						return fmt.Errorf("%s: %w", p.name, err)
					}
					h := a.HTTPS
					values := latencyValues("", h.Latency)
					values["per_second"] = h.PerSecond
					values["k"] = float64(h.Requests) / 1000
					s.report.add(Sample{
						Case: "https", Params: fmt.Sprintf("%d KiB", kib), Path: p.name, Round: round, Values: values,
						Notes: map[string]string{"tls": h.TLS},
					}, a.Usage)
					s.progress("https %3d KiB %-9s %.0f/s, p50 %.0f p99 %.0f µs  others %.2f",
						kib, p.name, h.PerSecond, h.Latency.P50, h.Latency.P99, a.Usage.Others)
				}
			}
		}
		return nil
	}, paths...)
}
