package edge

import (
	"context"
	"net"
	"net/http"
	"testing"
)

// An answer to HEAD says how long that to GET is, or nothing (RFC 9110, section 9.3.2).
func TestHead(t *testing.T) {
	for proto, client := range map[string]func(*rig) *http.Client{
		"HTTP/1.1": func(r *rig) *http.Client {
			return r.client(func(tr *http.Transport) { tr.ForceAttemptHTTP2 = false })
		},
		"HTTP/2.0": func(r *rig) *http.Client { return r.client(nil) },
		"HTTP/3.0": (*rig).client3,
	} {
		for header, want := range map[string]string{
			"200 OK\r\nTransfer-Encoding: chunked": "",
			"200 OK\r\nVary: *":                    "",
			"200 OK\r\nContent-Length: 9000":       "9000",
			"304 Not Modified\r\nVary: *":          "",
			"204 No Content\r\nVary: *":            "",
		} {
			t.Run(proto+" "+header, func(t *testing.T) {
				r := newRig(t, withHTTP3(nil))
				upstream := newMailbox(t)
				r.apply(httpEntry(1, "app.edge.test"))
				r.dialer.set(1, func(context.Context) (net.Conn, error) { return upstream, nil })
				upstream.say("HTTP/1.1 " + header + "\r\n\r\n")
				res, body := r.do(client(r), r.request(http.MethodHead, "https://app.edge.test/", nil))
				if got := res.Header.Get("Content-Length"); got != want || body != "" || res.Proto != proto {
					t.Errorf("length %q, want %q; body %q by %s", got, want, body, res.Proto)
				}
			})
		}
	}
}
