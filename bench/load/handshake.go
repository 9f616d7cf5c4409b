//go:build linux

package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/bench/stats"
)

// Handshake opens connections with TLS as fast as Workers can one after the other,
// and closes each once both sides have agreed. No session is resumed.
type Handshake struct {
	Addr    string        `json:"addr"`
	Host    string        `json:"host"` // the TLS server name
	Workers int           `json:"workers"`
	Warmup  time.Duration `json:"warmup"`
	For     time.Duration `json:"for"`
}

// HandshakeResult counts handshakes. One that fails fails the job.
type HandshakeResult struct {
	PerSecond float64       `json:"per_second"`
	Latency   stats.Latency `json:"latency"` // from the dial to the last message
	TLS       string        `json:"tls"`     // version and cipher suite
}

func (r *runner) handshake(ctx context.Context, h Handshake) (Answer, error) {
	if _, _, err := r.shake(ctx, h, time.Now().Add(h.Warmup)); err != nil {
		return Answer{}, err
	}
	used, err := r.begin()
	if err != nil {
		return Answer{}, err
	}
	start := time.Now()
	samples, agreed, err := r.shake(ctx, h, start.Add(h.For))
	if err != nil {
		return Answer{}, err
	}
	seconds := time.Since(start).Seconds()
	usage, err := used.end()
	if err != nil {
		return Answer{}, err
	}
	latency := summarize(samples)
	return Answer{Usage: usage, Handshake: &HandshakeResult{PerSecond: float64(latency.N) / seconds, Latency: latency, TLS: agreed}}, nil
}

// shake lets every worker connect until end, at least once.
func (r *runner) shake(ctx context.Context, h Handshake, end time.Time) ([][]time.Duration, string, error) {
	samples := make([][]time.Duration, h.Workers)
	errs := make([]error, h.Workers)
	var agreed string
	var wg sync.WaitGroup
	for worker := range h.Workers {
		wg.Go(func() {
			for {
				took, state, err := r.shakeOnce(ctx, h)
				if err != nil {
					errs[worker] = fmt.Errorf("load: handshake: %w", err)
					return
				}
				samples[worker] = append(samples[worker], took)
				if !time.Now().Before(end) {
					if worker == 0 {
						agreed = state
					}
					return
				}
			}
		})
	}
	wg.Wait()
	return samples, agreed, errors.Join(errs...)
}

func (r *runner) shakeOnce(ctx context.Context, h Handshake) (time.Duration, string, error) {
	start := time.Now()
	conn, err := r.dial(ctx, h.Addr)
	if err != nil {
		return 0, "", err
	}
	// A port that waits for late segments could not be used again: there are some
	// 28,000 of them.
	defer abort(conn)
	if err := conn.SetDeadline(start.Add(stuck)); err != nil {
		return 0, "", err
	}
	// Whether the certificate is trusted is not what is measured.
	t := tls.Client(conn, &tls.Config{ServerName: h.Host, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err := t.HandshakeContext(ctx); err != nil {
		return 0, "", err
	}
	took := time.Since(start)
	state := t.ConnectionState()
	return took, tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite) + " " + state.CurveID.String(), nil
}
