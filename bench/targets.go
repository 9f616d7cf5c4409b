//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Verdict says whether a target was reached.
type Verdict struct {
	What     string  `json:"what"`
	Relation string  `json:"relation"` // "≥" or "≤"
	Bound    float64 `json:"bound"`
	Measured float64 `json:"measured"`
	Reached  bool    `json:"reached"`
}

// target is what the fast path is to reach, as a number that is NaN when a run
// did not measure it.
type target struct {
	what  string
	most  bool // the bound is the most; otherwise the least
	bound float64
	value func(*Report) float64
}

// targets lists them.
func targets() []target {
	list := []target{
		{"echo idle, p50, against netstack", true, 1, echoRatio("idle", "p50_us")},
		{"echo beside bulk down, p99, against outside of the tunnel", true, 3, echoOutside("beside bulk down")},
		{"echo beside bulk up, p99, against outside of the tunnel", true, 3, echoOutside("beside bulk up")},
		{"echo beside bulk down, p99, against netstack", true, 0.2, echoRatio("beside bulk down", "p99_us")},
		{"echo beside bulk up, p99, against netstack", true, 0.2, echoRatio("beside bulk up", "p99_us")},
		{"new TCP connections per second", false, 2000, single("connect", "per_second")},
		{"failed new TCP connections", true, 0, single("connect", "failed")},
		{"https 1 KiB, per second, against a proxy without tunnel", false, 0.5, httpsRatio("1 KiB")},
		{"https 100 KiB, per second, against a proxy without tunnel", false, 0.5, httpsRatio("100 KiB")},
		{"https 1 KiB, per second, inspected against not", false, 0.9, inspectRatio("1 KiB")},
		{"https 100 KiB, per second, inspected against not", false, 0.9, inspectRatio("100 KiB")},
		{"first byte, p50, more than from a proxy without tunnel, µs", true, 1000, firstByte},
		{"handshakes per second, against net/http", false, 0.9, func(r *Report) float64 {
			return r.ratio("handshake", "", "per_second", pathWgexpose, pathPlain)
		}},
		{"idle connection in the edge, KiB", true, 25, single("idle", "edge_kib")},
		{"idle connection in the agent, KiB", true, 25, single("idle", "agent_kib")},
		{"idle connections lost", true, 0, single("idle", "lost")},
		{"40 ms, 0.1 % loss, 8 streams, against plain TCP", false, 0.8, linkRatio(40*time.Millisecond, 0.001, 8)},
		{"100 ms, clean, 1 stream, best second of the first 5, of the wire's payload", false, 0.9, linkFill(100*time.Millisecond, 0, 1)},
	}
	for _, streams := range []int{64, 8, 1} {
		for _, up := range []bool{true, false} {
			params := fmt.Sprintf("%s %d", direction(up), streams)
			list = slices.Insert(list, 0, target{"bulk " + params + ", against netstack", false, 4, func(r *Report) float64 {
				return r.ratio("bulk", params, "gbps", pathWgexpose, pathNetstack)
			}})
		}
	}
	// Less of either is over before a heap has found its size.
	for _, load := range []struct {
		what  string
		least float64 // GB, connections
	}{{"data", 10}, {"churn", 100_000}} {
		what, least := load.what, load.least
		for _, side := range []string{"edge", "agent"} {
			list = append(list, target{"memory of the " + side + " over " + what + ", later half to first", true, 1.15, func(r *Report) float64 {
				// The last step may be a little short of its share.
				if r.median("memory", what, pathWgexpose, "done") < 0.99*least {
					return math.NaN()
				}
				return r.median("memory", what, pathWgexpose, side+"_growth")
			}})
		}
	}
	return list
}

func echoRatio(params, metric string) func(*Report) float64 {
	return func(r *Report) float64 { return r.ratio("echo", params, metric, pathWgexpose, pathNetstack) }
}

// echoOutside is the median over the rounds of the echo inside to that outside,
// both beside the same transfer.
func echoOutside(params string) func(*Report) float64 {
	return func(r *Report) float64 {
		return r.within("echo", params, pathWgexpose, "p99_us", "out_p99_us")
	}
}

// firstByte is how much later an answer begins, in the median of the rounds.
func firstByte(r *Report) float64 {
	return r.median("first", "", pathWgexpose, "p50_us") - r.median("first", "", pathPlain, "p50_us")
}

func single(name, metric string) func(*Report) float64 {
	return func(r *Report) float64 { return r.median(name, "", pathWgexpose, metric) }
}

func httpsRatio(params string) func(*Report) float64 {
	return func(r *Report) float64 { return r.ratio("https", params, "per_second", pathWgexpose, pathPlain) }
}

func inspectRatio(params string) func(*Report) float64 {
	return func(r *Report) float64 { return r.ratio("https", params, "per_second", pathWgexpose, pathQuiet) }
}

func linkRatio(rtt time.Duration, loss float64, streams int) func(*Report) float64 {
	return func(r *Report) float64 {
		return r.ratio("link", linkParams(rtt, loss, streams), "mbps", pathWgexpose, pathPlain)
	}
}

// payloadShare is what is left for a TCP connection's bytes of a packet of 1,480
// on the wire: 1,420 in the tunnel, of which 40 are IPv6's header and 32 TCP's
// with timestamps; around it 32 of WireGuard, 8 of UDP and 20 of IPv4.
const payloadShare = 1348.0 / 1480

func linkFill(rtt time.Duration, loss float64, streams int) func(*Report) float64 {
	return func(r *Report) float64 {
		return r.median("link", linkParams(rtt, loss, streams), pathWgexpose, "first_5s") / payloadShare
	}
}

// conclude makes the table and the verdicts of the samples.
func (r *Report) conclude() {
	r.Rows = r.rows()
	r.Targets = nil
	for _, t := range targets() {
		v := t.value(r)
		if math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		verdict := Verdict{What: t.what, Relation: "≥", Bound: t.bound, Measured: v, Reached: v >= t.bound}
		if t.most {
			verdict.Relation, verdict.Reached = "≤", v <= t.bound
		}
		r.Targets = append(r.Targets, verdict)
	}
}
