package control

import (
	"net/http"
	"sync"

	"github.com/wgexpose/wgexpose/tunnel"
)

// Presence says which process of an agent opens an event stream.
//
// Two processes with one key (a copied state directory) would otherwise take
// the agent's place from each other for ever: WireGuard sends to whoever used
// the key last, so the one that lost it cannot be told, hears nothing,
// reconnects, and is the winner. With a Presence it is told when it comes
// back: the process that came last stays.
type Presence struct {
	Process string // random, the same for the life of the process; "" opts out
	Again   bool   // this process has had a stream before
	Version string // of the agent's program; "" tells nothing
}

// Headers of an event stream's request.
const (
	headerProcess = "Wgexpose-Process"
	headerAgain   = "Wgexpose-Again"
	headerVersion = "Wgexpose-Version"
)

func (p Presence) set(h http.Header) {
	if p.Version != "" {
		h.Set(headerVersion, p.Version)
	}
	if p.Process == "" {
		return
	}
	h.Set(headerProcess, p.Process)
	if p.Again {
		h.Set(headerAgain, "1")
	}
}

func presenceOf(h http.Header) Presence {
	p := Presence{Process: h.Get(headerProcess), Again: h.Get(headerAgain) != "", Version: clean(h.Get(headerVersion), maxLabel)}
	if len(p.Process) > maxLabel {
		return Presence{}
	}
	return p
}

// streams knows which process holds each node's latest event stream.
type streams struct {
	mu     sync.Mutex // guards latest
	latest map[tunnel.NodeID]*Presence
}

// begin takes note of a new stream. It is nil when the process has lost its
// place to another one, which has a stream now; otherwise end must follow.
func (s *streams) begin(id tunnel.NodeID, p Presence) *Presence {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.latest[id]; now != nil && p.Again && p.Process != "" && now.Process != "" && now.Process != p.Process {
		return nil
	}
	s.latest[id] = &p
	return &p
}

// end forgets the stream that begin returned, unless there is a later one.
func (s *streams) end(id tunnel.NodeID, p *Presence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest[id] == p {
		delete(s.latest, id)
	}
}
