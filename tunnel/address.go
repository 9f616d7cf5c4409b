package tunnel

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// A NodeID names a node of the overlay for ever: it is not used again. Zero is
// no node; edges have 1 to 255.
type NodeID uint32

// MaxEdge is the highest id of an edge. Other nodes have higher ones.
const MaxEdge NodeID = 255

// An ID names a tunnel of one node while the agent's process runs. Agents draw
// them at random; zero is no tunnel.
type ID uint32

// An AddrKind says what the value in an overlay address is.
type AddrKind uint16

// The kinds of overlay addresses.
const (
	KindNode   AddrKind = 0 // the node itself; value 1
	KindTunnel AddrKind = 1 // a tunnel of the node; the value is its ID
	KindHandle AddrKind = 2 // a visitor of the edge that cannot travel as itself
	KindIPv4   AddrKind = 4 // a private IPv4 address behind the node; the value is that address
)

// Handles of visitors, values of kind [KindHandle].
const (
	HandleUnnamed  uint32 = 0 // any visitor that no overlay address can name
	HandleLoopback uint32 = 1 // ::1, which gVisor drops as a source
)

// Ports on overlay addresses.
const (
	ControlPort = 80 // of an edge's own address: the control API
	DialPort    = 1  // of a tunnel: edges dial it, agents ignore which it is
)

// Where an overlay address has what, in bytes:
//
//	| fd, 40-bit global id | node id | kind | value |
//	0                      6        10     12      16
const (
	nodeAt  = 6
	kindAt  = 10
	valueAt = 12
	addrEnd = 16
)

// An Overlay is the address space of an edge and its agents, a /48 of RFC 4193.
// The zero Overlay is none. Overlays compare with ==.
type Overlay struct {
	id [nodeAt]byte // the first one 0xfd, or all zero
}

// NewOverlay draws an overlay from 40 bits of rand (RFC 4193, section 3.2).
func NewOverlay(rand io.Reader) (Overlay, error) {
	o := Overlay{[nodeAt]byte{0: 0xfd}}
	if _, err := io.ReadFull(rand, o.id[1:]); err != nil {
		return Overlay{}, fmt.Errorf("draw an overlay prefix: %w", err)
	}
	return o, nil
}

// OverlayFrom gives the overlay of a prefix, which must be a /48 of fd00::/8.
func OverlayFrom(p netip.Prefix) (Overlay, error) {
	a := p.Addr()
	if !p.IsValid() || !a.Is6() || p.Bits() != 8*nodeAt || a.As16()[0] != 0xfd || p != p.Masked() {
		return Overlay{}, fmt.Errorf("%v is no overlay prefix; it must be a /48 of fd00::/8", p)
	}
	b := a.As16()
	return Overlay{[nodeAt]byte(b[:nodeAt])}, nil
}

// IsZero says whether o is none.
func (o Overlay) IsZero() bool { return o == Overlay{} }

// Prefix gives the /48; that of the zero Overlay is not valid.
func (o Overlay) Prefix() netip.Prefix {
	if o.IsZero() {
		return netip.Prefix{}
	}
	var b [addrEnd]byte
	copy(b[:], o.id[:])
	return netip.PrefixFrom(netip.AddrFrom16(b), 8*nodeAt)
}

// String gives the prefix as text: "fd12:3456:789a::/48"; "" for none.
func (o Overlay) String() string {
	if o.IsZero() {
		return ""
	}
	return o.Prefix().String()
}

// MarshalText gives String.
func (o Overlay) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText takes what MarshalText gives; empty text is none.
func (o *Overlay) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*o = Overlay{}
		return nil
	}
	p, err := netip.ParsePrefix(string(text))
	if err != nil {
		return errors.New("not an overlay prefix; it must be a /48 of fd00::/8")
	}
	v, err := OverlayFrom(p)
	if err != nil {
		return err
	}
	*o = v
	return nil
}

func (o Overlay) addr(node NodeID, kind AddrKind, value uint32) netip.Addr {
	var b [addrEnd]byte
	copy(b[:], o.id[:])
	binary.BigEndian.PutUint32(b[nodeAt:], uint32(node))
	binary.BigEndian.PutUint16(b[kindAt:], uint16(kind))
	binary.BigEndian.PutUint32(b[valueAt:], value)
	return netip.AddrFrom16(b)
}

// NodePrefix gives the /80 of all addresses that belong to a node. WireGuard
// proves that a packet from there is the node's.
func (o Overlay) NodePrefix(node NodeID) netip.Prefix {
	return netip.PrefixFrom(o.addr(node, 0, 0), 8*kindAt)
}

// NodeAddr gives the address of a node itself.
func (o Overlay) NodeAddr(node NodeID) netip.Addr { return o.addr(node, KindNode, 1) }

// TunnelAddr gives the address that names a tunnel of a node.
func (o Overlay) TunnelAddr(node NodeID, id ID) netip.Addr {
	return o.addr(node, KindTunnel, uint32(id))
}

// HandleAddr gives the address of a visitor that an edge names by a handle.
func (o Overlay) HandleAddr(edge NodeID, handle uint32) netip.Addr {
	return o.addr(edge, KindHandle, handle)
}

// Parse takes an address of the overlay apart. It is not ok for an address
// outside of it, for one with node id 0, and in the zero Overlay. Kind may be
// one that this version has no name for.
func (o Overlay) Parse(a netip.Addr) (node NodeID, kind AddrKind, value uint32, ok bool) {
	if o.IsZero() || !a.Is6() || a.Zone() != "" {
		return 0, 0, 0, false
	}
	b := a.As16()
	node = NodeID(binary.BigEndian.Uint32(b[nodeAt:]))
	if [nodeAt]byte(b[:nodeAt]) != o.id || node == 0 {
		return 0, 0, 0, false
	}
	kind = AddrKind(binary.BigEndian.Uint16(b[kindAt:]))
	return node, kind, binary.BigEndian.Uint32(b[valueAt:]), true
}

// Contains says whether a lies in the overlay.
func (o Overlay) Contains(a netip.Addr) bool {
	return !o.IsZero() && o.Prefix().Contains(a)
}

// NodeIDFor gives the id that a node with this public key claims at the n-th
// attempt, counted from 0; the next attempt gives the next id. It is never that
// of an edge.
func NodeIDFor(pub [32]byte, attempt int) NodeID {
	const others = 1<<32 - uint64(MaxEdge) - 1 // how many ids are not 0 and no edge's
	h := sha256.Sum256(pub[:])
	// Taken modulo first: a sum of the whole hash might wrap.
	start := binary.BigEndian.Uint64(h[:]) % others
	return NodeID((start+uint64(attempt)%others)%others + uint64(MaxEdge) + 1)
}
