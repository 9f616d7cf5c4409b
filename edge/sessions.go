package edge

import (
	"crypto/rand"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/tunnel"
)

// presence is what lives in memory of one agent: its liveness, and the session
// it has now. It outlives sessions and ends with a revocation.
type presence struct {
	live    *liveness
	session *session  // nil: none
	process string    // of the latest session; see control.Presence
	since   time.Time // of the last turn between up and away
}

// sessions are the agents that are or were here since the start of the edge.
type sessions struct {
	mu      sync.Mutex // guards all below
	nodes   map[tunnel.NodeID]*presence
	changed chan struct{} // closed and replaced at each change, for whoever waits
}

func newSessions() *sessions {
	return &sessions{nodes: make(map[tunnel.NodeID]*presence), changed: make(chan struct{})}
}

// liveness is that of the node, made at the first call.
func (ss *sessions) liveness(id tunnel.NodeID) *liveness {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.presenceLocked(id).live
}

func (ss *sessions) presenceLocked(id tunnel.NodeID) *presence {
	p := ss.nodes[id]
	if p == nil {
		p = &presence{live: newLiveness()}
		ss.nodes[id] = p
	}
	return p
}

func (ss *sessions) changedLocked() {
	close(ss.changed)
	ss.changed = make(chan struct{})
}

// begin makes s the session of its node, and stops the one before: whoever
// holds the key now is the agent. The node is away until the session has
// published: what is in the table was another process's, perhaps, and leads
// nowhere. another tells that the session before was another process's, whose
// connections went with it.
func (ss *sessions) begin(s *session, now time.Time) (another bool) {
	ss.mu.Lock()
	p := ss.presenceLocked(s.node)
	old := p.session
	another = p.process != "" && p.process != s.process
	p.process = s.process
	p.session = s
	p.live.Heard()
	if !p.live.Away() {
		p.since = now
	}
	p.live.SetAway()
	ss.changedLocked()
	ss.mu.Unlock()
	if old != nil {
		old.stop(control.ServerEvent{Type: control.EventSuperseded,
			Message: "another process with this agent's key has connected; this one is served no longer"})
	}
	return another
}

// published says that what session id wants is served now: its node is up.
func (ss *sessions) published(node tunnel.NodeID, id string, now time.Time) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	p := ss.nodes[node]
	if p == nil || p.session == nil || p.session.id != id || p.session.published {
		return
	}
	p.session.published = true
	if p.live.Away() {
		p.since = now
	}
	p.live.SetUp()
	ss.changedLocked()
}

// end takes s out. The node is away at once, unless a newer session is there.
func (ss *sessions) end(s *session, now time.Time) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	close(s.ended)
	p := ss.nodes[s.node]
	if p == nil || p.session != s {
		return
	}
	p.session = nil
	if !p.live.Away() {
		p.since = now
	}
	p.live.SetAway()
	ss.changedLocked()
}

// turn makes the node up or away while s is its session.
func (ss *sessions) turn(s *session, up bool, now time.Time) (turned bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	p := ss.nodes[s.node]
	if p == nil || p.session != s || p.live.Away() != up || up && !s.published {
		return false
	}
	p.since = now
	if up {
		p.live.SetUp()
	} else {
		p.live.SetAway()
	}
	ss.changedLocked()
	return true
}

// forget takes a revoked node out and returns the session that it had.
func (ss *sessions) forget(id tunnel.NodeID) *session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	p := ss.nodes[id]
	if p == nil {
		return nil
	}
	delete(ss.nodes, id)
	p.live.SetAway()
	ss.changedLocked()
	return p.session
}

// current is the id of the node's session, "" without one.
func (ss *sessions) current(id tunnel.NodeID) string {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if p := ss.nodes[id]; p != nil && p.session != nil {
		return p.session.id
	}
	return ""
}

// state is whether the node is up, and since when it is that or away. The zero
// time: it has not been here since the edge started.
func (ss *sessions) state(id tunnel.NodeID) (up bool, since time.Time) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	p := ss.nodes[id]
	if p == nil {
		return false, time.Time{}
	}
	return !p.live.Away(), p.since
}

// tellAll stops no session, and sends all of them an event.
func (ss *sessions) tellAll(ev control.ServerEvent) {
	ss.mu.Lock()
	var all []*session
	for _, p := range ss.nodes {
		if p.session != nil {
			all = append(all, p.session)
		}
	}
	ss.mu.Unlock()
	for _, s := range all {
		s.tell(ev)
	}
}

// session is one event stream of one agent. Its own goroutine alone sends.
type session struct {
	id      string
	node    tunnel.NodeID
	process string                   // of the agent; see control.Presence
	from    string                   // its UDP address, or ""
	last    chan control.ServerEvent // capacity 1: send it and end
	note    chan control.ServerEvent // capacity 1: send it and go on
	ended   chan struct{}            // closed when the stream is over

	published bool // guarded by sessions.mu: it has said what it wants, and that is served
}

func newSession(node tunnel.NodeID) *session {
	return &session{
		id: rand.Text(), node: node,
		last: make(chan control.ServerEvent, 1), note: make(chan control.ServerEvent, 1),
		ended: make(chan struct{}),
	}
}

// stop has the session send ev and end. The first call counts.
func (s *session) stop(ev control.ServerEvent) {
	select {
	case s.last <- ev:
	default:
	}
}

// tell has the session send ev, unless one is still waiting.
func (s *session) tell(ev control.ServerEvent) {
	select {
	case s.note <- ev:
	default:
	}
}
