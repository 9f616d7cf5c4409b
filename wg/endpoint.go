package wg

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
)

// Endpoint is the address of a peer's outer packets, and the local address that
// they came to. It implements conn.Endpoint; but for what is atomic, it does
// not change, and is shared between packets and peers.
type Endpoint struct {
	endpointKey
	wire wireEndpoint
	via  *UDPBind // whose socket the packet came to; nil: from the configuration

	srcCleared atomic.Bool // send without src from now on

	// segmentLimit is a size in bytes that is too large for segments of a
	// super-datagram to this destination; 0: none is known to be.
	segmentLimit atomic.Int32
}

var _ conn.Endpoint = (*Endpoint)(nil)

// endpointKey is what makes an Endpoint.
type endpointKey struct {
	dst     netip.AddrPort // without a zone when it came from the wire
	scope   uint32         // the zone of dst as an interface index; 0: none
	src     netip.Addr     // invalid: not known, the system chooses
	ifindex uint32         // of the interface that the packet came through
}

// newEndpoint returns an error when dst has a zone that is no interface here.
func newEndpoint(key endpointKey) (*Endpoint, error) {
	switch zone := key.dst.Addr().Zone(); {
	case zone != "":
		scope, err := zoneIndex(zone)
		if err != nil {
			return nil, fmt.Errorf("endpoint %v: %w", key.dst, err)
		}
		key.scope = scope
	case key.scope != 0:
		addr := key.dst.Addr().WithZone(strconv.FormatUint(uint64(key.scope), 10))
		key.dst = netip.AddrPortFrom(addr, key.dst.Port())
	}
	ep := &Endpoint{endpointKey: key}
	ep.wire.init(key)
	return ep, nil
}

func zoneIndex(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(ifi.Index), nil
}

// AddrPort is the peer's address, never an IPv4-mapped one.
func (e *Endpoint) AddrPort() netip.AddrPort { return e.dst }

// ClearSrc implements conn.Endpoint: the system chooses the source from now on,
// until the peer's next packet.
func (e *Endpoint) ClearSrc() { e.srcCleared.Store(true) }

// hasSrc reports whether packets are to leave from src.
func (e *Endpoint) hasSrc() bool { return e.src.IsValid() && !e.srcCleared.Load() }

// SrcIP implements conn.Endpoint.
func (e *Endpoint) SrcIP() netip.Addr {
	if !e.hasSrc() {
		return netip.Addr{}
	}
	return e.src
}

// SrcToString implements conn.Endpoint.
func (e *Endpoint) SrcToString() string { return e.SrcIP().String() }

// DstIP implements conn.Endpoint.
func (e *Endpoint) DstIP() netip.Addr { return e.dst.Addr() }

// DstToString implements conn.Endpoint.
func (e *Endpoint) DstToString() string { return e.dst.String() }

// DstToBytes implements conn.Endpoint: what a cookie is bound to.
func (e *Endpoint) DstToBytes() []byte {
	b, err := e.dst.MarshalBinary()
	if err != nil {
		panic("wg: " + err.Error()) // it has no error to return
	}
	return b
}

// endpointCache finds the Endpoint of a received packet without an allocation.
// It belongs to one receive function, and so needs no lock.
//
// It is bounded, since anybody can send from any address: when the young half
// is full, it becomes the old one, whose entries are dropped unless they are
// asked for before the next change. So a flood of addresses cannot drive out
// the peers that are talking.
type endpointCache struct {
	via        *UDPBind // of the socket
	young, old map[endpointKey]*Endpoint
	lastKey    endpointKey
	last       *Endpoint
}

// cacheHalf is the number of endpoints in either half, about 200 bytes each.
const cacheHalf = 4096

func (c *endpointCache) lookup(key endpointKey) (*Endpoint, error) {
	if c.last != nil && c.lastKey == key && !c.last.srcCleared.Load() {
		return c.last, nil
	}
	ep, found := c.young[key]
	if !found {
		ep, found = c.old[key]
		if found && !ep.srcCleared.Load() {
			c.put(key, ep)
		}
	}
	// The peer that cleared the source shares this endpoint's address, not
	// this packet's news: it came to src, which works.
	if !found || ep.srcCleared.Load() {
		var err error
		if ep, err = newEndpoint(key); err != nil {
			return nil, err
		}
		ep.via = c.via
		c.put(key, ep)
	}
	c.lastKey, c.last = key, ep
	return ep, nil
}

func (c *endpointCache) put(key endpointKey, ep *Endpoint) {
	if c.young == nil || len(c.young) >= cacheHalf {
		c.old, c.young = c.young, make(map[endpointKey]*Endpoint)
	}
	c.young[key] = ep
}
