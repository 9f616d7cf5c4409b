package harness_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/internal/harness"
)

// TestHTTP10: a client that knows HTTP/1.0 alone, and offers nothing else by ALPN, gets
// answers that it can read, wherever TLS ends: no chunks, and the connection's end
// where the length is not known.
func TestHTTP10(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			for n := range 3 {
				fmt.Fprintf(w, "piece %d\n", n)
				w.(http.Flusher).Flush()
			}
			return
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.Write(b)
	}))
	t.Cleanup(upstream.Close)
	e := harness.Start(t, harness.Options{})
	a := e.AddAgent("laptop")
	a.Certificates = agent.Certificates{Mode: certs.Internal}
	run := a.Publish(harness.HTTP("edge", upstream.URL), atAgent(harness.HTTP("agent", upstream.URL)))
	for _, name := range []string{"edge", "agent"} {
		u, err := url.Parse(run.WaitUp(name))
		if err != nil {
			t.Fatal(err)
		}
		config := &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname(), NextProtos: []string{"http/1.0"}}
		for path, want := range map[string]string{"/stream": "piece 0\npiece 1\npiece 2\n", "/echo": "hello"} {
			c, err := tls.Dial("tcp", e.Ready.HTTPS.String(), config)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			defer c.Close()
			if p := c.ConnectionState().NegotiatedProtocol; p != "http/1.0" {
				t.Errorf("%s agrees to %q", name, p)
			}
			if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "POST %s HTTP/1.0\r\nHost: %s\r\nContent-Length: 5\r\n\r\nhello", path, u.Host)
			answer, err := io.ReadAll(c) // up to the end of the connection
			if err != nil {
				t.Fatalf("%s%s: %v", name, path, err)
			}
			head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
			if !strings.HasPrefix(head, "HTTP/1.0 200 OK\r\n") || strings.Contains(head, "Transfer-Encoding") || body != want {
				t.Errorf("%s%s: %q", name, path, answer)
			}
		}
	}
}
