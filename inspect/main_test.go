package inspect

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen soon; it is met only by a hang.
const patience = 30 * time.Second

// open makes an Inspector that the test closes.
func open(t testing.TB, cfg Config) *Inspector {
	t.Helper()
	i := New(cfg)
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

// turn is what one side says.
type turn struct {
	dir  direction
	text string
}

func req(s string) turn { return turn{toUpstream, crlf(s)} }
func ans(s string) turn { return turn{toVisitor, crlf(s)} }

// crlf makes heads readable in tests: line feeds become line ends.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// talk parses a conversation and returns its exchanges, oldest first. split
// says where a turn is cut; nil: nowhere.
func talk(i *Inspector, turns []turn, last ends, split func(n int) []int) []*exchange {
	s := i.newSession(Meta{Tunnel: "app", PublicURL: "https://app.example.com"}, nil)
	at := time.Unix(1_700_000_000, 0)
	for _, u := range turns {
		from := 0
		cuts := []int{len(u.text)}
		if split != nil {
			cuts = append(split(len(u.text)), len(u.text))
		}
		for _, to := range cuts {
			if to > from {
				at = at.Add(time.Millisecond)
				s.parse(&chunk{dir: u.dir, at: at, data: []byte(u.text[from:to])})
				from = to
			}
		}
	}
	last.at = at.Add(time.Millisecond)
	s.finish(last)
	s.flush()
	list := i.ring.newest()
	slices.Reverse(list)
	return list
}

var (
	upstreamEnds = ends{answers: true}
	visitorEnds  = ends{closed: true}
	resetByUp    = ends{answers: true, reset: true}
)

// describe writes what was understood of an exchange, without times.
func describe(x *exchange) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s", x.kind, x.state, x.method, x.target)
	side := func(name string, m *message) {
		fmt.Fprintf(&b, " | %s %d %q", name, m.size, m.body.bytes())
		if m.cut {
			b.WriteString(" cut")
		}
		if m.done {
			b.WriteString(" done")
		}
		if m.messages > 0 {
			fmt.Fprintf(&b, " grpc=%d", m.messages)
		}
		for _, t := range m.trailers {
			fmt.Fprintf(&b, " %s=%s", t.Name, t.Value)
		}
	}
	side("request", &x.request)
	if len(x.interim) > 0 {
		fmt.Fprintf(&b, " | %v", x.interim)
	}
	fmt.Fprintf(&b, " | %d %s", x.status, x.reason)
	side("answer", &x.response)
	if x.upgrade != "" {
		fmt.Fprintf(&b, " | upgrade %s", x.upgrade)
	}
	for _, m := range x.log.list {
		fmt.Fprintf(&b, " | %d %s %s", m.Number, m.Direction, m.Type)
		if m.Name != "" || m.ID != "" {
			fmt.Fprintf(&b, " name=%s id=%s", m.Name, m.ID)
		}
		if m.Code != 0 {
			fmt.Fprintf(&b, " code=%d", m.Code)
		}
		fmt.Fprintf(&b, " size=%d frames=%d %q", m.Size, m.Frames, m.Text+string(m.Data))
		if m.Cut {
			b.WriteString(" cut")
		}
		b.WriteString(m.Note)
	}
	if x.err != "" {
		fmt.Fprintf(&b, " | error: %s", x.err)
	}
	return b.String()
}

func describeAll(list []*exchange) []string {
	out := []string{}
	for _, x := range list {
		out = append(out, describe(x))
	}
	return out
}

// upstreamOf starts a web server that the test closes.
func upstreamOf(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server
}

// redialOf connects to a server.
func redialOf(server *httptest.Server) Redial {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}
}

// through is a client whose requests pass taps to a server.
func through(t testing.TB, i *Inspector, server *httptest.Server, m Meta) *http.Client {
	t.Helper()
	redial := redialOf(server)
	transport := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := redial(ctx)
		if err != nil {
			return nil, err
		}
		return i.Tap(c, m, redial), nil
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// fetch does a request and returns the answer's body.
func fetch(t testing.TB, c *http.Client, method, url string, body string, header ...string) (*http.Response, string) {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	q, err := http.NewRequest(method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n+1 < len(header); n += 2 {
		if header[n] == "Host" {
			q.Host = header[n+1]
		}
		q.Header.Add(header[n], header[n+1])
	}
	a, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a, string(b)
}

// await polls what another goroutine brings about, each time that the
// inspector tells of a change.
func await(t testing.TB, i *Inspector, what string, ok func() bool) {
	t.Helper()
	w := i.Watch()
	defer w.Close()
	late := time.After(patience)
	for !ok() {
		select {
		case <-w.Wake():
			w.Take()
		case <-late:
			t.Fatalf("not in time: %s; there is %v", what, describeAll(i.ring.newest()))
		}
	}
}

func fromJSON[T any](t testing.TB, s string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return v
}
