package netstack

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// course is a path in computed time, with a sender on it that always has something to
// send: packets of one byte of sequence, a rate, a queue, losses, and acknowledgments of
// several packets each. What is lost counts as repeated, and as received, with the first
// acknowledgment of what was sent after the loss was seen.
type course struct {
	rate  float64 // packets/s
	rtt   time.Duration
	queue int // packets
	loss  float64
	each  int // packets that an acknowledgment is for
	most  int // packets that the sender has under way if the window is larger; 0: it has no bound

	s       tcp.TCPSenderState
	c       *cubic
	random  *rand.Rand
	now     time.Duration
	free    time.Duration // when the queue is empty
	flights []flight
	dropped int
	recover seqnum.Value // of a recovery
	sum     float64      // of the window times seconds
}

type flight struct {
	seq     seqnum.Value
	sent    time.Duration
	arrives time.Duration // at the sender, as an acknowledgment
	lost    bool
}

func newCourse(rate float64, rtt time.Duration, queue, each int) *course {
	p := &course{rate: rate, rtt: rtt, queue: queue, each: each, random: rand.New(rand.NewPCG(1, 2))}
	p.s = tcp.TCPSenderState{SndCwnd: tcp.InitialCwnd, Ssthresh: tcp.InitialSsthresh, RTO: time.Second}
	p.c = newCubic(&p.s, &peer{})
	return p
}

// holds is how many packets are under way when the path is full and its queue empty.
func (p *course) holds() float64 { return p.rate * p.rtt.Seconds() }

func (p *course) send() {
	for p.s.Outstanding < p.s.SndCwnd && (p.most == 0 || p.s.Outstanding < p.most) {
		f := flight{seq: p.s.SndNxt, sent: p.now}
		waits := max(p.free-p.now, 0)
		full := waits.Seconds()*p.rate >= float64(p.queue)
		f.lost = full || p.random.Float64() < p.loss
		if full {
			p.dropped++
		} else {
			waits += time.Duration(float64(time.Second) / p.rate)
			p.free = p.now + waits
		}
		f.arrives = p.now + waits + p.rtt
		p.flights = append(p.flights, f)
		p.s.SndNxt++
		p.s.Outstanding++
	}
}

// run lets time pass until a condition holds or that much has passed.
func (p *course) run(d time.Duration, until func() bool) {
	end := p.now + d
	for p.now < end && !until() {
		p.send()
		n := min(p.each, len(p.flights))
		last := p.flights[n-1]
		p.sum += float64(p.s.SndCwnd) * (last.arrives - p.now).Seconds()
		p.now = last.arrives
		lost := false
		for _, f := range p.flights[:n] {
			lost = lost || f.lost
		}
		p.flights = p.flights[n:]
		p.s.Outstanding -= n
		switch recovering := p.s.FastRecovery.Active; {
		case recovering && !last.seq.LessThan(p.recover):
			p.s.FastRecovery.Active = false
			p.s.SndUna, p.s.SndCwnd = last.seq+1, p.s.Ssthresh
			p.c.PostRecovery()
		case recovering:
		case lost:
			p.c.HandleLossDetected()
			p.s.FastRecovery.Active = true
			p.s.SndCwnd = p.s.Ssthresh
			p.recover = p.s.SndNxt
		default:
			p.s.SndUna = last.seq + 1
			p.c.Update(n, last.arrives-last.sent, boot.Add(p.now))
		}
	}
}

func never() bool { return false }

// boot is a time on gVisor's clock; zero stands for none there.
var boot = tcpip.MonotonicTime{}.Add(time.Hour)

func (p *course) slowStartIsOver() bool { return p.s.SndCwnd >= p.s.Ssthresh }

// Slow start ends when the path is full, by the rate of the acknowledgments, and before the
// queue is. It sends twice as fast as the path takes, so that half of a window waits. Where
// acknowledgments are too far apart to tell a rate, the delay is what there is.
func TestSlowStartEndsWhereThePathIsFull(t *testing.T) {
	for _, rtt := range []time.Duration{10 * time.Millisecond, 40 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		for _, mbits := range []float64{50, 200, 1000} {
			for _, each := range []int{1, 2, 20} {
				rate := mbits * 1e6 / 8 / 1400
				if float64(each)/rate > (rtt / 8).Seconds() {
					continue
				}
				p := newCourse(rate, rtt, int(rate*rtt.Seconds()*0.6)+2*each, each)
				t.Run(fmt.Sprintf("%v, %v Mbit/s, %d at once", rtt, mbits, each), func(t *testing.T) {
					p.run(time.Minute, p.slowStartIsOver)
					if full := float64(p.s.SndCwnd) / p.holds(); full < 0.9 || full > 1.4 {
						t.Errorf("slow start ended at %d packets, %.2f of the path's %.0f, after %v", p.s.SndCwnd, full, p.holds(), p.now)
					}
					if p.dropped > 0 {
						t.Errorf("%d packets found the queue full", p.dropped)
					}
				})
			}
		}
	}
}

// A delay that grows ends slow start even if acknowledgments are too far apart to tell a
// rate; one that was noise does not.
func TestSlowStartAndDelay(t *testing.T) {
	const window = 1000
	r := round{before: 40 * time.Millisecond}
	var h slowStart
	late := func(rtt time.Duration, began bool) int {
		r.samples, r.least = delaySamples, rtt
		return h.grow(8, began, true, &r, boot)
	}
	if n := late(44*time.Millisecond, true); n != 8 {
		t.Errorf("4 ms more: the window grows by %d, want 8", n)
	}
	if n := late(45*time.Millisecond, false); n != 2 {
		t.Errorf("5 ms more, an eighth: the window grows by %d, want a quarter of 8", n)
	}
	if n := late(43*time.Millisecond, true); n != 8 || h.over(window, &r) {
		t.Errorf("less again: the window grows by %d, want 8", n)
	}
	late(45*time.Millisecond, false)
	for i := range slowRounds {
		if h.over(window, &r) {
			t.Fatalf("over after %d rounds", i)
		}
		late(50*time.Millisecond, true)
	}
	if !h.over(window, &r) {
		t.Errorf("not over after %d rounds", slowRounds)
	}
}

// On a short path, goroutines that wait for a processor delay acknowledgments and space
// them out. Slow start goes on: only a loss ends it.
func TestSlowStartOnAShortPath(t *testing.T) {
	p := newCourse(2e5, time.Millisecond, 4000, 20)
	p.run(time.Second, func() bool { return p.s.SndCwnd > 2000 || p.dropped > 0 })
	if p.slowStartIsOver() || p.s.SndCwnd <= 2000 {
		t.Errorf("slow start ended at %d packets with a round trip of %v before a loss", p.s.SndCwnd, p.c.round.rtt())
	}
	p.run(time.Second, p.slowStartIsOver)
	if p.dropped == 0 || !p.slowStartIsOver() {
		t.Errorf("%d packets, of which %d were lost, and slow start has not ended", p.s.SndCwnd, p.dropped)
	}
}

// A connection that began on a short path has another slow start on a long one: it ends
// where the path is full.
func TestSlowStartOnAPathThatBecameLonger(t *testing.T) {
	p := newCourse(18e3, time.Millisecond, 400, 2)
	p.c.peer.timed(time.Millisecond, boot)
	p.most = 40 // it has no more to say
	p.run(time.Second, never)
	p.rtt = 20 * time.Millisecond
	p.run(longerAfter+time.Second, func() bool { return !p.c.near })
	if p.c.near || p.slowStartIsOver() || p.dropped > 0 {
		t.Fatalf("near: %t, slow start over: %t, %d lost", p.c.near, p.slowStartIsOver(), p.dropped)
	}
	p.most = 0
	p.run(time.Minute, p.slowStartIsOver)
	if full := float64(p.s.SndCwnd) / p.holds(); full < 0.9 || full > 1.4 || p.dropped > 0 {
		t.Errorf("slow start ended at %d packets, %.2f of what the path holds, and %d were lost", p.s.SndCwnd, full, p.dropped)
	}
}

// With few packets under way CUBIC grows as Reno would, of which RFC 9438, section 5.1,
// has the mean window.
func TestRandomLosses(t *testing.T) {
	p := newCourse(1e6, 40*time.Millisecond, 1e6, 2)
	p.loss = 0.001
	p.run(10*time.Second, never)
	p.sum = 0
	from := p.now
	p.run(20*time.Minute, never)
	mean := p.sum / (p.now - from).Seconds()
	want := math.Sqrt(cubicAdditive * (1 + cubicDecrease) / (2 * (1 - cubicDecrease) * p.loss))
	if mean < 0.9*want || mean > 1.4*want {
		t.Errorf("mean window %.1f packets, want about %.1f or a little more", mean, want)
	}
}

// After a loss the window is back where it was after K = ∛(W_max · 0.3 / 0.4) seconds,
// most of it soon (RFC 9438, figure 2).
func TestTheWindowComesBack(t *testing.T) {
	const w = 4000
	p := newCourse(1e6, 200*time.Millisecond, 1e6, 2)
	p.s.SndCwnd, p.s.Ssthresh = w, w
	p.run(time.Second, never)
	before := float64(p.s.SndCwnd)
	p.loss = 1
	p.run(time.Minute, func() bool { return p.s.FastRecovery.Active })
	p.loss = 0
	p.run(time.Minute, func() bool { return !p.s.FastRecovery.Active })
	if got := float64(p.s.SndCwnd) / before; got < 0.69 || got > 0.71 {
		t.Errorf("a loss leaves %.2f of the window, want 0.7", got)
	}
	k := math.Cbrt(before * 0.3 / 0.4)
	p.run(time.Duration(k/2*float64(time.Second)), never)
	if got := float64(p.s.SndCwnd) / before; got < 0.94 || got > 0.98 {
		t.Errorf("after K/2: %.3f of the window before, want 0.96", got)
	}
	p.run(time.Duration(k/2*float64(time.Second)), never)
	if got := float64(p.s.SndCwnd) / before; got < 0.99 || got > 1.01 {
		t.Errorf("after K: %.3f of the window before, want 1", got)
	}
	p.run(time.Duration(k/2*float64(time.Second)), never)
	if got := float64(p.s.SndCwnd) / before; got < 1.03 {
		t.Errorf("after 1.5 K: %.3f of the window before, want more", got)
	}
}

// A flight of packets is one loss, also if its repetition is lost and the timer ends it.
func TestOneDecreaseForALoss(t *testing.T) {
	s := &tcp.TCPSenderState{SndCwnd: 100, Ssthresh: 50, SndUna: 1000, SndNxt: 1100, Outstanding: 100}
	c := newCubic(s, &peer{})
	c.HandleLossDetected()
	if s.Ssthresh != 70 {
		t.Errorf("threshold %d after a loss, want 70", s.Ssthresh)
	}
	s.SndCwnd = s.Ssthresh
	for range 3 {
		c.HandleRTOExpired()
		if s.Ssthresh != 70 || s.SndCwnd != 1 {
			t.Errorf("threshold %d, window %d after timeouts in its recovery, want 70 and 1", s.Ssthresh, s.SndCwnd)
		}
	}
	s.SndUna, s.SndNxt, s.SndCwnd, s.Outstanding = 1100, 1180, 80, 80
	c.HandleRTOExpired()
	if s.Ssthresh != 56 || s.SndCwnd != 1 || c.most != 0 {
		t.Errorf("threshold %d, window %d, W_max %v after another loss, want 56, 1 and none", s.Ssthresh, s.SndCwnd, c.most)
	}
}

// A loss cuts what was under way: else a window that had grown beyond that would not bound
// the sender afterwards either.
func TestLossCutsWhatWasUsed(t *testing.T) {
	s := &tcp.TCPSenderState{SndCwnd: 100, Ssthresh: 50, SndNxt: 60, Outstanding: 60}
	if newCubic(s, &peer{}).HandleLossDetected(); s.Ssthresh != 42 {
		t.Errorf("threshold %d after a loss of 60 packets under way, want 42", s.Ssthresh)
	}
}

// Acknowledgments that come as fast as the sender has something to send tell nothing of the
// path, nor do any before a round trip was measured.
func TestTrainsThatTellNothing(t *testing.T) {
	const rtt = 40 * time.Millisecond
	for _, used := range []bool{true, false} {
		r := round{before: rtt}
		var h slowStart
		for i := range 20 {
			h.grow(1, i == 0, used, &r, boot.Add(time.Duration(i)*time.Millisecond))
		}
		if full := h.over(1000, &r); full != used {
			t.Errorf("20 packets in 20 ms, the window used: %t. Is slow start over? %t", used, full)
		}
		if h.over(1000, &round{}) {
			t.Error("slow start is over before a round trip was measured")
		}
	}
}

// A window that the other end has closed is no loss, however long.
func TestClosedWindow(t *testing.T) {
	s := &tcp.TCPSenderState{SndCwnd: 100, Ssthresh: 50, SndUna: 1100, SndNxt: 1100}
	c := newCubic(s, &peer{})
	for range 3 {
		c.HandleRTOExpired()
	}
	if s.Ssthresh != 50 || s.SndCwnd != tcp.InitialCwnd {
		t.Errorf("threshold %d, window %d, want 50 and %d", s.Ssthresh, s.SndCwnd, tcp.InitialCwnd)
	}
}

// A loss counts however much has passed since the last, also what gVisor decides by.
func TestLossAfterGigabytes(t *testing.T) {
	s := &tcp.TCPSenderState{SndCwnd: 100, Ssthresh: 50, SndUna: 1000, SndNxt: 1100, Outstanding: 100}
	c := newCubic(s, &peer{})
	c.HandleLossDetected()
	s.FastRecovery.Last = s.SndNxt - 1
	for i := range 6 {
		s.SndUna += 1 << 29
		s.SndNxt = s.SndUna + 100
		s.SndCwnd, s.Ssthresh = 100, 50
		c.Update(1, time.Millisecond, boot.Add(time.Duration(i)*time.Millisecond))
	}
	if !s.FastRecovery.Last.LessThan(s.SndUna - 1) {
		t.Error("gVisor would take the next loss for a part of the last")
	}
	s.SndCwnd, s.Outstanding = 100, 100
	if c.HandleLossDetected(); s.Ssthresh != 70 {
		t.Errorf("threshold %d after a loss, want 70", s.Ssthresh)
	}
}

// A queue that slow start has filled was full a round trip ago, and the window half as
// large. Any other loss in slow start is a loss like others.
func TestLossInSlowStart(t *testing.T) {
	for last, want := range map[time.Duration]int{102 * time.Millisecond: 70, 104 * time.Millisecond: 50} {
		s := &tcp.TCPSenderState{SndCwnd: 80, Ssthresh: tcp.InitialSsthresh, SndUna: 1, SndNxt: 100, Outstanding: 90}
		c := newCubic(s, &peer{})
		c.Update(10, 100*time.Millisecond, boot)
		c.Update(10, last, boot.Add(time.Millisecond))
		c.HandleLossDetected()
		if s.Ssthresh != want {
			t.Errorf("a round trip of %v before the loss, 100 ms at least: threshold %d of %d, want %d", last, s.Ssthresh, s.SndCwnd, want)
		}
	}
}

// A window that is not used tells nothing of the path and does not grow, however long.
func TestUnusedWindow(t *testing.T) {
	for _, threshold := range []int{tcp.InitialSsthresh, 100} {
		s := &tcp.TCPSenderState{SndCwnd: 100, Ssthresh: threshold}
		c := newCubic(s, &peer{})
		for i := range 1000 {
			s.SndNxt += 20
			s.SndUna += 20
			c.Update(20, 40*time.Millisecond, boot.Add(time.Duration(i)*40*time.Millisecond))
		}
		if s.SndCwnd != 100 {
			t.Errorf("20 packets a round trip, threshold %d: the window grew from 100 to %d", threshold, s.SndCwnd)
		}
	}
}

// On a short path it does grow in slow start: what bounds the sender there is its room, and
// a window that is near it would cut segments. When the path becomes longer, what was not
// used of the window is no part of it.
func TestUnusedWindowOnAShortPath(t *testing.T) {
	s := &tcp.TCPSenderState{SndCwnd: tcp.InitialCwnd, Ssthresh: tcp.InitialSsthresh}
	c := newCubic(s, &peer{})
	now := boot
	pass := func(rtt time.Duration, until func() bool) {
		for range 1000 {
			if until() {
				return
			}
			now = now.Add(rtt)
			s.SndNxt += 20
			s.SndUna += 20
			c.Update(20, rtt, now)
		}
		t.Fatalf("a window of %d packets, near: %t, after 1,000 round trips of %v", s.SndCwnd, c.near, rtt)
	}
	pass(time.Millisecond, func() bool { return s.SndCwnd > 1000 })
	pass(20*time.Millisecond, func() bool { return !c.near })
	if s.SndCwnd > 60 {
		t.Errorf("a window of %d packets for 20 under way on a path that became longer", s.SndCwnd)
	}
}

// gVisor sets the window back after a rest. What follows does not jump to where it would
// be by now.
func TestWindowAfterARest(t *testing.T) {
	p := newCourse(1e5, 40*time.Millisecond, 1e5, 2)
	p.s.SndCwnd, p.s.Ssthresh = 8, 8
	p.run(5*time.Second, never)
	p.now += time.Hour
	p.flights, p.s.Outstanding, p.s.SndUna = nil, 0, p.s.SndNxt
	before := p.s.SndCwnd
	for _, w := range []int{tcp.InitialCwnd, before} { // it does so with large ones
		p.s.SndCwnd = w
		p.run(200*time.Millisecond, never)
		if p.s.SndCwnd > before+before/4 {
			t.Errorf("from %d to %d packets in the five round trips after a rest, %d before it", w, p.s.SndCwnd, before)
		}
		p.now += time.Hour
		p.flights, p.s.Outstanding, p.s.SndUna = nil, 0, p.s.SndNxt
	}
}

// Who sends at a steady rate below the path's tells nothing of the path by it: slow start
// is not over, so that the window grows as soon as more is sent.
func TestSteadySender(t *testing.T) {
	for _, rtt := range []time.Duration{10 * time.Millisecond, 40 * time.Millisecond, 200 * time.Millisecond} {
		for _, each := range []int{1, 2, 4} {
			for _, under := range []int{5, 6, 8, 10, 12, 16, 20, 40, 80, 160, 320, 640} {
				s := &tcp.TCPSenderState{SndCwnd: tcp.InitialCwnd, Ssthresh: tcp.InitialSsthresh, RTO: time.Second}
				c := newCubic(s, &peer{})
				var sent []time.Duration
				written := 0 // packets
				for now := time.Duration(0); now < 30*rtt; now += rtt * time.Duration(each) / time.Duration(under) {
					written += each
					for len(sent) > 0 && sent[0]+rtt <= now {
						s.SndUna += seqnum.Value(each)
						s.Outstanding -= each
						c.Update(each, now-sent[0], boot.Add(now))
						sent = sent[1:]
					}
					for int(s.SndNxt) < written && s.Outstanding+each <= s.SndCwnd {
						s.SndNxt += seqnum.Value(each)
						s.Outstanding += each
						sent = append(sent, now)
					}
				}
				if s.Ssthresh != tcp.InitialSsthresh {
					t.Errorf("%v, %d packets in a round trip, %d at once: slow start ended at %d", rtt, under, each, s.Ssthresh)
				}
			}
		}
	}
}

// gVisor sets a large window back after a rest. What it was is remembered (RFC 7661,
// section 4.4), not only what the last loss left, which may be long ago. A loss just
// before that leaves a window of the same size is no rest.
func TestWindowIsRememberedOverARest(t *testing.T) {
	p := newCourse(1e5, 100*time.Millisecond, 1e5, 2)
	p.s.SndCwnd, p.s.Ssthresh = 70, 70
	p.run(15*time.Second, never)
	w := p.s.SndCwnd
	p.now += time.Hour
	p.flights, p.s.Outstanding, p.s.SndUna = nil, 0, p.s.SndNxt
	p.s.SndCwnd = tcp.InitialCwnd
	p.run(time.Second, never)
	if p.s.SndCwnd < w*7/10 {
		t.Errorf("%d packets before a rest, %d after ten round trips", w, p.s.SndCwnd)
	}
	p.s.SndCwnd, p.s.Outstanding = 15, 15
	p.c.HandleLossDetected()
	p.s.SndCwnd = p.s.Ssthresh
	p.s.SndUna, p.s.Outstanding = p.s.SndNxt, 0
	p.c.Update(10, 100*time.Millisecond, boot.Add(p.now+time.Hour))
	if p.s.Ssthresh > w/2 {
		t.Errorf("a loss, and a recovery that took long: threshold %d", p.s.Ssthresh)
	}
}
