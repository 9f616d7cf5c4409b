package netstack

import (
	"math"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// flowBuckets is the number of queues that flows are spread over by
	// their hash. Two flows that meet in one bucket share its turn; they
	// stay in order, so nothing but fairness between the two is lost.
	flowBuckets = 1024

	// quantum is what a flow may send in its turn, in bytes: one large segment
	// at the usual MTU, which the far end then joins as a whole. A flow that
	// sends now and then does not wait for the others' turns.
	quantum = 45 * 1320

	// flowLossy bounds the packets of one flow that are not TCP. TCP is
	// bounded by its windows, and dropping what it sent would only make it
	// send again, so a connection's packets are never dropped here.
	flowLossy = 512

	// urgentShare is how much of a batch the packets without a flow may
	// have, and urgentMost how many may wait: a node that provokes a RST
	// with every packet must not starve the others. A RST that is lost is
	// provoked again.
	urgentShare = 32
	urgentMost  = 1024
)

// A piece is a part of one queued packet that one Read emits, as packets of
// their own. It owns a reference to the packet.
type piece struct {
	pkt   *stack.PacketBuffer
	path  *Path
	start int // where the first of them begins, in bytes of the packet's payload
	step  int // bytes of payload in each but the packet's last; 0: it leaves whole
	count int // how many they are
}

// queued is a packet, the way that it goes, and how far it was emitted.
type queued struct {
	pkt  *stack.PacketBuffer
	path *Path
	next int // bytes of payload emitted
}

// cut is how the rest of the packet is cut at this moment: the payload of each
// packet, 0 for a packet that leaves whole, and their number. The path may have
// another size at the next call.
func (q *queued) cut() (step, count int) {
	if q.pkt.GSOOptions.Type == stack.GSONone {
		return 0, 1
	}
	step = q.path.payload(headersOf(q.pkt), int(q.pkt.GSOOptions.MSS))
	rest := q.pkt.Data().Size() - q.next
	return step, max(1, (rest+step-1)/step) // an ACK has no payload
}

// flow is one bucket's packets, oldest first.
type flow struct {
	pkts    []queued
	head    int // index of the oldest in pkts
	deficit int // bytes the flow may still send in this turn
	listed  bool
	next    *flow
}

func (f *flow) empty() bool { return f.head == len(f.pkts) }

func (f *flow) push(q queued) {
	if f.empty() {
		f.pkts, f.head = f.pkts[:0], 0
	} else if f.head > 64 && f.head > len(f.pkts)/2 {
		n := copy(f.pkts, f.pkts[f.head:])
		clear(f.pkts[n:])
		f.pkts, f.head = f.pkts[:n], 0
	}
	f.pkts = append(f.pkts, q)
}

func (f *flow) pop() {
	f.pkts[f.head] = queued{}
	f.head++
}

// turns is a list of flows, each listed at most once over both lists.
type turns struct{ head, tail *flow }

func (t *turns) push(f *flow) {
	f.next = nil
	if t.tail == nil {
		t.head = f
	} else {
		t.tail.next = f
	}
	t.tail = f
}

func (t *turns) pop() *flow {
	f := t.head
	t.head = f.next
	if t.head == nil {
		t.tail = nil
	}
	f.next = nil
	return f
}

// queue holds what the stack sends until WireGuard reads it. It is fair
// between flows by deficit round robin, with flows that were idle served
// before those with a backlog (RFC 8290, section 4.2), so that a keystroke
// does not wait behind a download. Packets with no flow, such as a RST for a
// connection that is not there, go first, up to a share.
type queue struct {
	mu     sync.Mutex // guards all below
	urgent flow
	flows  [flowBuckets]flow
	fresh  turns // flows that became active since their last turn
	bulk   turns // flows with a backlog
	acks   acks
	closed bool
	drops  uint64 // packets dropped by flowLossy and urgentMost

	// wake has a token when packets may have come since Read last found
	// none. The channel is never closed: done ends a waiting reader.
	wake chan struct{}
	done chan struct{}
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// push queues one packet that goes the given way, taking a reference of its own.
func (q *queue) push(pkt *stack.PacketBuffer, path *Path) tcpip.Error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return &tcpip.ErrClosedForSend{}
	}
	if a, ok := pkt.Owner.(*acker); ok && q.hold(a, pkt, path) {
		return nil
	}
	return q.enqueue(queued{pkt: pkt, path: path})
}

// enqueue queues one packet, taking a reference of its own. q.mu is held.
func (q *queue) enqueue(item queued) tcpip.Error {
	pkt := item.pkt
	f, most := &q.urgent, urgentMost
	if pkt.Hash != 0 {
		f, most = &q.flows[pkt.Hash%flowBuckets], math.MaxInt
		if pkt.TransportProtocolNumber != header.TCPProtocolNumber {
			most = flowLossy
		}
	}
	if len(f.pkts)-f.head >= most {
		q.drops++
		return &tcpip.ErrNoBufferSpace{}
	}
	pkt.IncRef()
	f.push(item)
	if pkt.Hash != 0 && !f.listed {
		f.listed = true
		f.deficit = quantum
		q.fresh.push(f)
	}
	select {
	case q.wake <- struct{}{}:
	default: // a token is there already
	}
	return nil
}

// take appends to dst the next at most max packets, in the order to send.
func (q *queue) take(dst []piece, max int) []piece {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n := 0; n < urgentShare && max > 0 && !q.urgent.empty(); n++ {
		p, _ := takeFrom(&q.urgent, max, math.MaxInt)
		dst = append(dst, p)
		max -= p.count
	}
	for max > 0 {
		list := &q.fresh
		if list.head == nil {
			list = &q.bulk
		}
		f := list.head
		if f == nil {
			break
		}
		for max > 0 && !f.empty() && f.deficit > 0 {
			p, size := takeFrom(f, max, f.deficit)
			dst = append(dst, p)
			max -= p.count
			f.deficit -= size
		}
		switch {
		case f.empty() && list == &q.fresh && q.bulk.head != nil:
			// A flow that emptied in its first turn has one more among
			// the others before it counts as new again: otherwise a flow
			// that always has just one packet would starve them (RFC
			// 8290, section 4.2).
			list.pop()
			q.bulk.push(f)
		case f.empty():
			list.pop()
			f.listed = false
		case f.deficit <= 0:
			list.pop()
			f.deficit += quantum
			q.bulk.push(f)
		}
	}
	return dst
}

// takeFrom takes of the flow's oldest packet up to max packets and budget
// bytes, at least one, and tells about how many bytes they have.
func takeFrom(f *flow, max, budget int) (piece, int) {
	it := &f.pkts[f.head]
	step, count := it.cut()
	p := piece{pkt: it.pkt, path: it.path, start: it.next, step: step, count: count}
	size := it.pkt.Size()
	if count > 1 {
		if p.count = min(count, max, budget/step); p.count == 0 {
			p.count = 1
		}
		size = p.count * step
	}
	it.next += p.count * step
	if p.count == count {
		f.pop() // the piece has the queue's reference
	} else {
		it.pkt.IncRef()
	}
	return p, size
}

// close refuses further packets, releases those queued and ends a waiting
// reader.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed = true
	close(q.done)
	release := func(f *flow) {
		for !f.empty() {
			f.pkts[f.head].pkt.DecRef()
			f.pop()
		}
		f.pkts = nil
		f.head = 0
	}
	q.acks.drop()
	release(&q.urgent)
	for i := range q.flows {
		release(&q.flows[i])
	}
	q.fresh, q.bulk = turns{}, turns{}
}
