package keys

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// An Edge is what a node must know of an edge to reach it.
type Edge struct {
	Key       Public     `json:"key"`
	Node      uint32     `json:"node"` // node id, 1 to 255
	Endpoints []Endpoint `json:"endpoints"`
}

// EndpointKind says what is spoken at an endpoint.
type EndpointKind string

// The kinds that there are. A reader skips endpoints of kinds that it does not
// know: a newer edge may have more.
const (
	EndpointUDP   EndpointKind = "udp"   // WireGuard itself
	EndpointHTTPS EndpointKind = "https" // WireGuard packets inside of TLS
)

// An Endpoint is one address of an edge.
type Endpoint struct {
	Kind EndpointKind `json:"kind"`
	Addr string       `json:"addr"` // host:port, the host a name or an IP address
}

// Limits of what an invite may hold.
const (
	maxEdges     = 16
	maxEndpoints = 16 // of one edge
	maxKind      = 16 // bytes
	maxAddr      = 300
)

func (e Edge) check() error {
	if e.Key.IsZero() {
		return errors.New("it has no key")
	}
	if e.Node == 0 {
		return errors.New("it has no node id")
	}
	if len(e.Endpoints) == 0 {
		return errors.New("it has no endpoint")
	}
	if len(e.Endpoints) > maxEndpoints {
		return fmt.Errorf("it has %d endpoints, of at most %d", len(e.Endpoints), maxEndpoints)
	}
	for _, p := range e.Endpoints {
		if err := p.check(); err != nil {
			return fmt.Errorf("endpoint %q: %w", p.Addr, err)
		}
	}
	return nil
}

// check holds the addresses of known kinds to host:port; those of other kinds
// to being short and printable.
func (p Endpoint) check() error {
	if p.Kind == "" || len(p.Kind) > maxKind || strings.Trim(string(p.Kind), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("%q is no kind of endpoint", p.Kind)
	}
	if len(p.Addr) == 0 || len(p.Addr) > maxAddr {
		return fmt.Errorf("the address has %d bytes; allowed are 1 to %d", len(p.Addr), maxAddr)
	}
	if strings.ContainsFunc(p.Addr, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("the address has characters other than printable ASCII")
	}
	if p.Kind != EndpointUDP && p.Kind != EndpointHTTPS {
		return nil
	}
	host, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		return errors.New("the address is not host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("the port is not a number from 1 to 65535")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return errors.New("an address with a zone means nothing on another machine")
		}
		return nil
	}
	if host == "" || len(host) > 253 || strings.ContainsFunc(host, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	}) {
		return errors.New("the host is neither a name nor an IP address")
	}
	return nil
}
