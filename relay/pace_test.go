package relay

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond = 20
		p := NewPace(perSecond)
		begun := func(origin netip.Prefix, tries int) (n int) {
			for range tries {
				if p.Begin(origin) {
					n++
				}
			}
			return n
		}
		a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
		if n := begun(a, 1000); n != 10*perSecond {
			t.Errorf("%d at once", n)
		}
		if n := begun(b, 1); n != 1 {
			t.Error("another address is held up")
		}
		time.Sleep(time.Second)
		if n := begun(a, 1000); n != perSecond {
			t.Errorf("%d a second later", n)
		}
		for range 3 {
			p.Forget(a)
		}
		if n := begun(a, 1000); n != 3 {
			t.Errorf("%d after 3 were taken back", n)
		}
		time.Sleep(time.Hour)
		if n := begun(a, 1000); n != 10*perSecond {
			t.Errorf("%d an hour later", n)
		}
	})
}

func TestPaceWithoutBound(t *testing.T) {
	p := NewPace(0)
	for range 10_000 {
		if !p.Begin(netip.Prefix{}) {
			t.Fatal("held up")
		}
	}
	p.Forget(netip.Prefix{})
	if len(p.until) != 0 {
		t.Errorf("%d are held", len(p.until))
	}
}

// Addresses that come once are forgotten.
func TestPaceForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(100)
		for i := range 10 * minSweep {
			origin := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
			if !p.Begin(origin) {
				t.Fatal("held up")
			}
			time.Sleep(time.Millisecond)
		}
		if n := len(p.until); n > minSweep {
			t.Errorf("%d addresses are held", n)
		}
	})
}

func TestOrigin(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.1:1000":          "192.0.2.1/32",
		"[::ffff:192.0.2.1]:1000": "192.0.2.1/32",
		"[2001:db8::1]:1000":      "2001:db8::/64",
		"[2001:db8::2%eth0]:1000": "2001:db8::/64",
	} {
		ap := netip.MustParseAddrPort(from)
		if got := Origin(net.TCPAddrFromAddrPort(ap)).String(); got != want {
			t.Errorf("TCP from %s: %s", from, got)
		}
		if got := Origin(net.UDPAddrFromAddrPort(ap)).String(); got != want {
			t.Errorf("UDP from %s: %s", from, got)
		}
	}
	if got := Origin(&net.UnixAddr{}); got.IsValid() {
		t.Errorf("of a path: %s", got)
	}
}
