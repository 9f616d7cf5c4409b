package edge

import (
	"io"
	"net/http"
	"net/netip"
	"testing"

	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Behind another TLS proxy, upstreams and rules see the visitor that it tells of; without
// a word about it in the configuration, nobody's word counts.
func TestTrustedProxies(t *testing.T) {
	for name, c := range map[string]struct {
		trusted proxy.Trusted
		status  map[string]int // by X-Forwarded-For
		told    string         // to the upstream
	}{
		"trusted":     {proxy.Trusted{netip.MustParsePrefix("127.0.0.0/8")}, map[string]int{"198.51.100.1": 403, "192.0.2.9": 200}, "192.0.2.9 192.0.2.9 https"},
		"not trusted": {nil, map[string]int{"198.51.100.1": 200, "192.0.2.9": 200}, "127.0.0.1 127.0.0.1 http"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) {
				r.cfg.HTTPS.Close()
				r.cfg.HTTPS, r.front.certs = nil, nil
				r.cfg.Trusted = c.trusted
			})
			r.upstream(1, func(w http.ResponseWriter, req *http.Request) {
				h := req.Header
				io.WriteString(w, h.Get("X-Forwarded-For")+" "+h.Get("X-Real-Ip")+" "+h.Get("X-Forwarded-Proto"))
			})
			e := httpEntry(1, "app.edge.test")
			e.Policy = &tunnel.Policy{Deny: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}
			r.apply(e)
			for visitor, want := range c.status {
				req := r.request(http.MethodGet, "http://app.edge.test/", nil)
				req.Header.Set("X-Forwarded-For", "203.0.113.5, "+visitor)
				req.Header.Set("X-Forwarded-Proto", "https")
				res, body := r.do(r.client(nil), req)
				if res.StatusCode != want {
					t.Errorf("%s: %s, want %d", visitor, res.Status, want)
				}
				if want == http.StatusOK && body != c.told {
					t.Errorf("%s: the upstream was told %q, want %q", visitor, body, c.told)
				}
			}
		})
	}
}
