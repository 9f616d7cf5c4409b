package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestTrustedProxies(t *testing.T) {
	trusted := Trusted{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")}
	for name, c := range map[string]struct {
		from   string
		fors   []string
		protos []string
		want   string // RemoteAddr
		secure bool
	}{
		"a stranger":                      {"192.0.2.1:7", []string{"198.51.100.1"}, []string{"https"}, "192.0.2.1:7", false},
		"a proxy":                         {"10.1.2.3:7", []string{"198.51.100.1"}, []string{"https"}, "198.51.100.1:7", true},
		"a proxy by IPv4 in IPv6":         {"[::ffff:10.1.2.3]:7", []string{"198.51.100.1"}, []string{"HTTPS"}, "198.51.100.1:7", true},
		"a proxy by IPv6":                 {"[2001:db8:1::2]:7", []string{"2001:db8::9"}, nil, "[2001:db8::9]:7", false},
		"what a visitor made up":          {"10.1.2.3:7", []string{"1.1.1.1, 198.51.100.1"}, []string{"https, http"}, "198.51.100.1:7", false},
		"in a line of its own":            {"10.1.2.3:7", []string{"1.1.1.1", "198.51.100.1"}, []string{"http", "https"}, "198.51.100.1:7", true},
		"proxies in a row":                {"10.1.2.3:7", []string{"1.1.1.1, 198.51.100.1, 10.9.9.9", "10.8.8.8"}, nil, "198.51.100.1:7", false},
		"proxies only":                    {"10.1.2.3:7", []string{"10.9.9.9,10.8.8.8"}, nil, "10.9.9.9:7", false},
		"nothing said":                    {"10.1.2.3:7", nil, nil, "10.1.2.3:7", false},
		"nonsense":                        {"10.1.2.3:7", []string{"198.51.100.1, unknown"}, []string{"ftp"}, "10.1.2.3:7", false},
		"nonsense before":                 {"10.1.2.3:7", []string{"<script>, 198.51.100.1"}, []string{""}, "198.51.100.1:7", false},
		"nonsense before a trusted proxy": {"10.1.2.3:7", []string{"unknown, 10.8.8.8"}, nil, "10.8.8.8:7", false},
		"empty":                           {"10.1.2.3:7", []string{""}, nil, "10.1.2.3:7", false},
		"with a port":                     {"10.1.2.3:7", []string{"198.51.100.1:4711"}, nil, "198.51.100.1:7", false},
		"with brackets":                   {"10.1.2.3:7", []string{"[2001:db8::9]"}, nil, "[2001:db8::9]:7", false},
		"with brackets and a port":        {"10.1.2.3:7", []string{"[2001:db8::9]:80"}, nil, "[2001:db8::9]:7", false},
		"with a zone":                     {"10.1.2.3:7", []string{"fe80::1%eth0"}, nil, "[fe80::1]:7", false},
		"a Unix socket":                   {"@", []string{"198.51.100.1"}, []string{"https"}, "@", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "http://app.example.com/", nil)
			r.RemoteAddr = c.from
			r.Header["X-Forwarded-For"], r.Header["X-Forwarded-Proto"] = c.fors, c.protos
			trusted.Believe(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.RemoteAddr != c.want || Secure(r) != c.secure {
					t.Errorf("it is from %s, secure: %t; want %s, %t", r.RemoteAddr, Secure(r), c.want, c.secure)
				}
			})).ServeHTTP(httptest.NewRecorder(), r)
		})
	}
}
