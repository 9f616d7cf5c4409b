//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wgexpose/wgexpose/bench/origin"
	"github.com/wgexpose/wgexpose/bench/stats"
)

// Connect opens connections as fast as Workers can one after the other. Each
// sends a byte, waits for the answer and closes.
type Connect struct {
	Addr    string        `json:"addr"`
	Workers int           `json:"workers"`
	For     time.Duration `json:"for"`
	// Count ends it after so many connections. Zero: only For does.
	Count int64 `json:"count,omitempty"`
	// Sources is how many addresses of 127/8 the visitors come from; one
	// address has too few ports for some paths. It takes a target on
	// loopback. Zero: the kernel chooses.
	Sources int `json:"sources"`
}

// ConnectResult counts connections.
type ConnectResult struct {
	Completed int64   `json:"completed"`
	Failed    int64   `json:"failed"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
	// Errors counts failures by reason.
	Errors map[string]int64 `json:"errors,omitempty"`
	// Latency is from the dial to the answer.
	Latency stats.Latency `json:"latency"`
}

func (r *runner) connect(ctx context.Context, c Connect) (Answer, error) {
	used, err := r.begin()
	if err != nil {
		return Answer{}, err
	}
	start := time.Now()
	end := start.Add(c.For)
	var (
		begun   atomic.Int64
		mu      sync.Mutex // guards result
		result  = ConnectResult{Errors: make(map[string]int64)}
		samples = make([][]time.Duration, c.Workers)
		wg      sync.WaitGroup
	)
	for worker := range c.Workers {
		wg.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				n := begun.Add(1)
				if c.Count > 0 && n > c.Count {
					return
				}
				took, err := r.connectOnce(ctx, c, n)
				if err == nil {
					samples[worker] = append(samples[worker], took)
					continue
				}
				mu.Lock()
				result.Failed++
				result.Errors[reason(err)]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return Answer{}, err
	}
	result.Latency = summarize(samples)
	result.Completed = int64(result.Latency.N)
	result.Seconds = time.Since(start).Seconds()
	result.PerSecond = float64(result.Completed) / result.Seconds
	usage, err := used.end()
	return Answer{Connect: &result, Usage: usage}, err
}

// connectOnce makes the n-th connection and reports how long the answer took.
func (r *runner) connectOnce(ctx context.Context, c Connect, n int64) (time.Duration, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	if c.Sources > 0 {
		dialer.LocalAddr = &net.TCPAddr{IP: source(n, c.Sources).AsSlice()}
		dialer.Control = lateBind
	}
	start := time.Now()
	conn, err := dialer.DialContext(ctx, "tcp", c.Addr)
	if err != nil {
		return 0, fmt.Errorf("dial: %w", err)
	}
	defer conn.Close()
	message := []byte{byte(n)}
	if _, err := conn.Write([]byte{origin.Echo}); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	if err := ask(conn, message, make([]byte, 1)); err != nil {
		return 0, fmt.Errorf("ask: %w", err)
	}
	return time.Since(start), nil
}

// source is an address for the n-th visitor, beginning at 127.0.1.1.
func source(n int64, sources int) netip.Addr {
	i := int(n % int64(sources))
	return netip.AddrFrom4([4]byte{127, 0, byte(1 + i/250), byte(1 + i%250)})
}

// reason is the part of an error that many share: without addresses.
func reason(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "time-out"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Timeout() {
		return "time-out"
	}
	return err.Error()
}
