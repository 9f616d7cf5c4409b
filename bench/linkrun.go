//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/bench/link"
	"github.com/wgexpose/wgexpose/bench/load"
)

const (
	// linkCongestion is what most kernels use.
	linkCongestion = "cubic"
	// linkWarmup is left out of the rate of a link; the series has it.
	linkWarmup = 2 * time.Second
)

// runLink measures over an emulated link: visitors and the edge at one end, the
// agent and the origin at the other.
func (s *session) runLink(ctx context.Context) (err error) {
	l, err := link.Open(link.Config{Seed: s.seed, Congestion: linkCongestion})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	s.site = site{near: l.A(), far: l.B(), edgeHost: link.AddrA.String(), farHost: link.AddrB.String()}
	return s.withRig(ctx, func(r *rig) error {
		for round := range s.rounds {
			for _, rtt := range s.rtts {
				for _, loss := range s.losses {
					for _, streams := range s.streams {
						for _, name := range s.turns(round) {
							if err := s.linkOnce(ctx, l, r, round, r.paths[name], rtt, loss, streams); err != nil {
								return err
							}
						}
					}
				}
			}
		}
		return nil
	}, s.paths...)
}

// conditions of both directions. The queue holds what the link carries in a
// round trip, the usual measure, or what it does by default if that is more.
func (s *session) conditions(rtt time.Duration, loss float64) link.Conditions {
	return link.Conditions{
		Delay: rtt / 2, Rate: s.rate, Loss: loss,
		Queue: max(link.DefaultQueue, int(s.rate/8*rtt.Seconds())),
	}
}

func (s *session) linkOnce(ctx context.Context, l *link.Link, r *rig, round int, p *path, rtt time.Duration, loss float64, streams int) error {
	params := linkParams(rtt, loss, streams)
	if err := l.SetBoth(s.conditions(rtt, loss)); err != nil {
		return err
	}
	if err := r.introduce(ctx, p, rtt); err != nil {
		return fmt.Errorf("%s through %s: %w", params, p.name, err)
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	pids := maps.Clone(p.pids)
	pids["link"] = os.Getpid() // it is emulated here
	job, err := r.startJob(ctx, p, load.Job{PIDs: pids, Bulk: &load.Bulk{
		Addr: p.tcp, Streams: streams, Warmup: linkWarmup, For: s.linkFor, Control: r.control,
	}})
	if err != nil {
		return err
	}
	defer job.proc.Stop()
	if _, err := job.await(ctx, load.EventWarm); err != nil {
		return fmt.Errorf("%s through %s: %w", params, p.name, err)
	}
	before, start := l.Stats(link.BtoA), time.Now()
	a, err := job.await(ctx, load.EventResult)
	if err != nil {
		return fmt.Errorf("%s through %s: %w", params, p.name, err)
	}
	after, took := l.Stats(link.BtoA), time.Since(start).Seconds()
	b := a.Bulk
	wire := float64(after.SeenBytes-before.SeenBytes-(after.DroppedBytes-before.DroppedBytes)) * 8 / took
	values := map[string]float64{
		"mbps": b.Gbps * 1000, "gb": float64(b.Bytes) / 1e9,
		"of_link":    b.Gbps * 1e9 / s.rate,
		"wire_share": wire / s.rate,
		"first_5s":   best(b.Series, 5*time.Second) / s.rate,
		"overflowed": float64(after.Overflowed - before.Overflowed), "lost": float64(after.Lost - before.Lost),
	}
	s.report.add(Sample{Case: "link", Params: params, Path: p.name, Round: round, Series: b.Series, Values: values}, a.Usage)
	s.progress("link %-18s %-9s %6.1f Mbit/s (wire %3.0f %%)  within 5 s %3.0f %%  lost %.0f, queue full %.0f  others %.2f", params, p.name,
		b.Gbps*1000, 100*values["wire_share"], 100*values["first_5s"], values["lost"], values["overflowed"], a.Usage.Others)
	return nil
}

// learnsIn is how long a tunnel's ends take at most, while connections come and go, to
// find out that their path has become longer. That it is shorter they see at once.
const learnsIn = 6 * time.Second

// introduce opens connections, by which the ends of a tunnel learn how long
// the path is that has just been changed under them. Ends that met over it know
// it from the start.
func (r *rig) introduce(ctx context.Context, p *path, rtt time.Duration) error {
	takes := 3*rtt + 100*time.Millisecond
	if rtt > p.rtt {
		takes += learnsIn
	}
	p.rtt = rtt
	a, err := r.job(ctx, p, load.Job{Connect: &load.Connect{
		Addr: p.tcp, Workers: 2, For: takes,
	}})
	if err != nil {
		return err
	}
	if a.Connect.Completed == 0 {
		return fmt.Errorf("no connection came about: %v", a.Connect.Errors)
	}
	return nil
}

func linkParams(rtt time.Duration, loss float64, streams int) string {
	return strings.Join([]string{fmt.Sprintf("%d ms", rtt.Milliseconds()), fmt.Sprintf("%g %%", loss*100), fmt.Sprint(streams)}, " · ")
}

// best is the highest rate, in bit/s, over a stretch of at least a second
// within the first part of a series.
func best(series []load.Point, within time.Duration) float64 {
	top := 0.0
	from, i := load.Point{}, -1 // series[i]; the first is the beginning
	for _, to := range series {
		if to.Seconds > within.Seconds() {
			break
		}
		for i+1 < len(series) && to.Seconds-series[i+1].Seconds >= 1 {
			i++
			from = series[i]
		}
		if took := to.Seconds - from.Seconds; took >= 1 {
			top = max(top, float64(to.Bytes-from.Bytes)*8/took)
		}
	}
	return top
}
