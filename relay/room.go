package relay

import (
	queue "container/list"
	"net"
	"net/netip"
	"sync"
)

// WaitingRoom holds the connections that have not proven yet that they mean it:
// those before the end of the TLS handshake. Whoever means it leaves after a
// round trip or two, so the longest waiting one is the likeliest to be an
// attacker's. It goes when the room is full, and the newcomer gets its place.
type WaitingRoom struct {
	total, per int

	mu      sync.Mutex // guards all below
	waiting queue.List // of *Place; the longest waiting is in front
	from    map[netip.Prefix]int
}

// Place is one connection's place in a room.
type Place struct {
	room   *WaitingRoom
	conn   net.Conn
	origin netip.Prefix
	entry  *queue.Element // nil once left
}

// NewWaitingRoom makes a room for so many connections in all, and from one address.
func NewWaitingRoom(total, per int) *WaitingRoom {
	return &WaitingRoom{total: total, per: per, from: make(map[netip.Prefix]int)}
}

// Enter gives conn a place, and false when its address has all that one may
// have. It may close the connection that has waited longest.
func (r *WaitingRoom) Enter(conn net.Conn) (*Place, bool) {
	p := &Place{room: r, conn: conn, origin: Origin(conn.RemoteAddr())}
	r.mu.Lock()
	if r.from[p.origin] >= r.per {
		r.mu.Unlock()
		return nil, false
	}
	var oldest *Place
	if r.waiting.Len() >= r.total {
		oldest = r.waiting.Front().Value.(*Place)
		oldest.leaveLocked()
	}
	r.from[p.origin]++
	p.entry = r.waiting.PushBack(p)
	r.mu.Unlock()
	if oldest != nil {
		Abort(oldest.conn) // ends its greeting
	}
	return p, true
}

// Leave gives the place back; a second time, or after eviction, it does nothing.
func (p *Place) Leave() {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	p.leaveLocked()
}

func (p *Place) leaveLocked() {
	if p.entry == nil {
		return
	}
	p.room.waiting.Remove(p.entry)
	p.entry = nil
	if p.room.from[p.origin]--; p.room.from[p.origin] == 0 {
		delete(p.room.from, p.origin)
	}
}
