package harness_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/wgexpose/wgexpose/internal/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// says is a web server that answers every request with its name.
func says(t testing.TB, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		io.WriteString(w, name)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// echo is a TCP server that sends back what it gets, until its end.
func echo(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

// The whole way: HTTPS with a certificate of the internal authority, and TCP
// with half-close.
func TestWholeWay(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	run := e.AddAgent("laptop").Publish(
		harness.HTTP("app", says(t, "hello from app")),
		harness.TCP("echo", echo(t), 0),
	)
	status, code, body := e.Get(e.Client(), run.WaitUp("app"))
	if status != http.StatusOK || code != "" || body != "hello from app" {
		t.Errorf("%d %s %q", status, code, body)
	}
	c := e.Dial(run.WaitUp("echo"))
	if _, err := io.WriteString(c, "over the overlay"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "over the overlay" {
		t.Errorf("%q, %v", got, err)
	}
}
