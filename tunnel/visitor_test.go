package tunnel

import (
	mathrand "math/rand/v2"
	"net/netip"
	"testing"
)

func TestVisitorAddr(t *testing.T) {
	o := testOverlay(t)
	const unnamed, loopback = "fd12:3456:789a:0:1:2::", "fd12:3456:789a:0:1:2::1"
	for _, c := range []struct{ visitor, addr, back string }{ // back "" is no name
		{"192.0.2.33", "64:ff9b::c000:221", "192.0.2.33"}, // RFC 6052, section 2.4
		{"127.0.0.1", "64:ff9b::7f00:1", "127.0.0.1"},
		{"10.1.2.3", "64:ff9b::a01:203", "10.1.2.3"},
		{"169.254.1.1", "64:ff9b::a9fe:101", "169.254.1.1"},
		{"::ffff:192.0.2.33", "64:ff9b::c000:221", "192.0.2.33"},
		{"::ffff:127.0.0.1", "64:ff9b::7f00:1", "127.0.0.1"},
		{"2001:db8::5", "2001:db8::5", "2001:db8::5"},
		{"2001:db8::5%eth0", "2001:db8::5", "2001:db8::5"},
		{"fd99::5", "fd99::5", "fd99::5"},
		{"::1", loopback, "::1"},
		{"::1%lo", loopback, "::1"},
		{"::", unnamed, ""},
		{"::%eth0", unnamed, ""},
		{"0.0.0.0", unnamed, ""},
		{"::ffff:0.0.0.0", unnamed, ""},
		{"224.0.0.1", unnamed, ""},
		{"255.255.255.255", unnamed, ""},
		{"ff02::1", unnamed, ""},
		{"fe80::1", unnamed, ""},
		{"fe80::1%eth0", unnamed, ""},
		// The overlay's own: a visitor must not pass for a node.
		{"fd12:3456:789a:0:1::1", unnamed, ""},
		{"fd12:3456:789a:0:1:2::1", unnamed, ""},
		{"fd12:3456:789a::", unnamed, ""},
		{"fd12:3456:789a:0:1::1%eth0", unnamed, ""},
		// Translated by someone before: public ones only.
		{"64:ff9b::8.8.8.8", "64:ff9b::808:808", "8.8.8.8"},
		{"64:ff9b::127.0.0.1", unnamed, ""},
		{"64:ff9b::10.0.0.1", unnamed, ""},
		{"64:ff9b::172.31.255.255", unnamed, ""},
		{"64:ff9b::172.32.0.0", "64:ff9b::ac20:0", "172.32.0.0"},
		{"64:ff9b::192.168.1.1", unnamed, ""},
		{"64:ff9b::100.64.0.1", unnamed, ""},
		{"64:ff9b::169.254.169.254", unnamed, ""},
		{"64:ff9b::0.0.0.0", unnamed, ""},
		{"64:ff9b::0.1.2.3", unnamed, ""},
		{"64:ff9b::224.0.0.1", unnamed, ""},
		{"64:ff9b::255.255.255.255", unnamed, ""},
		{"64:ff9b::1:0:1", "64:ff9b::1:0:1", "64:ff9b::1:0:1"}, // outside of the /96
	} {
		visitor := netip.MustParseAddr(c.visitor)
		got := o.VisitorAddr(1, visitor)
		if got != netip.MustParseAddr(c.addr) {
			t.Errorf("%s travels as %s, want %s", c.visitor, got, c.addr)
		}
		back, ok := o.Visitor(got)
		if c.back == "" && ok || c.back != "" && (!ok || back != netip.MustParseAddr(c.back)) {
			t.Errorf("%s stands for %v, %v; want %q", got, back, ok, c.back)
		}
		checkVisitor(t, o, visitor)
	}
	if got := o.VisitorAddr(1, netip.Addr{}); got != netip.MustParseAddr(unnamed) {
		t.Errorf("no address travels as %s", got)
	}
}

// TestVisitorOfNoVisitor: overlay sources that no edge uses for visitors.
func TestVisitorOfNoVisitor(t *testing.T) {
	o := testOverlay(t)
	for _, a := range []netip.Addr{
		{}, o.NodeAddr(1), o.NodeAddr(300), o.TunnelAddr(300, 1), o.HandleAddr(1, HandleUnnamed), o.HandleAddr(1, 2), o.addr(1, KindIPv4, 1), o.addr(0, KindHandle, 1),
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::"), netip.MustParseAddr("::1"), netip.MustParseAddr("::ffff:192.0.2.1"),
		netip.MustParseAddr("ff02::1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::1%eth0"),
		netip.MustParseAddr("64:ff9b::0.0.0.0"), netip.MustParseAddr("64:ff9b::224.0.0.1"), netip.MustParseAddr("64:ff9b::255.255.255.255"),
	} {
		if got, ok := o.Visitor(a); ok {
			t.Errorf("%v stands for the visitor %v", a, got)
		}
	}
	// Whichever edge it is.
	if got, ok := o.Visitor(o.HandleAddr(200, HandleLoopback)); !ok || got != netip.IPv6Loopback() {
		t.Errorf("the loopback handle of edge 200 stands for %v, %v", got, ok)
	}
}

// checkVisitor holds VisitorAddr to what it promises for any visitor.
func checkVisitor(t *testing.T, o Overlay, visitor netip.Addr) {
	t.Helper()
	const edge NodeID = 1
	addr := o.VisitorAddr(edge, visitor)
	if !addr.Is6() || addr.Is4In6() || addr.Zone() != "" || addr.IsMulticast() || addr.IsUnspecified() || addr.IsLoopback() || addr.IsLinkLocalUnicast() {
		t.Fatalf("visitor %v travels as %v, which no stack takes as a source", visitor, addr)
	}
	if o.Contains(addr) {
		node, kind, _, ok := o.Parse(addr)
		if !ok || node != edge || kind != KindHandle {
			t.Fatalf("visitor %v passes for %v in the overlay", visitor, addr)
		}
	}
	back, ok := o.Visitor(addr)
	if !ok {
		if addr != o.HandleAddr(edge, HandleUnnamed) {
			t.Fatalf("visitor %v travels as %v, which stands for nobody", visitor, addr)
		}
		return
	}
	if want := visitor.Unmap().WithZone(""); back != want {
		v4, translated := fromNAT64(want)
		if !translated || back != v4 || !public(v4) {
			t.Fatalf("visitor %v travels as %v, which stands for %v", visitor, addr, back)
		}
	}
	if again := o.VisitorAddr(edge, back); again != addr {
		t.Fatalf("visitor %v travels as %v, and %v as %v", visitor, addr, back, again)
	}
}

func TestVisitorInverts(t *testing.T) {
	o := testOverlay(t)
	r := mathrand.New(mathrand.NewPCG(3, 4))
	for range 20000 {
		var b [16]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		prefix := [][]byte{nil, {0xfe, 0x80}, {0xff}, {0x20, 1}, {0xfd, 0x12, 0x34, 0x56, 0x78, 0x9a}, {0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0},
			{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, make([]byte, 12)}[r.IntN(8)]
		copy(b[:], prefix)
		checkVisitor(t, o, netip.AddrFrom16(b))
		checkVisitor(t, o, netip.AddrFrom4([4]byte(b[12:])))
	}
}
