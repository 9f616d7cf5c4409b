//go:build linux

package link

import (
	"math/rand/v2"
	"time"
)

// shaper decides what becomes of one direction's packets, and when. It is
// told the time, as a duration since any fixed moment, and does no I/O. It is
// not for concurrent use.
type shaper struct {
	cond  Conditions
	rng   *rand.Rand
	stats Stats

	// free is when the wire has carried all that was accepted so far. What
	// waits in the queue is therefore (free - now) × rate, and needs no list.
	free time.Duration

	flying heap
	order  uint64 // of the next packet in flying
	spare  [][]byte
}

func newShaper(seed uint64, d Direction) *shaper {
	return &shaper{rng: rand.New(rand.NewPCG(seed, uint64(d)))}
}

// push hands the shaper a packet at time now; it keeps a copy.
func (s *shaper) push(now time.Duration, pkt []byte) {
	// All draws for every packet, so that none shifts the later ones.
	lost, twice, held := s.rng.Float64(), s.rng.Float64(), s.rng.Float64()
	c := &s.cond
	s.stats.Seen++
	s.stats.SeenBytes += uint64(len(pkt))
	if c.Down {
		s.stats.Lost++
		return
	}
	if c.MTU > 0 && len(pkt) > c.MTU {
		s.stats.TooBig++
		s.stats.DroppedBytes += uint64(len(pkt))
		return
	}
	leaves := now
	if c.Rate > 0 {
		if backlog := s.free - now; backlog > 0 {
			if backlog.Seconds()*c.Rate/8+float64(len(pkt)) > float64(c.queue()) {
				s.stats.Overflowed++
				s.stats.DroppedBytes += uint64(len(pkt))
				return
			}
			leaves = s.free
		}
		leaves += time.Duration(float64(len(pkt)) * 8 / c.Rate * float64(time.Second))
		s.free = leaves
	}
	if lost < c.Loss {
		s.stats.Lost++
		return
	}
	s.stats.Forwarded++
	arrives := leaves + c.Delay
	if held < c.Reorder {
		s.stats.Held++
		arrives += c.HoldBack
	}
	s.fly(arrives, pkt)
	if twice < c.Duplicate {
		s.stats.Duplicated++
		s.fly(arrives, pkt)
	}
}

func (s *shaper) fly(arrives time.Duration, pkt []byte) {
	var b []byte
	if n := len(s.spare); n > 0 {
		b, s.spare = s.spare[n-1], s.spare[:n-1]
	}
	s.flying.push(flight{at: arrives, order: s.order, pkt: append(b[:0], pkt...)})
	s.order++
}

// next is when the next packet arrives; false when none is under way.
func (s *shaper) next() (time.Duration, bool) {
	if len(s.flying) == 0 {
		return 0, false
	}
	return s.flying[0].at, true
}

// pop returns a packet that has arrived by now; false when there is none. The
// caller gives it back to recycle.
func (s *shaper) pop(now time.Duration) ([]byte, bool) {
	if at, ok := s.next(); !ok || at > now {
		return nil, false
	}
	return s.flying.pop().pkt, true
}

func (s *shaper) recycle(pkt []byte) { s.spare = append(s.spare, pkt) }

// flight is a packet under way.
type flight struct {
	at    time.Duration
	order uint64
	pkt   []byte
}

// before orders flights by arrival, and those of one moment as they were sent.
func (f *flight) before(g *flight) bool {
	return f.at < g.at || f.at == g.at && f.order < g.order
}

// heap is a binary min-heap. container/heap would box each flight.
type heap []flight

func (h *heap) push(f flight) {
	*h = append(*h, f)
	q := *h
	for i := len(q) - 1; i > 0; {
		parent := (i - 1) / 2
		if !q[i].before(&q[parent]) {
			return
		}
		q[i], q[parent] = q[parent], q[i]
		i = parent
	}
}

func (h *heap) pop() flight {
	q := *h
	first := q[0]
	last := len(q) - 1
	q[0], q[last] = q[last], flight{}
	q = q[:last]
	*h = q
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(q) {
			return first
		}
		if child+1 < len(q) && q[child+1].before(&q[child]) {
			child++
		}
		if !q[child].before(&q[i]) {
			return first
		}
		q[i], q[child] = q[child], q[i]
		i = child
	}
}
