package agent

import (
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Kinds of an [Event].
const (
	EventLink      = "link"
	EventTunnel    = "tunnel"
	EventInspector = "inspector"
)

// States of a link.
const (
	LinkConnecting = "connecting" // the first attempt
	LinkUp         = "up"         // the edge is there
	LinkDegraded   = "degraded"   // was up, and is being reconnected
	LinkDown       = "down"       // the last attempt was in vain, or the edge refused
)

// States of a tunnel.
const (
	TunnelUp    = "up"    // visitors reach the agent
	TunnelAway  = "away"  // no link: visitors are told to come back
	TunnelError = "error" // the edge refused it; or, with a PublicURL, it serves and its upstream cannot be dialled
	TunnelGone  = "gone"  // withdrawn, or given up: the last event
)

// States of the inspector.
const (
	InspectorUp    = "up"    // its page is at URL
	InspectorError = "error" // nothing is read along, for the Reason
)

// CodeNameInUse is the code of a tunnel that another command of this machine
// serves. The other codes of a tunnel's error are in package control.
const CodeNameInUse = "name_in_use"

// Event is one change of state. As JSON it is one line of the --json output.
type Event struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"` // EventLink, EventTunnel or EventInspector

	Edge string `json:"edge,omitempty"` // links: HOST:PORT

	Name string      `json:"name,omitempty"` // tunnels: as the edge serves it; "" until the edge has chosen one
	Kind tunnel.Kind `json:"kind,omitempty"` // tunnels

	State     string `json:"state"`
	Reason    string `json:"reason,omitempty"`    // links, inspector: why it is not up
	Transport string `json:"transport,omitempty"` // links: "udp" or "tls"

	URL string `json:"url,omitempty"` // inspector: of its page

	PublicURL string         `json:"public_url,omitempty"` // tunnels: only while it serves
	Upstream  string         `json:"upstream,omitempty"`   // tunnels
	Error     *control.Error `json:"error,omitempty"`      // tunnels in TunnelError
	Hint      string         `json:"hint,omitempty"`       // tunnels whose upstream is down: what is there instead, for the user of this machine alone
}

// same reports whether e says what o said, apart from the time.
func (e Event) same(o Event) bool {
	a, b := e.Error, o.Error
	e.Time, o.Time, e.Error, o.Error = time.Time{}, time.Time{}, nil, nil
	return e == o && sameError(a, b)
}

// sameError reports whether two errors, or none, say the same.
func sameError(a, b *control.Error) bool {
	return a == b || a != nil && b != nil && *a == *b
}
