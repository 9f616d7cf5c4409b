package tunnel

import (
	"strings"
	"testing"
)

func TestParseUpstream(t *testing.T) {
	for _, c := range []struct {
		kind         Kind
		target, want string
	}{
		{HTTP, "8089", "http://127.0.0.1:8089"},
		{TCP, "22", "tcp://127.0.0.1:22"},
		{HTTP, ":8089", "http://127.0.0.1:8089"},
		{HTTP, "localhost:3000", "http://localhost:3000"},
		{HTTP, "192.168.1.10:80", "http://192.168.1.10:80"},
		{TCP, "192.168.1.10:22", "tcp://192.168.1.10:22"},
		{TCP, "NAS.Lan.:22", "tcp://nas.lan:22"},
		{TCP, "my_db:5432", "tcp://my_db:5432"},
		{HTTP, "[::1]:80", "http://[::1]:80"},
		{TCP, "[2001:DB8::0:1]:22", "tcp://[2001:db8::1]:22"},
		{TCP, "[::ffff:192.0.2.1]:22", "tcp://192.0.2.1:22"},
		{TCP, "[fe80::1%eth0]:22", "tcp://[fe80::1%25eth0]:22"},
		{HTTP, "http://[fe80::1%25eth0]:80", "http://[fe80::1%25eth0]:80"},
		{HTTP, "http://127.0.0.1:8089", "http://127.0.0.1:8089"},
		{HTTP, "http://127.0.0.1:8089/", "http://127.0.0.1:8089"},
		{HTTP, "HTTP://LocalHost", "http://localhost:80"},
		{HTTP, "https://nas.lan", "https://nas.lan:443"},
		{HTTP, "https://nas.lan/", "https://nas.lan:443"},
		{HTTP, "https://nas.lan:8443", "https://nas.lan:8443"},
		{HTTP, "https://[::1]", "https://[::1]:443"},
		{HTTP, "http://:8089", "http://127.0.0.1:8089"},
		{HTTP, "https://bücher.lan", "https://xn--bcher-kva.lan:443"},
		{TCP, "tcp://127.0.0.1:22", "tcp://127.0.0.1:22"},
		{TCP, "tcp://22", "tcp://127.0.0.1:22"},
		{HTTP, "http://0.0.0.0:8000", "http://127.0.0.1:8000"},
		{HTTP, "http://[::]:8000/", "http://[::1]:8000"},
		{HTTP, "unix:/run/x.sock", "unix:/run/x.sock"},
		{TCP, "UNIX:/run/X.sock", "unix:/run/X.sock"},
		{TCP, "unix:///run/x.sock", "unix:/run/x.sock"},
		{TCP, "unix:////run/x.sock", "unix:/run/x.sock"},
		{TCP, "unix:/run/a b:c@d.sock", "unix:/run/a b:c@d.sock"},
		{TCP, "unix:/" + strings.Repeat("x", 106), "unix:/" + strings.Repeat("x", 106)},
		{TCP, "1:65535", ""},
		{TCP, "a:65535", "tcp://a:65535"},
	} {
		u, err := ParseUpstream(c.kind, c.target)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s %q is %s", c.kind, c.target, u)
			}
			continue
		}
		if err != nil || u.String() != c.want {
			t.Errorf("%s %q is %q, %v; want %q", c.kind, c.target, u, err, c.want)
			continue
		}
		if again, err := ParseUpstream(c.kind, u.String()); err != nil || again != u {
			t.Errorf("%q is read back as %+v, %v", u, again, err)
		}
	}
}

func TestUpstreamForDial(t *testing.T) {
	for target, want := range map[string]struct {
		network, address string
		tls              bool
	}{
		"8089":                   {"tcp", "127.0.0.1:8089", false},
		"[::1]:80":               {"tcp", "[::1]:80", false},
		"http://[fe80::1%eth0]/": {"tcp", "[fe80::1%eth0]:80", false},
		"https://nas.lan":        {"tcp", "nas.lan:443", true},
		"unix:/run/x.sock":       {"unix", "/run/x.sock", false},
	} {
		u, err := ParseUpstream(HTTP, target)
		if err != nil || u.Network() != want.network || u.Address() != want.address || u.TLS() != want.tls {
			t.Errorf("%q dials %s %s, TLS %v, %v; want %v", target, u.Network(), u.Address(), u.TLS(), err, want)
		}
	}
	if s := (Upstream{}).String(); s != "" {
		t.Errorf("no upstream prints as %q", s)
	}
}

func TestParseUpstreamRefuses(t *testing.T) {
	for _, c := range []struct {
		kind         Kind
		target, want string
	}{
		{HTTP, "", "it is empty"},
		{"udp", "53", `"udp" is no kind of tunnel`},
		{HTTP, "0", `port "0" is not a number from 1 to 65535`},
		{HTTP, "65536", `port "65536" is not`},
		{HTTP, "99999999999999999999", "is not a number from 1 to 65535"},
		{HTTP, "localhost", "it has no port; write localhost:PORT"},
		{TCP, "[::1]", "it has no port; write [::1]:PORT"},
		{TCP, "tcp://nas.lan", "it has no port; write nas.lan:PORT"},
		{TCP, "::1", "stands in brackets; write [::1]:PORT"},
		{TCP, "fe80::1%eth0", "stands in brackets; write [fe80::1%eth0]:PORT"},
		{TCP, "2001:db8::1:22", "stands in brackets"},
		{TCP, "a:b:c", "it is not host:port"},
		{HTTP, "localhost:", "is not a number from 1 to 65535"},
		{HTTP, "localhost:http", "is not a number from 1 to 65535"},
		{HTTP, "localhost:-1", "is not a number from 1 to 65535"},
		{HTTP, ":", "is not a number from 1 to 65535"},
		{HTTP, "http://", "it has no host"},
		{HTTP, "http:///", "it has no host"},
		{HTTP, "http://[abc", "brackets stand around"},
		{HTTP, "[nas]:80", "brackets stand around"},
		{HTTP, "[]:80", "brackets stand around"},
		{HTTP, "[::1]80", "not host:port"},
		{HTTP, "[::1]:80]", "not host:port"},
		{HTTP, "http://localhost:80/app", "it has a path or a query"},
		{HTTP, "http://localhost:80?x=1", "it has a path or a query"},
		{HTTP, "localhost:80/#top", "it has a path or a query"},
		{HTTP, "http://user:pw@localhost:80", "it has a user name"},
		{TCP, "root@nas:22", "it has a user name"},
		{TCP, "nas:22/x", "it has a path; write host:port"},
		{TCP, "/run/x.sock", "unix:/path"},
		{HTTP, "tcp://127.0.0.1:22", "`wgexpose tcp`"},
		{TCP, "http://127.0.0.1:80", "`wgexpose http`"},
		{TCP, "https://127.0.0.1", "`wgexpose http`"},
		{HTTP, "ftp://127.0.0.1", "no such scheme; an http tunnel leads to"},
		{TCP, "ssh://127.0.0.1", "no such scheme; a tcp tunnel leads to"},
		{HTTP, "file:///srv/www", "no such scheme"},
		{HTTP, "://x", "no such scheme"},
		{TCP, "unix:", "it has no path"},
		{TCP, "unix://", "it has no path"},
		{TCP, "unix:run/x.sock", "must be absolute"},
		{TCP, "unix://run/x.sock", "must be absolute"},
		{TCP, "unix:/run/\x00x", "control characters"},
		{TCP, "unix:/run/\x1b[31m", "control characters"},
		{TCP, "unix:/\xff", "control characters"},
		{TCP, "unix:/" + strings.Repeat("x", 107), "has 108 bytes; systems allow 107"},
		{TCP, "224.0.0.1:80", "multicast"},
		{TCP, "255.255.255.255:80", "broadcast"},
		{TCP, "[ff02::1]:80", "multicast"},
		{TCP, "127.1:80", "no host name ends in a number"},
		{TCP, "0x7f000001:80", "no host name ends in a number"},
		{TCP, "http:80:80", "not host:port"},
		{TCP, "my host:80", "neither a host name nor an IP address"},
		{TCP, "a..b:80", "neither a host name nor an IP address"},
		{TCP, ".:80", "neither a host name nor an IP address"},
		{TCP, "*:80", "neither a host name nor an IP address"},
		{TCP, "a\n:80", "neither a host name nor an IP address"},
		{TCP, "ä b:80", "host name"},
		{TCP, strings.Repeat("a", 254) + ":80", "neither a host name nor an IP address"},
		{TCP, strings.Repeat("a", 100000), "no port"},
		{TCP, "[fe80::1%a b]:80", "zone"},
		{TCP, "[fe80::1%" + strings.Repeat("a", 16) + "]:80", "zone"},
		{HTTP, " 8089", "no port"},
	} {
		u, err := ParseUpstream(c.kind, c.target)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "target ") || len(err.Error()) > 500 {
			t.Errorf("%s %.80q: %+v, %v; want an error with %q", c.kind, c.target, u, err, c.want)
		}
		if u != (Upstream{}) {
			t.Errorf("%s %.80q: refused, and yet an upstream came back", c.kind, c.target)
		}
	}
}

func FuzzParseUpstream(f *testing.F) {
	for _, s := range []string{"8089", ":80", "[::1]:80", "http://localhost", "https://nas.lan:8443/", "tcp://a:1", "unix:/run/x.sock", "[fe80::1%25eth0]:1", "user@h:1", "bücher.lan:80", ""} {
		f.Add(true, s)
		f.Add(false, s)
	}
	f.Fuzz(func(t *testing.T, http bool, s string) {
		kind := TCP
		if http {
			kind = HTTP
		}
		u, err := ParseUpstream(kind, s)
		if err != nil {
			return
		}
		text := u.String()
		if again, err := ParseUpstream(kind, text); err != nil || again != u {
			t.Fatalf("%q is %q, and that is %+v, %v", s, text, again, err)
		}
		if err := (Spec{ID: 1, Kind: kind, Upstream: text}).Validate(); err != nil {
			t.Fatalf("%q is %q, which no edge takes: %v", s, text, err)
		}
		if u.Scheme != SchemeUnix && u.Port == 0 {
			t.Fatalf("%q is %q, without a port", s, text)
		}
	})
}
