package agent

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Tunnel is one service to publish.
type Tunnel struct {
	tunnel.Spec              // its ID is drawn by Run when it is zero
	ProxyProtocol       int  `json:"proxy_protocol,omitempty"`        // 1 or 2: tell a TCP upstream of the visitor with a PROXY header of that version
	InsecureUpstreamTLS bool `json:"insecure_upstream_tls,omitempty"` // accept any certificate of an https:// upstream

	Uninspected bool `json:"uninspected,omitempty"` // http: its requests are not read along, whoever inspects

	Via string `json:"via,omitempty"` // dialled in place of Upstream, which is shown to people; written as an upstream is
}

// Validate says what makes a tunnel unusable.
func (t Tunnel) Validate() error {
	spec := t.Spec
	if spec.ID == 0 {
		spec.ID = 1 // Run draws one
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	if _, err := t.dialled(); err != nil {
		return err
	}
	switch {
	case t.ProxyProtocol < 0 || t.ProxyProtocol > 2:
		return fmt.Errorf("PROXY protocol version %d: want 1 or 2, or 0 for none", t.ProxyProtocol)
	case t.ProxyProtocol != 0 && t.Kind == tunnel.HTTP:
		return errors.New("a PROXY header is for tcp and tls tunnels; http upstreams find the visitor in X-Forwarded-For")
	}
	return nil
}

// dialled is what visitors are led to.
func (t Tunnel) dialled() (tunnel.Upstream, error) {
	return tunnel.ParseUpstream(t.Kind, cmp.Or(t.Via, t.Upstream))
}

// Config is what Run needs.
type Config struct {
	Dir     *statedir.Dir // of an agent that has joined
	Tunnels []Tunnel      // at least one
	Keep    bool          // go on while any of several tunnels is good
	Health  bool          // have it told at once that an upstream is down, or back; else the first visitor finds out
	Reach   Reach         // of the process that holds the links
	Inspect Inspect       // of the requests of http tunnels, by the process that holds the links; the first that asks for it says how
	Version string        // of the program

	Certificates Certificates // of the process that holds the links

	Events func(Event) // called one at a time; may be nil

	// Updates are sets of tunnels, each of which takes the place of the one before.
	// Tunnels that stay as they are, and those of which only what edges look at has
	// changed, keep their connections; the others have as long as at the end. A set
	// that CheckTunnels refuses is logged and changes nothing. May be nil.
	Updates <-chan []Tunnel

	Logger *slog.Logger // nil discards

	drain time.Duration // for running connections at the end; 0 = drainTimeout; tests shorten it
}

// Validate says what makes a Config unusable.
func (c Config) Validate() error {
	if c.Dir == nil {
		return errors.New("agent: no state directory")
	}
	if err := c.Reach.Validate(); err != nil {
		return err
	}
	if err := c.Inspect.Validate(); err != nil {
		return err
	}
	return CheckTunnels(c.Tunnels)
}

// CheckTunnels says what makes a set of tunnels unusable.
func CheckTunnels(tunnels []Tunnel) error {
	if len(tunnels) == 0 {
		return errors.New("agent: no tunnels")
	}
	if len(tunnels) > control.MaxTunnels {
		return fmt.Errorf("agent: %d tunnels, of at most %d", len(tunnels), control.MaxTunnels)
	}
	for i, t := range tunnels {
		if err := t.Validate(); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.Name, err)
		}
		for _, o := range tunnels[:i] {
			if what := conflict(t.Spec, o.Spec); what != "" {
				return fmt.Errorf("two tunnels ask for %s", what)
			}
		}
	}
	return nil
}
