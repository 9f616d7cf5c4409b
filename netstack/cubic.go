package netstack

import (
	"math"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// CUBIC's constants, RFC 9438, sections 4.1, 4.3 and 4.6.
const (
	cubicScale    = 0.4 // C, packets/s³
	cubicDecrease = 0.7 // β: what a loss leaves of the window
	cubicAdditive = 3 * (1 - cubicDecrease) / (1 + cubicDecrease)
	leastWindow   = 2 // packets
)

// cubic is the congestion control of one connection: CUBIC as RFC 9438 has it, behind
// a slowStart. It decides on the congestion window and the slow start threshold of a
// sender; what was lost, and what is sent again, gVisor finds out. Windows are in
// packets, as they are there. The endpoint's lock guards all of it. Its exported methods
// are gVisor's congestionControl (transport/tcp/snd.go).
type cubic struct {
	sender *tcp.TCPSenderState
	peer   *peer
	near   bool // the path is known to be short, or was at the last Update
	round  round
	start  slowStart
	seen   int                 // sender.SndCwnd, as Update left it; 0: a loss has cut it since
	last   tcpip.MonotonicTime // of an Update

	most  float64             // W_max: the window when the last loss cut it, or a little less; 0: unknown
	prior float64             // cwnd_prior: that window; 0: unknown
	epoch tcpip.MonotonicTime // when this congestion avoidance began; zero: it has yet to
	rise  float64             // K: seconds from there until the window is at the plateau
	level float64             // the plateau
	reno  float64             // W_est: the window that Reno would have
	part  float64             // of a packet, that the window has beyond sender.SndCwnd

	cut     bool         // a loss has cut the window,
	recover seqnum.Value // and what was sent up to here belongs to it
}

func newCubic(sender *tcp.TCPSenderState, p *peer) *cubic {
	c := &cubic{sender: sender, peer: p}
	c.round.begin(sender)
	return c
}

// Update takes in an acknowledgment of so many packets that came at now; rtt is how
// long it took, and negative if that is not known. In a fast recovery there are none.
func (c *cubic) Update(acked int, rtt time.Duration, now tcpip.MonotonicTime) {
	s := c.sender
	acked = max(acked, 0)
	c.follow(rtt, now)
	rested := now.Sub(c.last) > s.RTO
	c.last = now
	c.forget()
	began := c.round.acknowledged(s, acked, rtt)
	if rested && s.SndCwnd == tcp.InitialCwnd && c.seen > s.SndCwnd {
		// gVisor has set the window back. Slow start is how it returns to most of what it
		// was (RFC 7661, section 4.4): the last loss may be long ago.
		s.Ssthresh = max(s.Ssthresh, c.seen*3/4)
	}
	avoids := s.SndCwnd >= s.Ssthresh
	// A rest is no part of an epoch. And while the window is not what bounds the sender,
	// nothing is learned about it (RFC 9438, section 5.8). Slow start on a short path
	// goes on: a window near the bound would cut segments (room).
	if limited := c.round.limited(s) || c.near && !avoids; !avoids || !limited || rested || s.SndCwnd != c.seen {
		c.epoch, c.part = tcpip.MonotonicTime{}, 0
		if !limited {
			c.seen = s.SndCwnd
			return
		}
	}
	if avoids {
		c.start = slowStart{}
		c.avoid(min(acked, s.SndCwnd), now)
	} else {
		c.begins(acked, began, now)
	}
	c.seen = s.SndCwnd
}

// follow tells the peer how long an acknowledgment took, and hears of it how long the
// path is. On another path, what was learned about the delay is of none.
func (c *cubic) follow(rtt time.Duration, now tcpip.MonotonicTime) {
	if rtt < 0 {
		return
	}
	near := c.peer.timed(rtt, now)
	if near == c.near {
		return
	}
	c.near, c.start, c.round.base = near, slowStart{}, 0
	if !near {
		c.sender.SndCwnd = min(c.sender.SndCwnd, max(2*c.round.under, 2*c.round.earlier, tcp.InitialCwnd))
	}
}

// begins is slow start. On a short path only a loss ends it: a round trip takes longer than
// the one before whenever a goroutine waits for a processor, and acknowledgments come at the
// rate at which it gets one. Of gVisor's HyStart an end at 55 packets was seen there. What
// the path may hold is a bound (peer.budget).
func (c *cubic) begins(acked int, began bool, now tcpip.MonotonicTime) {
	s := c.sender
	grown := acked
	if !c.near {
		// The last large segment may be late; with more of the window unused, a train of a
		// quarter of a round trip would pass before a steady sender's window outgrows it.
		used := s.Outstanding+acked+min(largeSegment, s.SndCwnd/8) >= s.SndCwnd
		grown = c.start.grow(acked, began, used, &c.round, now)
	}
	s.SndCwnd = min(s.SndCwnd+grown, s.Ssthresh)
	if !c.near && c.start.over(s.SndCwnd, &c.round) {
		s.Ssthresh = s.SndCwnd
		c.start = slowStart{}
	}
}

// avoid is congestion avoidance, RFC 9438, sections 4.2 to 4.5.
func (c *cubic) avoid(acked int, now tcpip.MonotonicTime) {
	s := c.sender
	if c.epoch == (tcpip.MonotonicTime{}) {
		c.begin(now)
	}
	cwnd := float64(s.SndCwnd) + c.part
	t := now.Sub(c.epoch).Seconds()
	target := min(max(c.at(t+c.round.rtt().Seconds()), cwnd), 1.5*cwnd)
	additive := cubicAdditive
	if c.reno >= c.prior {
		additive = 1
	}
	c.reno += additive * float64(acked) / cwnd
	grown := cwnd + float64(acked)*(target-cwnd)/cwnd
	if c.at(t) < c.reno {
		grown = max(cwnd, c.reno)
	}
	s.SndCwnd = int(grown)
	// A window of forty packets grows by a hundredth with each acknowledgment.
	c.part = grown - float64(s.SndCwnd)
}

// begin begins an epoch with the present window, RFC 9438, sections 4.2, 4.8 and 4.10.
func (c *cubic) begin(now tcpip.MonotonicTime) {
	cwnd := float64(c.sender.SndCwnd)
	c.epoch, c.reno = now, cwnd
	c.rise, c.level = 0, cwnd
	if cwnd < c.most {
		c.rise, c.level = math.Cbrt((c.most-cwnd)/cubicScale), c.most
	}
}

// at is W_cubic, the window t seconds after the epoch began.
func (c *cubic) at(t float64) float64 {
	t -= c.rise
	return cubicScale*t*t*t + c.level
}

// forget ends what is over: sequence numbers are told apart for 2 GiB only. gVisor
// leaves its own where it was, and then takes losses for what they are not.
func (c *cubic) forget() {
	s := c.sender
	if c.cut && c.recover.LessThan(s.SndUna) {
		c.cut = false
	}
	if s.FastRecovery.Last.LessThan(s.SndUna - 2) {
		s.FastRecovery.Last = s.SndUna - 2
	}
}

// HandleLossDetected takes in that packets were lost. A recovery follows, which leaves
// a window of the threshold.
func (c *cubic) HandleLossDetected() {
	if s := c.sender; !c.reduce() {
		s.Ssthresh = min(s.Ssthresh, max(s.SndCwnd, leastWindow))
	}
}

// HandleRTOExpired takes in that nothing was heard for so long that all counts as lost.
// Everything begins again with one packet. It is also called when the other end has no
// room for more, and nothing is under way.
func (c *cubic) HandleRTOExpired() {
	s := c.sender
	if s.SndUna == s.SndNxt {
		s.SndCwnd = min(s.SndCwnd, tcp.InitialCwnd)
		return
	}
	if c.reduce() {
		// What the window was tells nothing any more: RFC 9438, section 4.8. Nor may
		// the path be the same.
		c.most, c.prior = 0, 0
		c.round.base = 0
	}
	s.SndCwnd = 1
}

// PostRecovery takes in that a recovery has ended.
func (c *cubic) PostRecovery() {}

// reduce sets the threshold for a loss (RFC 9438, sections 4.6 and 4.7), and reports
// whether it was another one than the last: packets that were sent before that was
// known, their repetition too, belong to it (RFC 6582, section 3.2).
func (c *cubic) reduce() bool {
	s := c.sender
	if c.cut && !c.recover.LessThan(s.SndUna) {
		return false
	}
	c.cut, c.recover, c.seen = true, s.SndNxt-1, 0
	c.start, c.epoch = slowStart{}, tcpip.MonotonicTime{}
	// Not from what was unused of the window, section 4.6.
	cwnd := min(float64(s.SndCwnd)+c.part, float64(max(c.round.under, c.round.earlier, s.Outstanding)))
	c.part = 0
	if s.SndCwnd < s.Ssthresh && c.round.queued() {
		// A queue was full, and since then the window has doubled.
		s.Ssthresh = max(int(cwnd/2), leastWindow)
		c.most, c.prior = 0, 0
		return true
	}
	c.prior = cwnd
	if cwnd < c.most {
		cwnd *= (1 + cubicDecrease) / 2 // fast convergence: others came
	}
	c.most = cwnd
	s.Ssthresh = max(int(c.prior*cubicDecrease), leastWindow)
	return true
}
