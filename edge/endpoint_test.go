package edge

import (
	"net/netip"
	"strings"
	"testing"
)

func TestMoreEndpoints(t *testing.T) {
	bound := []netip.AddrPort{netip.MustParseAddrPort("[::]:443"), netip.MustParseAddrPort("198.51.100.7:53"), netip.MustParseAddrPort("10.0.0.5:54")}
	for _, c := range []struct{ configured, want string }{
		{"edge.example.com:51999", "edge.example.com:443 edge.example.com:53 edge.example.com:54"},
		{"203.0.113.5", "203.0.113.5:443 198.51.100.7:53 203.0.113.5:54"},
	} {
		got, err := moreEndpoints(c.configured, bound)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, %v; want %s", c.configured, got, err, c.want)
		}
	}
	got, err := moreEndpoints("", bound)
	if err != nil || len(got) != 3 || !strings.HasSuffix(got[0], ":443") || got[1] != "198.51.100.7:53" || got[2] != "10.0.0.5:54" {
		t.Errorf("without a configured one: %q, %v", got, err)
	}
}

func TestPublicEndpoint(t *testing.T) {
	bound := netip.MustParseAddrPort("[::]:51820")
	for _, c := range []struct {
		configured, bound, want string
		warn                    bool
	}{
		{"edge.example.com", "", "edge.example.com:51820", false},
		{"edge.example.com:1234", "", "edge.example.com:1234", false},
		{"198.51.100.7", "", "198.51.100.7:51820", false},
		{"198.51.100.7:99", "", "198.51.100.7:99", false},
		{"2001:db8::7", "", "[2001:db8::7]:51820", false},
		{"[2001:db8::7]", "", "[2001:db8::7]:51820", false},
		{"[2001:db8::7]:99", "", "[2001:db8::7]:99", false},
		{"192.168.1.7", "", "192.168.1.7:51820", true},
		{"100.64.3.3", "", "100.64.3.3:51820", true},
		{"fd00::7", "", "[fd00::7]:51820", true},
		{"", "127.0.0.1:4242", "127.0.0.1:4242", true},
		{"", "[::ffff:203.0.113.9]:4242", "203.0.113.9:4242", false},
	} {
		b := bound
		if c.bound != "" {
			b = netip.MustParseAddrPort(c.bound)
		}
		got, warning, err := publicEndpoint(c.configured, b)
		if err != nil || got != c.want || (warning != "") != c.warn {
			t.Errorf("%q on %v: %q, %q, %v; want %q", c.configured, b, got, warning, err, c.want)
		}
		if warning != "" && !strings.Contains(warning, "--endpoint") {
			t.Errorf("warning %q does not say what to do", warning)
		}
	}
	got, _, err := publicEndpoint("", bound)
	if ap, perr := netip.ParseAddrPort(got); err != nil || perr != nil || ap.Port() != 51820 || ap.Addr().IsUnspecified() {
		t.Errorf("found out: %q, %v, %v", got, err, perr)
	}
	for _, bad := range []string{":51820", "host:", "host:0", "host:65536", "host:http", "[::1", "::1]", "0.0.0.0", "ff02::1", "a b", "http://x", "x:1:2"} {
		if got, _, err := publicEndpoint(bad, bound); err == nil {
			t.Errorf("%q is taken as %q", bad, got)
		}
	}
}

func FuzzSplitEndpoint(f *testing.F) {
	for _, s := range []string{"", "example.com", "example.com:1", "[::1]:1", "::1", "1.2.3.4:5", "[", "]", "[]", ":", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := splitEndpoint(s)
		if err != nil || s == "" {
			return
		}
		if host == "" {
			t.Fatalf("%q has no host", s)
		}
		endpoint, _, err := publicEndpoint(s, netip.MustParseAddrPort("[::]:51820"))
		if err != nil {
			t.Fatal(err)
		}
		// What comes out is what comes in again.
		h, p, err := splitEndpoint(endpoint)
		if err != nil || h != host || port != 0 && p != port || port == 0 && p != 51820 {
			t.Fatalf("%q became %q: %q %d, then %q %d, %v", s, endpoint, host, port, h, p, err)
		}
	})
}
