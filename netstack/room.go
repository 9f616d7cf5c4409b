package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// room is how much of what was written may be in the send buffer, which holds
// what waits and what is not acknowledged: a connection's share of what its path
// may hold (peer.allot), in whole large segments.
//
// A write is taken whole or waits, and the room is less than the other end's
// window, so that there is nothing to cut. TCP cuts a segment wherever a
// congestion window or the receiver's ends, and the pieces stay: each
// acknowledgement of a small segment makes room for another one. With eight
// connections that shared a megabyte, a segment had 28 KB on average instead of 59.
type room struct {
	size  int           // bytes
	bytes int           // written since size was looked at
	epoch time.Duration // when the peer was told that the connection is busy
	ahead int           // bytes to come of an answer's first two segments
	least int           // what the size is at least while there are some
}

// answers takes in that what is written next answers what was heard. Its first two
// segments have room, as they have on a new connection: with room for one, the rest of
// a page would wait for an acknowledgment, in turns of all goroutines of both nodes.
func (r *room) answers(segment int) { r.ahead, r.least = 2*segment, 2*segment }

// limit is the size of the send buffer at which it has space if a write of n bytes,
// a segment at most, fits the room beside two packets of mss bytes. gVisor tells that
// it has space again when less than half of it is taken: with room for one segment,
// when one packet is left, whose acknowledgement may wait for company (acker).
func (r *room) limit(n, mss int) int { return max(r.size, r.least) - n + 2*mss + 2 }

// wrote takes in that n bytes were written now to p; heard is that something came from
// there since the write before.
func (r *room) wrote(n, segment int, heard bool, now time.Duration, p *peer) {
	if busy := r.epoch != 0 && now-r.epoch < 2*growWithin; heard && n < segment/8 && !busy {
		p.dialogue.said(now)
	}
	if r.ahead -= n; r.ahead <= 0 {
		r.ahead, r.least = 0, 0
	}
	// Whoever sends less than two segments is not busy.
	if r.bytes += n; r.bytes >= max(r.size, 2*segment) {
		r.bytes = 0
		// Rounded up: with room for one alone, a connection waits for each round trip.
		r.size = min((p.allot(&r.epoch, now)+segment-1)/segment, windowMost/segment) * segment
	}
}

// largest is how many bytes of payload the largest segment has that the stack
// makes.
func (l *link) largest() int {
	return int(l.GSOMaxSize()) - header.TCPTotalHeaderMaximumSize - 1
}
