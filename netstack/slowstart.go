package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// HyStart++'s constants, RFC 9406, section 4.3. Its bound on what one acknowledgment
// adds (L) is left out: the other end acknowledges at once what came joined, which may
// be 45 packets.
const (
	leastDelay   = 4 * time.Millisecond  // MIN_RTT_THRESH
	mostDelay    = 16 * time.Millisecond // MAX_RTT_THRESH
	delayDivisor = 8                     // MIN_RTT_DIVISOR
	delaySamples = 8                     // N_RTT_SAMPLE
	slowDivisor  = 4                     // CSS_GROWTH_DIVISOR
	slowRounds   = 5                     // CSS_ROUNDS
)

// slowStart is how a connection's window grows at first, and what ends that before a
// queue overflows. There are two signs that the path is full.
//
// The least round trip time of a round is well above that of the round before. That may
// be noise: the window grows slower then, by a quarter in a round trip, and after some
// such rounds slow start is over, unless the time was lower again in one
// (HyStart++, RFC 9406, section 4.2).
//
// Or the window holds what the path does: what it takes in a round trip at the rate at
// which this round's acknowledgments come. It is what tells if the path's queue is
// shorter than the delay that the first sign waits for. HyStart's train of
// acknowledgments is the same for a rate that does not matter (Ha and Rhee, Taming the
// elephants: New TCP slow start, 2011), and is known by half a round trip only.
type slowStart struct {
	base   time.Duration // the round trip time at which a queue was suspected; 0: none is
	rounds int           // since then
	part   int           // packets that were acknowledged since then, and have yet to count
	train  train
}

// grow is by how many packets the window grows when so many are acknowledged at now.
// began says that a round did with it, and used that all of the window was.
func (h *slowStart) grow(acked int, began, used bool, r *round, now tcpip.MonotonicTime) int {
	// Else it is the sender's rate that acknowledgments come at, and not the path's. At
	// what rate the first window was sent is not known.
	h.train.acknowledged(acked, began || !used || r.before == 0, r.rtt(), now)
	if h.base != 0 && began {
		h.rounds++
	}
	if r.samples >= delaySamples && r.before != 0 {
		switch delay := min(max(r.before/delayDivisor, leastDelay), mostDelay); {
		case h.base == 0 && r.least >= r.before+delay:
			h.base = r.least
		case h.base != 0 && r.least < h.base:
			h.base, h.rounds, h.part = 0, 0, 0
		}
	}
	if h.base == 0 {
		return acked
	}
	h.part += acked
	n := h.part / slowDivisor
	h.part %= slowDivisor
	return n
}

// over reports whether slow start is, with a window of that many packets.
func (h *slowStart) over(cwnd int, r *round) bool {
	return h.rounds >= slowRounds || h.train.fills(cwnd, r.rtt())
}

// largeSegment is how many packets a Conn gives its endpoint at once, when there is room
// for all of them (link.GSOMaxSize).
const largeSegment = 45

// train is acknowledgments that come one soon after the other. What a sender sends at
// once leaves the narrowest part of its path packet by packet, so they tell that rate.
type train struct {
	began, last tcpip.MonotonicTime
	acked       int // packets, but for those of the first acknowledgment
}

// leastTrain is how long a train is at least: goroutines that wait for their turn are
// that late.
const leastTrain = 2 * time.Millisecond

func (t *train) acknowledged(acked int, began bool, rtt time.Duration, now tcpip.MonotonicTime) {
	if began || now.Sub(t.last) > max(rtt/4, leastTrain) {
		*t = train{began: now, last: now}
		return
	}
	t.last = now
	t.acked += acked
}

// fills reports whether a window of that many packets is what a path of that round trip
// time holds, as far as a quarter of it tells.
func (t *train) fills(cwnd int, rtt time.Duration) bool {
	took := t.last.Sub(t.began)
	return rtt > 0 && took >= max(rtt/4, leastTrain) && float64(cwnd)*took.Seconds() >= float64(t.acked)*rtt.Seconds()
}

// round is one round trip of a connection: it begins with a packet, and ends when that
// is acknowledged.
type round struct {
	end     seqnum.Value
	samples int           // of the round trip time
	least   time.Duration // of them; 0: there is none
	before  time.Duration // the same of the round before
	under   int           // packets that were under way at most
	earlier int           // the same of the round before

	base, last time.Duration // round trip times of all rounds: the least, and the last
}

func (r *round) begin(s *tcp.TCPSenderState) {
	*r = round{end: s.SndNxt, before: r.least, earlier: r.under, base: r.base, last: r.last}
}

// acknowledged takes in an acknowledgment of so many packets, and reports whether a round
// began with it.
func (r *round) acknowledged(s *tcp.TCPSenderState, acked int, rtt time.Duration) bool {
	began := r.end.LessThan(s.SndUna)
	if began {
		r.begin(s)
	}
	r.under = max(r.under, s.Outstanding+acked)
	if rtt > 0 {
		r.samples++
		if r.least == 0 || rtt < r.least {
			r.least = rtt
		}
		if r.base == 0 || rtt < r.base {
			r.base = rtt
		}
		r.last = rtt
	}
	return began
}

// limited reports whether the window bounds the sender: more than half of it was used, in
// this round or the one before.
func (r *round) limited(s *tcp.TCPSenderState) bool {
	return s.SndCwnd < 2*max(r.under, r.earlier)
}

// rtt is about how long a round trip takes.
func (r *round) rtt() time.Duration {
	if r.before == 0 {
		return r.least
	}
	return r.before
}

// queued reports whether what was acknowledged last had waited in a queue. Before a loss,
// that is what left just before the first lost packet.
func (r *round) queued() bool {
	return r.base != 0 && r.last > r.base+max(r.base/32, 2*time.Millisecond)
}
