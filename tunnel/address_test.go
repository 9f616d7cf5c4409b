package tunnel

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	mathrand "math/rand/v2"
	"net/netip"
	"testing"
	"testing/iotest"
)

func testOverlay(t testing.TB) Overlay {
	t.Helper()
	o, err := OverlayFrom(netip.MustParsePrefix("fd12:3456:789a::/48"))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// numbers gives the borders of uint32, and others that are the same each run.
func numbers() []uint32 {
	n := []uint32{0, 1, 2, 255, 256, 1<<16 - 1, 1 << 16, 1<<31 - 1, 1 << 31, math.MaxUint32 - 1, math.MaxUint32}
	r := mathrand.New(mathrand.NewPCG(1, 2))
	for range 50 {
		n = append(n, r.Uint32())
	}
	return n
}

// TestAddressPlan: addresses as they are on the wire, for other programs and
// later versions to rely on.
func TestAddressPlan(t *testing.T) {
	o := testOverlay(t)
	const node NodeID = 0xaabbccdd
	for _, c := range []struct {
		got  netip.Addr
		want string
	}{
		{o.NodeAddr(1), "fd12:3456:789a:0:1::1"},
		{o.NodeAddr(node), "fd12:3456:789a:aabb:ccdd::1"},
		{o.TunnelAddr(node, 0x11223344), "fd12:3456:789a:aabb:ccdd:1:1122:3344"},
		{o.HandleAddr(1, HandleLoopback), "fd12:3456:789a:0:1:2::1"},
		{o.HandleAddr(1, HandleUnnamed), "fd12:3456:789a:0:1:2::"},
	} {
		if c.got != netip.MustParseAddr(c.want) {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
	if got := o.NodePrefix(node); got != netip.MustParsePrefix("fd12:3456:789a:aabb:ccdd::/80") {
		t.Errorf("node prefix %v", got)
	}
}

func TestParseInverts(t *testing.T) {
	o := testOverlay(t)
	for _, n := range numbers() {
		node := NodeID(n)
		for _, v := range numbers() {
			for _, c := range []struct {
				addr  netip.Addr
				kind  AddrKind
				value uint32
			}{
				{o.NodeAddr(node), KindNode, 1},
				{o.TunnelAddr(node, ID(v)), KindTunnel, v},
				{o.HandleAddr(node, v), KindHandle, v},
			} {
				gotNode, kind, value, ok := o.Parse(c.addr)
				if node == 0 {
					if ok {
						t.Fatalf("%v has node 0 and was parsed", c.addr)
					}
					continue
				}
				if !ok || gotNode != node || kind != c.kind || value != c.value {
					t.Fatalf("%v: parsed as node %d, kind %d, value %d, %v; made of %d, %d, %d", c.addr, gotNode, kind, value, ok, node, c.kind, c.value)
				}
				if !o.NodePrefix(node).Contains(c.addr) || !o.Contains(c.addr) || !o.Prefix().Contains(c.addr) {
					t.Fatalf("%v lies outside of its node's prefix", c.addr)
				}
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	o := testOverlay(t)
	for _, s := range []string{
		"127.0.0.1", "::", "::1", "64:ff9b::c000:201", "2001:db8::1", "fd12:3456:789b:0:1::1", "fc12:3456:789a:0:1::1",
		"::ffff:253.18.52.86", "fd12:3456:789a:0:1::1%eth0", "fd12:3456:789a::1", "fd12:3456:789a::",
	} {
		a := netip.MustParseAddr(s)
		if node, _, _, ok := o.Parse(a); ok {
			t.Errorf("%s was parsed as one of node %d", s, node)
		}
	}
	if _, _, _, ok := o.Parse(netip.Addr{}); ok {
		t.Error("no address was parsed")
	}
	var zero Overlay
	if _, _, _, ok := zero.Parse(netip.MustParseAddr("::1:0:0:0:1")); ok || zero.Contains(netip.MustParseAddr("::1")) {
		t.Error("no overlay has addresses")
	}
	if _, kind, _, ok := o.Parse(netip.MustParseAddr("fd12:3456:789a:0:1:ffff::1")); !ok || kind != 0xffff {
		t.Error("a kind of a later version is not told as it is")
	}
}

func TestNodePrefixesAreDisjoint(t *testing.T) {
	o := testOverlay(t)
	for _, a := range numbers() {
		for _, b := range numbers() {
			pa, pb := o.NodePrefix(NodeID(a)), o.NodePrefix(NodeID(b))
			if pa.Overlaps(pb) != (a == b) {
				t.Fatalf("prefixes of %d and %d: %v, %v", a, b, pa, pb)
			}
			if pa.Bits() != 80 || pa != pa.Masked() {
				t.Fatalf("%v is no /80", pa)
			}
		}
	}
}

func TestNewOverlay(t *testing.T) {
	a, err := NewOverlay(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewOverlay(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if a == b || a.IsZero() || !netip.MustParsePrefix("fd00::/8").Overlaps(a.Prefix()) || a.Prefix().Bits() != 48 {
		t.Errorf("drew %v and %v", a, b)
	}
	if got, err := NewOverlay(bytes.NewReader([]byte{1, 2, 3, 4, 5})); err != nil || got.String() != "fd01:203:405::/48" {
		t.Errorf("drew %v, %v", got, err)
	}
	if got, err := NewOverlay(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) || !got.IsZero() {
		t.Errorf("without a source of randomness: %v, %v", got, err)
	}
	if _, err := NewOverlay(bytes.NewReader([]byte{1, 2})); err == nil {
		t.Error("two bytes were enough")
	}
}

func TestOverlayText(t *testing.T) {
	o := testOverlay(t)
	b, err := json.Marshal(map[string]Overlay{"a": o, "b": {}})
	if err != nil || string(b) != `{"a":"fd12:3456:789a::/48","b":""}` {
		t.Fatalf("JSON %s, %v", b, err)
	}
	got := map[string]Overlay{}
	if err := json.Unmarshal(b, &got); err != nil || got["a"] != o || !got["b"].IsZero() {
		t.Errorf("came back as %v, %v", got, err)
	}
	for _, s := range []string{"fd12:3456:789a::", "fd12::/47", "fd12:3456:789a::1/48", "fc00::/48", "10.0.0.0/8", "::ffff:1.2.3.4/48", "x"} {
		kept := o
		if err := kept.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%s was read as an overlay", s)
		} else if kept != o {
			t.Errorf("%s was refused and changed the overlay", s)
		}
		if p, err := netip.ParsePrefix(s); err == nil {
			if _, err := OverlayFrom(p); err == nil {
				t.Errorf("%s was taken as an overlay", s)
			}
		}
	}
	var zero Overlay
	if zero.Prefix().IsValid() || zero.String() != "" {
		t.Errorf("no overlay prints as %q", zero)
	}
	if _, err := OverlayFrom(netip.Prefix{}); err == nil {
		t.Error("no prefix was taken as an overlay")
	}
}

func TestNodeIDFor(t *testing.T) {
	seen := map[NodeID]bool{}
	for n := range uint32(10000) {
		var pub [32]byte
		binary.BigEndian.PutUint32(pub[:], n)
		id := NodeIDFor(pub, 0)
		if id <= MaxEdge {
			t.Fatalf("id %d is an edge's", id)
		}
		if id != NodeIDFor(pub, 0) {
			t.Fatal("the same key has two ids")
		}
		seen[id] = true
		for attempt := range 3 {
			a, b := NodeIDFor(pub, attempt), NodeIDFor(pub, attempt+1)
			if b != a+1 && !(a == math.MaxUint32 && b == MaxEdge+1) {
				t.Fatalf("after %d the attempt goes to %d", a, b)
			}
		}
	}
	// 10,000 of 2^32: about 0.01 pairs by chance.
	if len(seen) < 9998 {
		t.Errorf("10,000 keys have %d ids", len(seen))
	}
	// The ids, once all are tried, begin again and leave out the edges.
	const others = 1<<32 - 256
	var pub [32]byte
	if NodeIDFor(pub, others) != NodeIDFor(pub, 0) {
		t.Error("the ids do not begin again")
	}
	last := int(math.MaxUint32 - NodeIDFor(pub, 0))
	if NodeIDFor(pub, last) != math.MaxUint32 || NodeIDFor(pub, last+1) != MaxEdge+1 {
		t.Errorf("after the last id comes %d", NodeIDFor(pub, last+1))
	}
}

// TestNodeIDForIsStable: the rule is part of the address plan. The number was
// computed by another program: the first 8 bytes of SHA-256, big endian, modulo
// 2^32 - 256, plus 256.
func TestNodeIDForIsStable(t *testing.T) {
	if got := NodeIDFor([32]byte{1, 2, 3}, 0); got != 857339872 {
		t.Errorf("id %d, want 857339872", got)
	}
}

func FuzzOverlayParse(f *testing.F) {
	o := testOverlay(f)
	for _, a := range []netip.Addr{o.NodeAddr(1), o.TunnelAddr(300, 7), o.HandleAddr(1, 0), netip.IPv6Loopback(), netip.MustParseAddr("64:ff9b::c000:201")} {
		b := a.As16()
		f.Add(b[:])
	}
	f.Add([]byte{127, 0, 0, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, valid := netip.AddrFromSlice(b)
		node, kind, value, ok := o.Parse(a)
		if ok != (valid && o.Contains(a) && node != 0) {
			t.Fatalf("%v: ok is %v", a, ok)
		}
		if ok && o.addr(node, kind, value) != a {
			t.Fatalf("%v was parsed as another address", a)
		}
		visitor, ok := o.Visitor(a)
		if ok && (visitor.Is4In6() || !visitor.IsValid() || o.Contains(visitor)) {
			t.Fatalf("%v stands for the visitor %v", a, visitor)
		}
		checkVisitor(t, o, a)
	})
}
