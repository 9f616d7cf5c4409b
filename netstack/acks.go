package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ackWait is how long an acknowledgment of little waits for something to go
// with, at least; at most it is twice that. RFC 9293, section 3.8.6.3, allows
// 500 ms, and Linux takes 40 ms and more. A sender that is held up by it for
// so long has ten messages under way that together are no full segment.
const ackWait = 5 * time.Millisecond

// acker is one connection, as to its acknowledgments. gVisor acknowledges at
// once whatever comes, though an answer that would have said the same often
// follows within a millisecond. In a dialogue, which is what a keystroke or a
// request is, that makes every second packet one that nobody waits for, and
// that each side wakes five goroutines for.
//
// It stands in gVisor for the owner of the connection's packets, by which the
// queue knows whose they are. The queue's mutex guards it.
type acker struct {
	held   queued       // an acknowledgment that waits; pkt is nil if there is none
	since  uint64       // acks.tick when it began to
	listed bool         // in acks.waiting
	told   seqnum.Value // up to where the last packet that left acknowledges
	begun  bool         // one has

	vain   bool                // the last that waited left alone: nothing came for it to go with
	lone   tcpip.MonotonicTime // when the last came that could have waited
	missed bool                // that one left at once, and nothing has been sent since
}

// KUID implements tcpip.PacketOwner: no user.
func (*acker) KUID() uint32 { return 0 }

// KGID implements tcpip.PacketOwner: no group.
func (*acker) KGID() uint32 { return 0 }

// acks are the acknowledgments of a queue that wait. Its mutex guards them.
type acks struct {
	segment int // bytes of payload of a full segment; 0: none waits
	clock   tcpip.Clock
	waiting []*acker    // those with one, and some that have none any more
	tick    uint64      // counts calls of release
	timer   tcpip.Timer // of release; nil: not made yet
	armed   bool
}

// hold reports whether pkt, which goes the given way, is an acknowledgment that
// now waits. Otherwise it is to be queued, and what waited before it is queued
// already, or said by pkt too. q.mu is held.
func (q *queue) hold(a *acker, pkt *stack.PacketBuffer, path *Path) bool {
	tcp := header.TCP(pkt.TransportHeader().Slice())
	flags, ack := tcp.Flags(), seqnum.Value(tcp.AckNumber())
	if !flags.Contains(header.TCPFlagAck) {
		return false
	}
	alone := flags == header.TCPFlagAck && pkt.Data().Size() == 0
	if !alone {
		q.goes(a)
	}
	since := q.acks.tick
	if a.held.pkt != nil {
		since = a.since
		old := a.held
		a.held = queued{}
		if before := header.TCP(old.pkt.TransportHeader().Slice()); alone && seqnum.Value(before.AckNumber()) == ack {
			// It repeats the one that waits, which tells the other end of a
			// loss or of the window: both count.
			q.enqueue(old)
			a.told = ack
		}
		old.pkt.DecRef()
	}
	news := a.told.Size(ack)
	// More options than the timestamps are ranges that came after a loss.
	little := news > 0 && int(news) < q.acks.segment && len(tcp) <= header.TCPMinimumSize+12
	if !alone || !a.begun || !little {
		a.told, a.begun = ack, true
		return false
	}
	if q.hopeless(a) {
		a.told = ack
		return false
	}
	pkt.IncRef()
	a.held, a.since = queued{pkt: pkt, path: path}, since
	if !a.listed {
		a.listed = true
		q.acks.waiting = append(q.acks.waiting, a)
	}
	if !q.acks.armed {
		q.acks.armed = true
		if q.acks.timer == nil {
			q.acks.timer = q.acks.clock.AfterFunc(ackWait, q.release)
		} else {
			q.acks.timer.Reset(ackWait)
		}
	}
	return true
}

// hopeless reports whether an acknowledgment of a's that comes now need not wait:
// the last one waited for nothing, and is too long ago to be one with it. So what
// says something now and then, and is not answered, such as the answers to
// heartbeats, costs no timer. q.mu is held.
func (q *queue) hopeless(a *acker) bool {
	now := q.acks.clock.NowMonotonic()
	late := now.Sub(a.lone) >= 2*ackWait
	a.lone = now
	a.missed = a.vain && late
	return a.missed
}

// goes notes that a sends something that an acknowledgment can go with. One that
// would have gone with it, had it waited, is a reason to wait again. q.mu is held.
func (q *queue) goes(a *acker) {
	if a.held.pkt != nil || a.missed && q.acks.clock.NowMonotonic().Sub(a.lone) < ackWait {
		a.vain = false
	}
	a.missed = false
}

// release queues the acknowledgments that have waited through a whole tick.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	rest := q.acks.waiting[:0]
	for _, a := range q.acks.waiting {
		switch {
		case a.held.pkt == nil:
			a.listed = false
		case a.since == q.acks.tick:
			rest = append(rest, a)
		default:
			a.listed, a.vain = false, true
			q.enqueueHeld(a)
		}
	}
	clear(q.acks.waiting[len(rest):])
	q.acks.waiting = rest
	q.acks.tick++
	if q.acks.armed = len(rest) > 0; q.acks.armed {
		q.acks.timer.Reset(ackWait)
	}
}

// settle queues all acknowledgments that wait, and reports whether the queue is
// empty.
func (q *queue) settle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return true
	}
	for _, a := range q.acks.waiting {
		if a.listed = false; a.held.pkt != nil {
			q.enqueueHeld(a)
		}
	}
	clear(q.acks.waiting)
	q.acks.waiting = q.acks.waiting[:0] // the timer finds none
	return q.urgent.empty() && q.fresh.head == nil && q.bulk.head == nil
}

// enqueueHeld queues the acknowledgment that a holds. q.mu is held.
func (q *queue) enqueueHeld(a *acker) {
	a.told = seqnum.Value(header.TCP(a.held.pkt.TransportHeader().Slice()).AckNumber())
	q.enqueue(a.held)
	a.held.pkt.DecRef()
	a.held = queued{}
}

// drop forgets all that wait.
func (as *acks) drop() {
	if as.timer != nil {
		as.timer.Stop()
	}
	for _, a := range as.waiting {
		if a.held.pkt != nil {
			a.held.pkt.DecRef()
			a.held = queued{}
		}
	}
	as.waiting = nil
}
