package edge

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/tunnel"
)

// A visitor cannot make a rule for requests miss.
func TestRequestRulesHold(t *testing.T) {
	r := newRig(t, nil)
	seen := make(chan http.Header, 1)
	r.upstream(1, func(_ http.ResponseWriter, req *http.Request) { seen <- req.Header })
	e := httpEntry(1, "app.edge.test")
	e.Policy = &tunnel.Policy{RequestHeader: tunnel.HeaderRules{
		Remove: []string{"X-User", "X_Secret"},
		Add:    []tunnel.Header{{Name: "x-user", Value: "guest"}, {Name: "X-Secret", Value: "real"}},
	}}
	r.apply(e)
	for name, fields := range map[string][]string{
		"as they are":               {"X-User: root", "X-Secret: guess"},
		"as CGI reads them":         {"X_User: root", "x_secret: guess", "X-Secret: guess"},
		"listed":                    {"Connection: X-User, keep-alive", "Connection: x-secret"},
		"listed beside an upgrade":  {"Connection: x-user,upgrade , X-Secret", "Upgrade: other"},
		"listed twice, and nothing": {"Connection: X-User,, x-USER,X-Secret", "Connection: "},
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.dialTLS("app.edge.test", "http/1.1")
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: app.edge.test\r\n%s\r\n\r\n", strings.Join(fields, "\r\n"))
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			h := await(t, seen, "request")
			for name, want := range map[string]string{"X-User": "guest", "X-Secret": "real", "X_user": "", "X_secret": ""} {
				if got := strings.Join(h[name], ","); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if upgrade := strings.Contains(name, "upgrade"); upgrade != (h.Get("Upgrade") == "other") {
				t.Errorf("Upgrade: %q", h.Get("Upgrade"))
			}
		})
	}
}
