package netstack

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	// pathRate is up to which rate a path is filled, in bytes per second. More
	// of it is felt by every packet that waits behind what is under way.
	pathRate = 4e9 / 8

	// slack is what is added to a path's round trip: what bytes wait for
	// goroutines on a busy machine.
	slack = 2 * time.Millisecond

	// A path whose round trip takes less than near is one machine or a LAN.
	near = 5 * time.Millisecond

	// A path has become longer if everything took so for longerAfter, and that was
	// longerTimes or more: 10 s of heartbeats, if there is nothing else.
	longerAfter = 5 * time.Second
	longerTimes = 5

	// unknownRTT stands for that of a path that has not been measured: the
	// window may then be too large, which costs less than one too small.
	unknownRTT = 50 * time.Millisecond

	nodePrefixBits = 8 * nodePrefixBytes
)

// peers are the nodes at the other ends of connections. A connection's
// own round trip time, taken beside a transfer, has that transfer's queue in
// it; the least of all connections to the same node hardly.
type peers struct {
	mu  sync.Mutex // guards what follows and each peer's conns
	m   map[netip.Prefix]*peer
	one bool // all connections lead to the same node, whatever their addresses
}

// areOne says that everything comes and goes through one node from now on.
func (ps *peers) areOne() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.one = true
}

// to finds the node that has addr. Each call takes a reference, which drop gives
// back.
func (ps *peers) to(addr netip.Addr) *peer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var key netip.Prefix
	if !ps.one {
		key = netip.PrefixFrom(addr, nodePrefixBits).Masked()
	}
	p := ps.m[key]
	if p == nil {
		p = &peer{key: key}
		if ps.m == nil {
			ps.m = map[netip.Prefix]*peer{}
		}
		ps.m[key] = p
	}
	p.conns++
	return p
}

// drop gives a reference back. With the last, the peer is forgotten: then
// nothing of ours is in the way of the next measurement.
func (ps *peers) drop(p *peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.conns--; p.conns == 0 {
		delete(ps.m, p.key)
	}
}

// peer is a node, and how long the path to it is.
type peer struct {
	key   netip.Prefix
	conns int // that refer to it

	mu     sync.Mutex    // guards what follows
	rtt    time.Duration // the least round trip time, 0 if there is none
	longer longer

	readers, writers busy
	dialogue         dialogue
}

// longer is the round trip times, one after the other, that were all much longer than
// what is the path's.
type longer struct {
	times int // how many; 0: the last was not
	since tcpip.MonotonicTime
	least time.Duration
}

// timed takes in a round trip time, of a handshake or of what was acknowledged at now, and
// reports whether the path is known to be short. The least counts, until for some seconds
// all take twice as long or more, as when a laptop moves. A busy machine makes most of them
// long, and never all for so long: of the thousand in a second in which 8 connections
// transferred, and four programs computed on two processors, the middle one was 14 to 36 ms,
// and the least 1 to 3.
func (p *peer) timed(rtt time.Duration, now tcpip.MonotonicTime) bool {
	rtt = max(rtt, tcp.MinSRTT) // timestamps count milliseconds
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &p.longer
	switch {
	case p.rtt == 0 || rtt < p.rtt:
		p.rtt, *l = rtt, longer{}
	case rtt < max(2*p.rtt, near):
		*l = longer{}
	case l.times == 0:
		*l = longer{times: 1, since: now, least: rtt}
	default:
		l.times++
		l.least = min(l.least, rtt)
		if l.times >= longerTimes && now.Sub(l.since) >= longerAfter {
			p.rtt, *l = l.least, longer{}
		}
	}
	return p.nearby()
}

// nearby tells whether the path is known to be short. p.mu is held.
func (p *peer) nearby() bool { return p.rtt != 0 && p.rtt < near }

// share is how large the receive window of a busy connection to the peer may be,
// in bytes: more than the sender's part, so that it is the sender who decides.
// last belongs to the connection.
func (p *peer) share(last *time.Duration, now time.Duration) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.readers.count(last, now)
	enough := min(windowEnough, windowsMost/n)
	return min(max(2*p.budget()/n, enough, windowLeast), windowMost)
}

// allot is what a busy connection to the peer may have sent that is not
// acknowledged, in bytes: an equal part of what the path may hold. A quarter of that is
// less to wait behind for a dialogue, and half is enough for several on a long path,
// where it is memory. last belongs to the connection.
func (p *peer) allot(last *time.Duration, now time.Duration) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.writers.count(last, now)
	switch talks, near := p.dialogue.goesOn(now), p.nearby(); {
	case talks && near:
		n *= 4
	case talks, n > 1 && !near:
		n *= 2
	}
	return min(p.budget()/n, windowMost)
}

// budget is what the path may hold, in bytes.
func (p *peer) budget() int {
	rtt := p.rtt
	if rtt == 0 {
		rtt = unknownRTT
	}
	return int(pathRate * (rtt + slack).Seconds())
}

// busy counts connections that were busy in the last growWithin or two.
type busy struct {
	epoch       time.Duration // when the count began
	now, lately int           // connections in this epoch, and in the one before
}

// count counts a connection, once in an epoch, and returns how many there are. last
// belongs to the connection.
func (b *busy) count(last *time.Duration, now time.Duration) int {
	if now-b.epoch >= growWithin {
		b.lately = b.now
		if now-b.epoch >= 2*growWithin {
			b.lately = 0
		}
		b.epoch, b.now = now, 0
	}
	if *last < b.epoch || *last == 0 {
		*last = now
		b.now++
	}
	return max(b.now, b.lately)
}
