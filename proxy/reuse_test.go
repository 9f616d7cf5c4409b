package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// counting dials addr and counts.
func counting(addr string) (dial func(context.Context) (net.Conn, error), dials *atomic.Int64) {
	dials = new(atomic.Int64)
	return func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		return dialTo(addr)(ctx)
	}, dials
}

func TestWhichRequestsShareConnections(t *testing.T) {
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	for name, test := range map[string]struct {
		method, body string
		header       string
		shares       bool
	}{
		"GET":                   {"GET", "", "", true},
		"HEAD":                  {"HEAD", "", "", true},
		"OPTIONS":               {"OPTIONS", "", "", true},
		"POST with a key":       {"POST", "", "Idempotency-Key", true},
		"POST":                  {"POST", "x", "", false},
		"empty POST":            {"POST", "", "", false},
		"PUT":                   {"PUT", "x", "", false}, // idempotent, but the body is gone
		"DELETE":                {"DELETE", "", "", false},
		"GET with a body":       {"GET", "x", "", false},
		"POST with key, body":   {"POST", "x", "Idempotency-Key", false},
		"a method nobody knows": {"FROBNICATE", "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			dial, dials := counting(addr)
			f := serve(t, Config{Dial: dial})
			do(t, f, request(t, "GET", f.URL, nil)) // leaves a connection
			const times = 5
			for range times {
				r := request(t, test.method, f.URL, strings.NewReader(test.body))
				if test.header != "" {
					r.Header.Set(test.header, "1")
				}
				if res, body := do(t, f, r); res.StatusCode != 200 || (test.method != "HEAD" && body != test.body) {
					t.Fatalf("%s %q", res.Status, body)
				}
			}
			want := int64(1)
			if !test.shares {
				want = 1 + times
			}
			if n := dials.Load(); n != want {
				t.Errorf("%d connections, want %d", n, want)
			}
		})
	}
}

// The visitor's connection is kept after ordinary requests, uploads too.
func TestVisitorsConnectionIsKept(t *testing.T) {
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprint(w, len(b), err)
	})
	f := serve(t, Config{Dial: dialTo(addr)})
	c, br := dialRaw(t, f)
	for range 10 {
		for _, rest := range []string{
			"Content-Length: 5\r\n\r\nhello",
			"Content-Length: 0\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
			"Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000),
		} {
			if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\n"+rest); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != 200 || res.Close {
				t.Fatalf("%s, close %v", res.Status, res.Close)
			}
		}
	}
}

// The upstream closes each connection at the worst moment: when the next request
// is on its way to it, or was read already. No visitor may notice, and no
// request that must not be repeated may arrive twice.
func TestIdleConnectionClosedAtTheWorstMoment(t *testing.T) {
	var posts atomic.Int64
	addr := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		for first := true; ; first = false {
			if !first {
				// Wait for the request's first byte, or read it whole, then close
				// without an answer: with a RST in the first case.
				if _, err := r.Peek(1); err != nil {
					return
				}
				if posts.Load()%2 == 0 {
					return
				}
			}
			req, err := http.ReadRequest(r)
			if err != nil || !first {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			if req.Method == "POST" {
				posts.Add(1)
			}
			io.WriteString(c, plainOK)
		}
	})
	f := serve(t, Config{Dial: dialTo(addr)})
	cookies := strings.Repeat("c", 6000) // more than one write's worth
	const rounds = 200
	for i := range rounds {
		get := request(t, "GET", f.URL, nil)
		if i%3 == 0 {
			get.Header.Set("Cookie", cookies)
		}
		if res, body := do(t, f, get); res.StatusCode != 200 || body != "ok" {
			t.Fatalf("GET %d: %s %q", i, res.Status, body)
		}
		if res, body := do(t, f, request(t, "POST", f.URL, strings.NewReader("pay 5"))); res.StatusCode != 200 || body != "ok" {
			t.Fatalf("POST %d: %s %q", i, res.Status, body)
		}
	}
	if n := posts.Load(); n != rounds {
		t.Errorf("%d POSTs arrived, want %d", n, rounds)
	}
}

// The plain case: the upstream's keep-alive runs out just now.
func TestIdleConnectionClosed(t *testing.T) {
	addr := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		io.WriteString(c, plainOK) // promises to stay, and closes
	})
	f := serve(t, Config{Dial: dialTo(addr)})
	for i := range 200 {
		method := "GET"
		if i%2 == 1 {
			method = "POST"
		}
		if res, body := do(t, f, request(t, method, f.URL, nil)); res.StatusCode != 200 || body != "ok" {
			t.Fatalf("%s %d: %s %q", method, i, res.Status, body)
		}
	}
}

func TestClose(t *testing.T) {
	release, running := make(chan struct{}), make(chan struct{})
	var ended atomic.Int64
	l := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		defer ended.Add(1)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.URL.Path == "/slow" {
				close(running)
				<-release
			}
			io.WriteString(c, plainOK)
		}
	})
	dial, dials := counting(l)
	f := serve(t, Config{Dial: dial})
	do(t, f, request(t, "GET", f.URL, nil))
	slow := make(chan string, 1)
	go func() {
		res, err := f.Client().Get(f.URL + "/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			slow <- err.Error()
			return
		}
		slow <- string(b)
	}()
	receive(t, running, "slow request")
	if err := f.proxy.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.proxy.Close(); err != nil {
		t.Fatal("twice:", err)
	}
	before := dials.Load()
	for range 2 { // one that comes too late is served, and leaves nothing behind
		do(t, f, request(t, "GET", f.URL, nil))
	}
	if n := dials.Load() - before; n != 2 {
		t.Errorf("%d connections for 2 late requests", n)
	}
	close(release)
	if got := receive(t, slow, "answer to the slow request"); got != "ok" {
		t.Errorf("request under way: %q", got)
	}
	// goleak and rawUpstream's cleanup see connections that stay open.
}
