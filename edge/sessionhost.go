package edge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

// eventStream is what a session needs of a control.Session.
type eventStream interface {
	Send(control.ServerEvent) error
	Recv() (control.AgentEvent, error)
	Close() error // makes a waiting Recv return
}

// lifeline decides when an agent is away: when for a while neither an event
// came nor a byte over WireGuard. Bulk traffic may hold up events for long,
// and is a sign of life itself.
type lifeline struct {
	heartbeat, away time.Duration
	last            time.Time // the last sign of life
	rx              uint64    // WireGuard's count at the last look; valid while watching
	watching        bool      // events are overdue, so WireGuard is looked at
}

// heard notes an event.
func (l *lifeline) heard(now time.Time) { l.last, l.watching = now, false }

// overdue is after how long without an event WireGuard's count is needed to
// judge.
func (l *lifeline) overdue() time.Duration { return l.heartbeat + l.heartbeat/4 }

// look judges with WireGuard's count of received bytes. The first look after an
// event only notes the count: what came before it may be older than the event.
func (l *lifeline) look(now time.Time, rx uint64) (grew bool) {
	if l.watching && rx != l.rx {
		l.last, grew = now, true
	}
	l.rx, l.watching = rx, true
	return grew
}

// isAway tells whether there was no sign of life for too long.
func (l *lifeline) isAway(now time.Time) bool { return now.Sub(l.last) >= l.away }

// host runs sessions: what they need besides the stream.
type sessionHost struct {
	sessions *sessions
	timing   Timing
	domain   string
	version  string
	received func(keys.Public) (uint64, error) // bytes over WireGuard so far
	call     func(keys.Public) error           // begin a WireGuard handshake
	log      *slog.Logger
}

// run is the life of one stream of node, whose session has begun.
func (h *sessionHost) run(ctx context.Context, s *session, node store.Node, stream eventStream) error {
	live := h.sessions.liveness(s.node)
	if err := stream.Send(control.ServerEvent{Type: control.EventHello, Session: s.id, Domain: h.domain, Version: h.version, From: s.from}); err != nil {
		return err
	}
	events := make(chan control.AgentEvent)
	broken := make(chan error, 1)
	quit := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() { broken <- receive(stream, events, quit) })
	defer func() {
		close(quit)
		stream.Close()
		reader.Wait()
	}()

	line := lifeline{heartbeat: h.timing.Heartbeat, away: h.timing.Away}
	line.heard(time.Now())
	// Armed while events are overdue and the agent counts as up.
	look := time.NewTimer(line.overdue())
	defer look.Stop()
	for {
		var err error
		select {
		case ev := <-events:
			line.heard(time.Now())
			look.Reset(line.overdue())
			live.Heard()
			h.turn(s, node, true)
			switch ev.Type {
			case control.EventUpstream:
				live.Report(ev.Tunnel, upstreamFailure(ev))
			case control.EventHeartbeat: // the answer tells the agent that it is heard
				if ev.Call {
					h.handshake(node)
				}
				err = stream.Send(control.ServerEvent{Type: control.EventHeartbeat, Pong: ev.Ping})
			}
		case ev := <-s.note:
			err = stream.Send(ev)
		case ev := <-s.last:
			if err := stream.Send(ev); err != nil {
				return err
			}
			return h.linger(ctx, events, broken)
		case now := <-look.C:
			var rx uint64
			if rx, err = h.received(node.Key); err != nil {
				break
			}
			if line.look(now, rx) {
				live.Heard()
			}
			if line.isAway(now) {
				h.turn(s, node, false) // until the next event
				// It may be unable to begin: see control.AgentEvent.Call.
				h.handshake(node)
				look.Reset(h.timing.Away)
			} else {
				look.Reset(max(h.timing.Away/20, time.Millisecond))
			}
		case err = <-broken:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// linger lets the agent read the last event: it hangs up when it has.
func (h *sessionHost) linger(ctx context.Context, events <-chan control.AgentEvent, broken <-chan error) error {
	timer := time.NewTimer(h.timing.Farewell)
	defer timer.Stop()
	for {
		select {
		case <-events:
		case <-broken:
			return nil
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// handshake calls an agent at the address that WireGuard knows.
func (h *sessionHost) handshake(node store.Node) {
	if err := h.call(node.Key); err != nil {
		h.log.Debug("call an agent", "agent", node.Name, "err", err)
	}
}

func (h *sessionHost) turn(s *session, node store.Node, up bool) {
	if !h.sessions.turn(s, up, time.Now()) {
		return
	}
	if up {
		h.log.Info("agent is up again", "agent", node.Name)
	} else {
		h.log.Info("agent is away: nothing heard", "agent", node.Name, "for", h.timing.Away)
	}
}

// receive hands events on until the stream breaks or quit is closed.
func receive(stream eventStream, events chan<- control.AgentEvent, quit <-chan struct{}) error {
	for {
		ev, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case events <- ev:
		case <-quit:
			return nil
		}
	}
}

// Session implements control.Handler: one event stream of one agent.
func (r *running) Session(ctx context.Context, from tunnel.NodeID, stream *control.Session) error {
	node, err := r.agent(ctx, from)
	if err != nil {
		return err
	}
	peer, err := r.seen(ctx, node, stream.Version)
	switch {
	case err != nil && (control.CodeOf(err) != "" || peer.Key.IsZero()):
		return err
	case err != nil:
		// Served all the same: it is for the next start, and tried again.
		r.log.Error("keep where an agent is", "agent", node.Name, "err", err)
	}
	s := newSession(from)
	s.process = stream.Process
	if peer.Endpoint.IsValid() && !peer.Stream {
		s.from = peer.Endpoint.String()
	}
	if r.sessions.begin(s, time.Now()) {
		// Visitors of the process that is gone would wait for an answer that
		// nobody sends.
		r.front.RestartNode(from)
	}
	defer func() { r.sessions.end(s, time.Now()) }()
	endSizing, err := r.sizes.begin(from, peer.Stream)
	if err != nil {
		return err
	}
	defer endSizing()
	r.log.Info("agent connected", "agent", node.Name)
	err = r.host.run(ctx, s, node, stream)
	r.log.Info("agent disconnected", "agent", node.Name)
	return err
}
