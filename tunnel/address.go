package tunnel

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
)

// NodeID names a node of the overlay. Edges have 1–255; zero is no node.
type NodeID uint32

// FirstAgentID is the lowest id of a node that is no edge.
const FirstAgentID NodeID = 256

// ID names a tunnel within its node. Agents draw it at random, and a changed
// upstream gets a new one, so that no old connection reaches a new target.
type ID uint32

// AddrKind is the part of an overlay address that says what its value means.
type AddrKind uint16

const (
	KindNode    AddrKind = 0 // the node itself, value 1
	KindTunnel  AddrKind = 1 // value is an ID
	KindVisitor AddrKind = 2 // value is a handle of the edge
	KindIPv4    AddrKind = 4 // value is a private IPv4 behind the node
)

const (
	// ControlPort is where an edge's control API listens, on its node
	// address.
	ControlPort = 80
	// DialPort is the port of a tunnel's address; agents do not look at it.
	DialPort = 1
)

const (
	handleUnnamed  = 0 // a visitor whose address cannot travel
	handleLoopback = 1 // ::1
)

// nat64 carries IPv4 addresses as IPv6 (RFC 6052, section 2.1).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// Overlay is the address space of one wgexpose network, an RFC 4193 /48. The
// zero value is none.
type Overlay struct{ prefix netip.Prefix }

// NewOverlay draws an overlay at random (RFC 4193, section 3.2.2, with
// random's bytes in place of the hash).
func NewOverlay(random io.Reader) (Overlay, error) {
	var a [16]byte
	a[0] = 0xfd
	if _, err := io.ReadFull(random, a[1:6]); err != nil {
		return Overlay{}, fmt.Errorf("draw an overlay prefix: %w", err)
	}
	return Overlay{netip.PrefixFrom(netip.AddrFrom16(a), 48)}, nil
}

// OverlayFrom checks that p can be an overlay.
func OverlayFrom(p netip.Prefix) (Overlay, error) {
	if !p.IsValid() || p.Bits() != 48 || !p.Addr().Is6() || p != p.Masked() || p.Addr().As16()[0] != 0xfd {
		return Overlay{}, fmt.Errorf("%v is no overlay prefix: want fd….::/48", p)
	}
	return Overlay{p}, nil
}

// Prefix is the overlay's /48.
func (o Overlay) Prefix() netip.Prefix { return o.prefix }

// IsZero reports whether o is no overlay.
func (o Overlay) IsZero() bool { return !o.prefix.IsValid() }

// String is the prefix.
func (o Overlay) String() string { return o.prefix.String() }

// MarshalText implements encoding.TextMarshaler.
func (o Overlay) MarshalText() ([]byte, error) {
	if o.IsZero() {
		return []byte{}, nil
	}
	return o.prefix.MarshalText()
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *Overlay) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*o = Overlay{}
		return nil
	}
	var p netip.Prefix
	if err := p.UnmarshalText(text); err != nil {
		return fmt.Errorf("overlay prefix: %w", err)
	}
	parsed, err := OverlayFrom(p)
	if err != nil {
		return err
	}
	*o = parsed
	return nil
}

func (o Overlay) addr(n NodeID, k AddrKind, value uint32) netip.Addr {
	a := o.prefix.Addr().As16()
	binary.BigEndian.PutUint32(a[6:], uint32(n))
	binary.BigEndian.PutUint16(a[10:], uint16(k))
	binary.BigEndian.PutUint32(a[12:], value)
	return netip.AddrFrom16(a)
}

// NodePrefix is the /80 that a node owns, and that its WireGuard peer may send
// from.
func (o Overlay) NodePrefix(n NodeID) netip.Prefix {
	return netip.PrefixFrom(o.addr(n, 0, 0), 80)
}

// NodeAddr is the address of the node itself.
func (o Overlay) NodeAddr(n NodeID) netip.Addr { return o.addr(n, KindNode, 1) }

// TunnelAddr is the address of a tunnel of node n.
func (o Overlay) TunnelAddr(n NodeID, id ID) netip.Addr { return o.addr(n, KindTunnel, uint32(id)) }

// HandleAddr is the address of a visitor of that edge that cannot travel as
// itself.
func (o Overlay) HandleAddr(edge NodeID, handle uint32) netip.Addr {
	return o.addr(edge, KindVisitor, handle)
}

// Parse takes an address of the overlay apart; ok is false for any other.
func (o Overlay) Parse(a netip.Addr) (node NodeID, kind AddrKind, value uint32, ok bool) {
	if o.IsZero() || !o.prefix.Contains(a) || a.Zone() != "" {
		return 0, 0, 0, false
	}
	b := a.As16()
	return NodeID(binary.BigEndian.Uint32(b[6:])), AddrKind(binary.BigEndian.Uint16(b[10:])), binary.BigEndian.Uint32(b[12:]), true
}

// VisitorAddr is the address as which a visitor travels: an IPv4 inside
// 64:ff9b::/96, an IPv6 as itself. ::1, which every stack drops as a martian
// when it comes from outside (RFC 4291, section 2.5.3), has a handle of the
// edge, and so have the addresses that name nobody beyond one machine or
// that belong to the overlay; those share one and cannot be told apart.
func (o Overlay) VisitorAddr(edge NodeID, visitor netip.Addr) netip.Addr {
	v := visitor.Unmap()
	switch {
	case !v.IsValid(), v.IsUnspecified(), v.IsMulticast():
		return o.HandleAddr(edge, handleUnnamed)
	case v.Is4():
		a, v4 := nat64.Addr().As16(), v.As4()
		copy(a[12:], v4[:])
		return netip.AddrFrom16(a)
	case v.IsLoopback():
		return o.HandleAddr(edge, handleLoopback)
	case v.Zone() != "", v.IsLinkLocalUnicast(), o.prefix.Contains(v), nat64.Contains(v):
		return o.HandleAddr(edge, handleUnnamed)
	}
	return v
}

// Visitor is the inverse of VisitorAddr; ok is false for an address that
// names no visitor.
func (o Overlay) Visitor(a netip.Addr) (visitor netip.Addr, ok bool) {
	if !a.IsValid() {
		return netip.Addr{}, false
	}
	if nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:])), true
	}
	if _, kind, value, in := o.Parse(a); in {
		return netip.IPv6Loopback(), kind == KindVisitor && value == handleLoopback
	}
	return a, true
}

// NodeIDFor derives a node's id from its public key. Whoever finds it taken
// asks again with the next attempt.
func NodeIDFor(pub [32]byte, attempt int) NodeID {
	sum := sha256.Sum256(pub[:])
	span := uint64(1)<<32 - uint64(FirstAgentID)
	return FirstAgentID + NodeID((uint64(binary.BigEndian.Uint32(sum[:]))+uint64(attempt))%span)
}
