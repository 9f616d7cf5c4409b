package harness_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/wgexpose/wgexpose/internal/harness"
)

// A page over HTTP/3, through edge and agent, before and after a restart of the
// edge; and what it says about HTTP/3 to those who come over TCP.
func TestHTTP3(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d %v for=%s proto=%s", r.Method, len(b), err, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"))
	}))
	t.Cleanup(upstream.Close)
	e := harness.Start(t, harness.Options{HTTP3: true})
	run := e.AddAgent("laptop").Publish(harness.HTTP("web", upstream.URL))
	after := 0
	for round := range 2 {
		var public string
		public, after = run.WaitUpAfter(after, "web")
		tr := &http3.Transport{
			TLSClientConfig: e.TLSConfig(),
			Dial: func(ctx context.Context, _ string, config *tls.Config, q *quic.Config) (*quic.Conn, error) {
				return quic.DialAddr(ctx, e.Ready.HTTP3.String(), config, q)
			},
		}
		c := &http.Client{Transport: tr}
		res, err := c.Post(public+"/", "text/plain", strings.NewReader(strings.Repeat("x", 1<<20)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if want := fmt.Sprintf("POST %d <nil> for=127.0.0.1 proto=https", 1<<20); string(b) != want || err != nil || res.ProtoMajor != 3 {
			t.Errorf("%s %q %v, want %q", res.Proto, b, err, want)
		}
		tr.Close()
		if res, err := e.Client().Get(public + "/"); err != nil || !strings.HasPrefix(res.Header.Get("Alt-Svc"), `h3=":`) {
			t.Errorf("over TCP: %v %v", res, err)
		} else {
			res.Body.Close()
		}
		if round == 0 {
			e.Restart()
		}
	}
}
