package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/meter"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Status is how an agent is now. As JSON it is the --json output of `status`.
type Status struct {
	Agent   string         `json:"agent"`
	Node    tunnel.NodeID  `json:"node"`
	Domain  string         `json:"domain"`
	Overlay tunnel.Overlay `json:"overlay"`

	Revoked string `json:"revoked,omitempty"` // why the edge knows this agent no more
	Problem string `json:"problem,omitempty"` // what keeps the next command from starting

	Running   bool           `json:"running"` // a command serves tunnels now; what follows is of it
	PID       int            `json:"pid,omitempty"`
	Version   string         `json:"version,omitempty"`
	Links     []LinkStatus   `json:"links,omitempty"`
	Inspector string         `json:"inspector,omitempty"` // URL of the page with the requests
	Tunnels   []TunnelStatus `json:"tunnels,omitempty"`
	Visits    []Visit        `json:"visits,omitempty"` // of a Watch alone: those that are new or have changed
}

// Err is what keeps the next command from starting, or nil: a *control.Error for an
// agent that was revoked.
func (s Status) Err() error {
	switch {
	case s.Revoked != "":
		return edgesState{Revoked: s.Revoked}.refusal()
	case s.Problem != "":
		return errors.New(s.Problem)
	}
	return nil
}

// LinkStatus is how one link is.
type LinkStatus struct {
	Edge      string    `json:"edge"`
	State     string    `json:"state"`
	Reason    string    `json:"reason,omitempty"`
	Transport string    `json:"transport,omitempty"`
	MTU       int       `json:"mtu,omitempty"` // how large packets inside WireGuard are, in bytes, while it is up
	Since     time.Time `json:"since"`
	Latency   float64   `json:"latency_ms,omitempty"` // there and back through the overlay, of the last heartbeat; 0 until there was one
}

// TunnelStatus is how one tunnel is.
type TunnelStatus struct {
	Name        string         `json:"name"`
	Kind        tunnel.Kind    `json:"kind"`
	State       string         `json:"state"`
	PublicURL   string         `json:"public_url,omitempty"`
	Upstream    string         `json:"upstream"`
	Error       *control.Error `json:"error,omitempty"`
	Hint        string         `json:"hint,omitempty"`      // see Event
	Connections int            `json:"connections"`         // now, with those whose upstream is being dialled
	Conns       meter.Metrics  `json:"conns"`               // of those that reached the upstream, since this process holds the links
	Inspected   bool           `json:"inspected,omitempty"` // its requests are read along
	PID         int            `json:"pid"`                 // of the command that serves it
	HTTP        *meter.Metrics `json:"http,omitempty"`      // of its requests, where they are read along
}

// ReadStatus tells how the agent of dir is. It wraps ErrNotJoined for one that
// has no edge; an agent that has joined and runs no command is no error.
func ReadStatus(ctx context.Context, dir *statedir.Dir) (Status, error) {
	state, err := loadEdges(dir)
	if err != nil {
		return Status{}, err
	}
	idle := Status{Agent: state.Name, Node: state.Node, Domain: state.Domain, Overlay: state.Overlay, Revoked: state.Revoked}
	// A command that runs has its key in memory; the next one would not start.
	if _, err := loadKey(dir); err != nil {
		idle.Problem = err.Error()
	}
	conn, err := dir.DialUnix(ctx, socketFile)
	if errors.Is(err, statedir.ErrNotRunning) {
		return idle, nil
	}
	if err != nil {
		return Status{}, err
	}
	c := newLocalConn(conn)
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := c.write(request{Version: localVersion, Type: askStatus, PID: os.Getpid()}); err != nil {
		return Status{}, unanswered(ctx, err)
	}
	var m message
	if err := c.readSoon(&m); err != nil {
		return Status{}, unanswered(ctx, err)
	}
	switch {
	case m.Type == msgEnd && m.Error != nil:
		return Status{}, fromControl(m.Error)
	case m.Type != msgStatus || m.Status == nil:
		return Status{}, fmt.Errorf("status: unexpected answer %q", m.Type)
	}
	m.Status.Problem = idle.Problem
	return *m.Status, nil
}

// unanswered words a status command's failure to hear from the owner.
func unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("the wgexpose command that holds this agent's links does not answer; it may be stopped or starting: %w", err)
}

// status fills in what the set knows, of all processes or one.
func (s *set) status(st *Status, of int) {
	now := time.Now()
	st.Inspector = s.inspection.address()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.links {
		l := LinkStatus{Edge: v.link.name, State: v.event.State, Reason: v.event.Reason, Transport: v.event.Transport, Since: v.event.Time}
		if l.State == LinkUp {
			l.MTU = v.link.sizing.size()
			l.Latency = v.link.delay()
		}
		st.Links = append(st.Links, l)
	}
	for _, t := range s.wanted {
		if of != 0 && t.claim.pid != of {
			continue
		}
		ts := TunnelStatus{
			Name: t.named, Kind: t.Kind, State: t.last.State, PublicURL: t.last.PublicURL, Upstream: t.Spec.Upstream,
			Error: t.last.Error, Hint: t.last.Hint, Connections: t.conns.count(), Conns: t.passed.Read(now), PID: t.claim.pid,
			Inspected: st.Inspector != "" && t.Kind == tunnel.HTTP && !t.wanted.Uninspected,
		}
		if in := s.inspection.running.Load(); in != nil && ts.Inspected {
			http := in.Metrics(t.named)
			ts.HTTP = &http
		}
		if ts.State == "" { // the edge has not answered yet
			ts.State = TunnelAway
		}
		st.Tunnels = append(st.Tunnels, ts)
	}
}
