package tunnel

import "net/netip"

// nat64 is the well-known prefix in which IPv4 visitors travel (RFC 6052,
// section 2.1). Its last 4 bytes are the IPv4 address.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// VisitorAddr gives the source address with which an edge brings a visitor into
// the overlay:
//
//   - IPv4, also inside of ::ffff:0:0/96, in 64:ff9b::/96; 127.0.0.0/8 and
//     private addresses too
//   - ::1 as the handle [HandleLoopback] of the edge
//   - IPv6 as itself
//   - what can be no one's source, and what would be taken for another's, as
//     the handle [HandleUnnamed]: unspecified, multicast, IPv4 broadcast, IPv6
//     link-local (its zone means nothing elsewhere) and the overlay's own
//     addresses, with which a visitor would pass for a node
//
// A visitor that already comes from 64:ff9b::/96 is someone's translated IPv4
// and stays as it is. RFC 6052, section 3.1, allows public IPv4 addresses only
// in there; others are unnamed, or a visitor could pass for 127.0.0.1.
func (o Overlay) VisitorAddr(edge NodeID, visitor netip.Addr) netip.Addr {
	v := visitor.Unmap().WithZone("")
	switch {
	case !v.IsValid() || v.IsUnspecified() || v.IsMulticast() || v == broadcast:
		return o.HandleAddr(edge, HandleUnnamed)
	case v.Is4():
		return toNAT64(v)
	case v.IsLinkLocalUnicast() || o.Contains(v):
		return o.HandleAddr(edge, HandleUnnamed)
	case v.IsLoopback():
		return o.HandleAddr(edge, HandleLoopback)
	}
	if v4, ok := fromNAT64(v); ok && !public(v4) {
		return o.HandleAddr(edge, HandleUnnamed)
	}
	return v
}

// Visitor gives the visitor that an overlay source address stands for: the
// inverse of [Overlay.VisitorAddr], IPv4 unmapped. It is not ok for a visitor
// without a name, and for an address that is no visitor's.
func (o Overlay) Visitor(overlayAddr netip.Addr) (netip.Addr, bool) {
	a := overlayAddr
	if !a.Is6() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() ||
		a.IsLoopback() || a.IsLinkLocalUnicast() {
		return netip.Addr{}, false
	}
	if o.Contains(a) {
		_, kind, value, ok := o.Parse(a)
		if ok && kind == KindHandle && value == HandleLoopback {
			return netip.IPv6Loopback(), true
		}
		return netip.Addr{}, false
	}
	if v4, ok := fromNAT64(a); ok {
		if v4.IsUnspecified() || v4.IsMulticast() || v4 == broadcast {
			return netip.Addr{}, false
		}
		return v4, true
	}
	return a, true
}

// broadcast is 255.255.255.255 (RFC 919).
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// notPublic are the IPv4 networks that no host on the internet has an address
// of (RFC 6890, section 2.2.2), those for documentation apart.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast, reserved, broadcast
}

func public(v4 netip.Addr) bool {
	for _, p := range notPublic {
		if p.Contains(v4) {
			return false
		}
	}
	return true
}

func toNAT64(v4 netip.Addr) netip.Addr {
	b := nat64.Addr().As16()
	last := v4.As4()
	copy(b[valueAt:], last[:])
	return netip.AddrFrom16(b)
}

func fromNAT64(a netip.Addr) (netip.Addr, bool) {
	if !nat64.Contains(a) {
		return netip.Addr{}, false
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[valueAt:])), true
}
