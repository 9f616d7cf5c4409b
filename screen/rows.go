package screen

import (
	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/tunnel"
)

// link is one link to an edge, as last told.
type link struct {
	agent.Event
	latency float64 // ms; 0: not known
}

// row is one tunnel, as last told.
type row struct {
	name, upstream string // as the events name them
	kind           tunnel.Kind
	event          agent.Event        // the last; zero: none yet
	numbers        agent.TunnelStatus // the last
}

// title is what a tunnel is called, before it has a name too.
func (r *row) title() string {
	if r.name != "" {
		return r.name
	}
	return "(no name yet)"
}

// state is a tunnel's health in a word or two.
func (r *row) state() (string, tone) {
	e := &r.event
	switch {
	case e.State == "":
		return "connecting", toneWait
	case e.State == agent.TunnelUp:
		return "up", toneGood
	case e.State == agent.TunnelAway:
		return "away", toneWait
	case e.State == agent.TunnelGone:
		return "ended", toneFaint
	case e.PublicURL != "":
		return "upstream down", toneBad
	case e.Error != nil && e.Error.Passing():
		return "waiting", toneWait
	}
	return "refused", toneBad
}

// event takes note of a change.
func (m *model) event(e agent.Event) {
	switch e.Event {
	case agent.EventLink:
		for i := range m.links {
			if m.links[i].Edge == e.Edge {
				m.links[i].Event = e
				return
			}
		}
		m.links = append(m.links, link{Event: e})
	case agent.EventInspector:
		m.inspector = e.URL
	case agent.EventTunnel:
		r := m.find(e.Name, e.Upstream)
		if r == nil {
			m.rows = append(m.rows, row{})
			r = &m.rows[len(m.rows)-1]
		}
		if e.Name != "" {
			r.name = e.Name
		}
		r.upstream, r.kind, r.event = e.Upstream, e.Kind, e
	}
}

// find is the tunnel with a name, or the one without that leads there.
func (m *model) find(name, upstream string) *row {
	for i := range m.rows {
		if r := &m.rows[i]; r.name == name && (name != "" || r.upstream == upstream) {
			return r
		}
	}
	for i := range m.rows {
		if r := &m.rows[i]; r.name == "" && sameUpstream(r, upstream) {
			return r
		}
	}
	return nil
}

// sameUpstream compares what the user wrote with what the agent made of it.
func sameUpstream(r *row, upstream string) bool {
	if r.upstream == upstream {
		return true
	}
	u, err := tunnel.ParseUpstream(r.kind, r.upstream)
	return err == nil && u.String() == upstream
}

// numbers takes note of what a status says of the links and tunnels that there are.
func (m *model) numbers(st *agent.Status) {
	for _, l := range st.Links {
		for i := range m.links {
			if m.links[i].Edge == l.Edge {
				m.links[i].latency = l.Latency
			}
		}
	}
	for _, t := range st.Tunnels {
		if r := m.find(t.Name, t.Upstream); r != nil {
			r.numbers = t
		}
	}
}
