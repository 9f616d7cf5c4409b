//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/wgexpose/wgexpose/bench/load"
)

// handshakeWorkers shake hands at a time.
const handshakeWorkers = 16

// first measures when the answer to a request begins, one at a time over one
// connection: through the tunnel, and through a reverse proxy without one.
func (s *session) first(ctx context.Context) error {
	return s.withRig(ctx, func(r *rig) error {
		return s.facing(ctx, r, func(p *path, round int) error {
			a, err := r.job(ctx, p, load.Job{HTTPS: &load.HTTPS{
				Addr: p.https, Host: p.host, Path: "/bytes/1", Size: 1, Conns: 1, Warmup: bulkWarmup, For: s.duration,
			}})
			if err != nil {
				return err
			}
			l := a.HTTPS.Latency
			s.report.add(Sample{Case: "first", Path: p.name, Round: round, Values: latencyValues("", l)}, a.Usage)
			s.progress("first byte %-9s p50 %.0f p99 %.0f µs (%d)  others %.2f", p.name, l.P50, l.P99, l.N, a.Usage.Others)
			return nil
		})
	}, pathWgexpose, pathPlain)
}

// handshake measures how many TLS handshakes the edge finishes, and how many a
// server of net/http.
func (s *session) handshake(ctx context.Context) error {
	return s.withRig(ctx, func(r *rig) error {
		return s.facing(ctx, r, func(p *path, round int) error {
			a, err := r.job(ctx, p, load.Job{Handshake: &load.Handshake{
				Addr: p.https, Host: p.host, Workers: handshakeWorkers, Warmup: bulkWarmup, For: s.duration,
			}})
			if err != nil {
				return err
			}
			h := a.Handshake
			values := latencyValues("", h.Latency)
			values["per_second"] = h.PerSecond
			s.report.add(Sample{Case: "handshake", Path: p.name, Round: round, Values: values, Notes: map[string]string{"tls": h.TLS}}, a.Usage)
			s.progress("handshake %-9s %.0f/s, p50 %.0f p99 %.0f µs  %s  others %.2f", p.name, h.PerSecond, h.Latency.P50, h.Latency.P99, h.TLS, a.Usage.Others)
			return nil
		})
	}, pathWgexpose, pathPlain)
}

// facing measures both paths in each round, beginning with another one each time.
func (s *session) facing(ctx context.Context, r *rig, measure func(*path, int) error) error {
	paths := []string{pathWgexpose, pathPlain}
	for round := range s.rounds {
		for i := range paths {
			p := r.paths[paths[(i+round)%len(paths)]]
			if err := r.settle(ctx); err != nil {
				return err
			}
			if err := measure(p, round); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return nil
}
