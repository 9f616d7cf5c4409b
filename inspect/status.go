package inspect

import (
	"time"

	"github.com/wgexpose/wgexpose/meter"
)

// Status is what the process around the inspector says of itself.
type Status struct {
	// State is "online", "connecting" or "offline".
	State   string         `json:"state"`
	Agent   string         `json:"agent,omitempty"` // its name
	Tunnels []TunnelStatus `json:"tunnels"`
	Links   []LinkStatus   `json:"links"`
}

// TunnelStatus is a tunnel on the status page.
type TunnelStatus struct {
	Name      string `json:"name"`
	PublicURL string `json:"public_url"`
	Kind      string `json:"kind"` // http or tcp
	Upstream  string `json:"upstream"`
	State     string `json:"state"`            // "up", or in a word what is wrong
	Detail    string `json:"detail,omitempty"` // what is wrong, in a sentence
	Inspected bool   `json:"inspected"`

	// Conns are all connections of the tunnel, those that are not read along, too.
	Conns meter.Metrics `json:"conns"`
}

// LinkStatus is a link to an edge on the status page.
type LinkStatus struct {
	Edge      string    `json:"edge"` // its address
	State     string    `json:"state"`
	Transport string    `json:"transport,omitempty"` // "udp" or "tls"
	Latency   float64   `json:"latency_ms,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Detail    string    `json:"detail,omitempty"`
}

// Usage is what the inspector itself takes.
type Usage struct {
	Started   time.Time `json:"started"`
	Exchanges int       `json:"exchanges"` // kept
	Bytes     int64     `json:"bytes"`     // kept
	MaxBytes  int64     `json:"max_bytes"`
	Queued    int64     `json:"queued_bytes"` // waiting to be parsed
	// BodyLimit is how many bytes are kept of each body of what begins now. Rush tells that
	// it is lower than usual, because so much comes that nothing is kept for long.
	BodyLimit int  `json:"body_limit"`
	Rush      bool `json:"rush"`
}

// Usage returns what the inspector takes by now.
func (i *Inspector) Usage() Usage {
	limit := i.ring.rush.limit(time.Now())
	u := Usage{Started: i.started, MaxBytes: i.cfg.MaxBytes, Queued: i.queued.Load(), BodyLimit: limit.bytes, Rush: limit.rush}
	u.Exchanges, u.Bytes = i.ring.stats()
	return u
}

// Metrics returns what was counted of a tunnel's exchanges.
func (i *Inspector) Metrics(tunnel string) meter.Metrics {
	return i.meters.of(tunnel).Read(time.Now())
}
