package inspect

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestChangedRequests: what is sent is a request that can be read in one way, to
// the upstream, and as it was asked for; all else is refused with a reason.
func TestChangedRequests(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		i := open(t, Config{})
		seen := make(chan *http.Request, 1)
		app := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r }))
		app.Config.Protocols = new(http.Protocols)
		app.Config.Protocols.SetHTTP1(true)
		app.Config.Protocols.SetUnencryptedHTTP2(true)
		app.Config.DisableGeneralOptionsHandler = true // which answers OPTIONS * by itself
		app.Start()
		defer app.Close()
		redial := redialOf(app)
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!http2)
		protocols.SetUnencryptedHTTP2(http2)
		transport := &http.Transport{Protocols: protocols, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := redial(ctx)
			if err != nil {
				return nil, err
			}
			return i.Tap(c, Meta{Tunnel: "app"}, redial), nil
		}}
		defer transport.CloseIdleConnections()
		const original = "//twice/a?b=c%23d"
		fetch(t, &http.Client{Transport: transport, Timeout: patience}, "GET", app.URL+original, "", "User-Agent", "")
		<-seen
		await(t, i, "the exchange", func() bool { return len(i.List(Filter{Status: "done"})) == 1 })
		id := i.List(Filter{})[0].ID
		host := strings.TrimPrefix(app.URL, "http://")

		for _, c := range []struct {
			method, path, host string // as sent; "" is as it was
			want               string
		}{
			{"", "", "", "GET //twice/a?b=c%23d " + host},
			{"DELETE", "/x", "", "DELETE /x " + host},
			{"OPTIONS", "*", "", "OPTIONS * " + host},
			{"", "//evil.example/x", "", "GET //evil.example/x " + host},
			{"", "//" + host + "/x", "", "GET //" + host + "/x " + host},
			{"", "/a%20b/../%2e?q=http://evil.example/%zz", "", "GET /a%20b/../%2e?q=http://evil.example/%zz " + host},
			{"", "/x", "other.example:81", "GET /x other.example:81"},
			{"", "/x", "[::1]:81", "GET /x [::1]:81"},
		} {
			changes := Changes{}
			if c.method != "" {
				changes.Method = &c.method
			}
			if c.path != "" {
				changes.Path = &c.path
			}
			if c.host != "" {
				changes.Headers = &[]Field{{"host", c.host}}
			}
			again, err := i.Replay(t.Context(), id, changes)
			if err != nil {
				t.Errorf("HTTP/2 %v, %q %q %q: %v", http2, c.method, c.path, c.host, err)
				continue
			}
			var r *http.Request
			await(t, i, "the replay", func() bool { x := i.find(again); return x != nil && i.summary(x).State == StateDone })
			select {
			case r = <-seen:
			default:
				t.Errorf("HTTP/2 %v, %q %q %q: the upstream refuses it", http2, c.method, c.path, c.host)
				continue
			}
			if got := r.Method + " " + r.RequestURI + " " + r.Host; got != c.want || len(r.Header["User-Agent"]) > 0 || (r.ProtoMajor == 2) != http2 {
				t.Errorf("HTTP/2 %v, %q %q %q: the upstream has %s %q, headers %v", http2, c.method, c.path, c.host, r.Proto, got, r.Header)
			}
		}

		for _, c := range []struct {
			method, path string
			header       Field
			why          string // is said
		}{
			{path: "http://evil.example/x", why: "goes to the tunnel's upstream"},
			{path: "https://" + host + "/x", why: "goes to the tunnel's upstream"},
			{path: "evil.example:443", why: "goes to the tunnel's upstream"},
			{path: "x/y", why: "begins with /"}, {path: "?q=1", why: "begins with /"}, {path: "", why: "begins with /"},
			{path: "*", why: "OPTIONS"}, {path: "/x#part", why: "%23"}, {path: "/a b", why: "%20"},
			{path: "/a\tb", why: "control"}, {path: "/a\r\nX: y", why: "control"}, {path: "/\x00", why: "control"}, {path: "/\x7f", why: "control"},
			{path: "/%zz", why: `"%zz"`},
			{method: "CONNECT", path: "/x", why: "CONNECT"}, {method: "connect", path: "/x", why: "CONNECT"}, {method: "CONNECT", path: host, why: "CONNECT"},
			{method: "G T", path: "/x", why: "method"}, {method: "GET\r\n", path: "/x", why: "method"}, {method: "G\x01", path: "/x", why: "method"},
			{path: "/x", header: Field{"Host", "a b"}, why: "host"}, {path: "/x", header: Field{"Host", "evil.example/x"}, why: "host"},
			{path: "/x", header: Field{"Host", "a@b"}, why: "host"}, {path: "/x", header: Field{"Host", ""}, why: "host"}, {path: "/x", header: Field{"Host", "a\r\nB: c"}, why: "host"},
			{path: "/x", header: Field{"A", "b\r\nC: d"}, why: `"A"`}, {path: "/x", header: Field{"A", "b\x01"}, why: `"A"`}, {path: "/x", header: Field{"A", "b\x7f"}, why: `"A"`},
			{path: "/x", header: Field{"A b", "c"}, why: `"A b"`}, {path: "/x", header: Field{":path", "/y"}, why: `":path"`}, {path: "/x", header: Field{"", "c"}, why: `""`},
		} {
			changes := Changes{Path: &c.path}
			if c.method != "" {
				changes.Method = &c.method
			}
			if c.header != (Field{}) {
				changes.Headers = &[]Field{c.header}
			}
			_, err := i.Replay(t.Context(), id, changes)
			if !errors.Is(err, ErrChanges) || !strings.Contains(strings.TrimPrefix(err.Error(), ErrChanges.Error()), c.why) {
				t.Errorf("HTTP/2 %v, %q %q %q: %v, want a word of %s", http2, c.method, c.path, c.header, err, c.why)
			}
			select {
			case r := <-seen:
				t.Errorf("HTTP/2 %v, %q %q %q: was sent as %q", http2, c.method, c.path, c.header, r.RequestURI)
			default:
			}
		}
	}
}
