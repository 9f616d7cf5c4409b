package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Config is all that an edge needs. Its zero values are the defaults that the
// fields name. Only the WireGuard socket and the public TCP ports are opened
// by the edge itself.
type Config struct {
	Dir *statedir.Dir // keys, database, certificates, admin socket

	Domain   string // host names of tunnels lie under it; "" = as at the last start; or DomainAuto
	Endpoint string // HOST or HOST:PORT that invites carry; "" = the address of the route to the internet

	WG              netip.AddrPort   // UDP address of WireGuard; the zero value is any address, any port
	MoreWG          []netip.AddrPort // others, which invites carry as well
	HTTPS           net.Listener     // closed when Run ends; nil with TLS off
	HTTP3           net.PacketConn   // HTTP/3 on the port of HTTPS; closed when Run ends; nil for none
	Metrics         net.Listener     // Prometheus' metrics, for whoever can connect; closed when Run ends; nil for none
	HTTP            net.Listener     // redirects; serves the host names with TLS off; may be nil otherwise
	TLS             certs.Mode       // where certificates come from
	ACME            []certs.Issuer   // ACME authorities, the first first; nil = Let's Encrypt
	ACMEDNS         *certs.DNS       // for DNS-01 and a wildcard; nil = without
	CertFiles       []certs.Pair     // own certificates
	CertFolder      string           // own certificates, a folder of them; "" = none
	PublicHTTPSPort uint16           // in public addresses, of HTTPS with TLS off, too; 0 = the port of the listener that serves
	TCPPorts        tunnel.PortRange // public TCP ports; zero = none
	ListenTCP       netip.Addr       // address for public TCP ports; zero = every address
	WarnRandomNames bool             // visitors of names that this edge has chosen are warned before the first page
	Handshakes      int              // TLS sessions that one address may begin each second; 0 = any number
	TrustedProxies  []netip.Prefix   // of proxies between visitors and this edge, whose X-Forwarded-For counts
	MTU             int              // of packets inside WireGuard, in bytes; 0 = found out for each agent, and followed

	// Lookup asks DNS for a host name's addresses, of both families; nil = the
	// system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	Version string      // of the program, told to agents
	Ready   func(Ready) // called once, when everything serves
	Timing  Timing
	Logger  *slog.Logger // nil discards
}

// Timing are the durations that the edge waits for. Zero fields are the
// defaults; tests shorten them.
type Timing struct {
	Heartbeat time.Duration // between heartbeats to an agent: 2 s
	Away      time.Duration // without a sign of life until an agent is away: 5 s
	Observe   time.Duration // between looks at the peers' endpoints: 10 s
	Sweep     time.Duration // between sweeps of expired invites and names: 1 min
	Generated time.Duration // a generated name is kept this long for an agent that is away: 24 h
	Farewell  time.Duration // for a revoked agent to read that it was revoked: 300 ms
}

func (t Timing) withDefaults() Timing {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	or(&t.Heartbeat, 2*time.Second)
	or(&t.Away, 5*time.Second)
	or(&t.Observe, 10*time.Second)
	or(&t.Sweep, time.Minute)
	or(&t.Generated, 24*time.Hour)
	or(&t.Farewell, 300*time.Millisecond)
	return t
}

// Ready tells what an edge serves. Addresses are the bound ones, so port 0 has
// become a port; a listener that is not there has the zero address.
type Ready struct {
	WG, HTTPS, HTTP netip.AddrPort
	HTTP3           netip.AddrPort
	Metrics         netip.AddrPort
	MoreWG          []netip.AddrPort // in the order of Config.MoreWG
	Domain          string
	Endpoint        string   // HOST:PORT as new invites carry it
	PublicHTTPSPort uint16   // as public addresses have it
	Warnings        []string // for a person to read, such as an endpoint that the internet cannot reach
}

// Validate says what makes a Config unusable, in words for the person who
// wrote it.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Dir == nil {
		bad("edge: no state directory")
	}
	if c.Domain != "" {
		if _, err := tunnel.CanonicalHost(c.Domain); err != nil {
			bad("edge: domain %q: %w", c.Domain, err)
		}
	}
	if _, _, err := splitEndpoint(c.Endpoint); err != nil {
		bad("edge: %w", err)
	}
	if c.MTU != 0 && (c.MTU < netstack.MinMTU || c.MTU > netstack.MaxMTU) {
		bad("edge: MTU %d is not between %d and %d", c.MTU, netstack.MinMTU, netstack.MaxMTU)
	}
	if c.Handshakes < 0 {
		bad("edge: %d handshakes a second", c.Handshakes)
	}
	switch c.TLS {
	case certs.Off:
		if c.HTTP == nil {
			bad("edge: TLS is off, so the host names need a listener for plain HTTP, and there is none")
		}
		if c.HTTPS != nil || c.HTTP3 != nil {
			bad("edge: TLS is off, and there is a listener for HTTPS")
		}
	case certs.ACME, certs.Internal:
		if c.HTTPS == nil {
			bad("edge: TLS is %s, and there is no listener for HTTPS", c.TLS)
		}
	default:
		bad("edge: TLS %q is not one of acme, internal and off", c.TLS)
	}
	return errors.Join(errs...)
}

// Edge is one edge process. It is made by New and lives in Run.
type Edge struct {
	cfg Config
	log *slog.Logger
}

// New returns an edge that has not touched anything yet.
func New(cfg Config) (*Edge, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Timing = cfg.Timing.withDefaults()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Lookup == nil {
		cfg.Lookup = lookupHost
	}
	return &Edge{cfg: cfg, log: cfg.Logger}, nil
}
