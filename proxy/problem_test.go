package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/internal/logbuf"
)

var sample = &Problem{
	Status: 503, Code: "agent_away", Title: "Offline <b>now</b>", Detail: `It said "no" & left <script>alert(1)</script>`,
	RetryAfter: 1500 * time.Millisecond,
}

func TestWriteProblemForms(t *testing.T) {
	for accept, want := range map[string]string{
		"": "text/plain",
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8": "text/html",
		"*/*":                                "text/plain",
		"application/json":                   "application/json",
		"application/json, text/plain, */*":  "application/json",
		"text/html;q=0.5, application/json":  "application/json",
		"text/html, application/json;q=0.5":  "text/html",
		"application/problem+json":           "application/json",
		"text/event-stream":                  "text/plain",
		"application/json;q=0":               "text/plain",
		"text/html;q=nonsense":               "text/plain",
		";;;,,,text/html":                    "text/html",
		"application/json;q=0.2, text/plain": "text/plain",
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		WriteProblem(w, r, sample)
		h := w.Result().Header
		if got, _, _ := strings.Cut(h.Get("Content-Type"), ";"); got != want {
			t.Errorf("Accept %q: %s, want %s", accept, got, want)
		}
		if w.Code != 503 || h.Get("Wgexpose-Error") != "agent_away" || h.Get("Cache-Control") != "no-store" || h.Get("Retry-After") != "2" {
			t.Errorf("Accept %q: %d %v", accept, w.Code, h)
		}
	}
}

func TestProblemPage(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = `a"><img src=x>`
	r.Header.Set("Accept", "text/html")
	WriteProblem(w, r, sample)
	body := w.Body.String()
	for _, bad := range []string{"<script", "<b>", "<img", "http://", "https://", "url(", "@import", "src="} {
		if strings.Contains(strings.ReplaceAll(body, "src=x&gt;", ""), bad) {
			t.Errorf("the page holds %q:\n%s", bad, body)
		}
	}
	for _, want := range []string{"Offline &lt;b&gt;", "&lt;script&gt;", "prefers-color-scheme: dark", `name="viewport"`, `lang="en"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("CSP %q", csp)
	}
	if len(body) > 4<<10 {
		t.Errorf("%d bytes are not a short page", len(body))
	}
}

func TestProblemJSON(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept", "application/json")
	WriteProblem(w, r, sample)
	var doc map[string]map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	e := doc["error"]
	if e["code"] != "agent_away" || e["message"] != sample.Detail || e["title"] != sample.Title || e["status"] != 503.0 {
		t.Errorf("%v", doc)
	}
}

// Errors of the way to the upstream, each with its code.
func TestProblems(t *testing.T) {
	own := &Problem{Status: 503, Code: "own", Title: "t", Detail: "d"}
	fail := func(err error) func(context.Context) (net.Conn, error) {
		return func(context.Context) (net.Conn, error) { return nil, err }
	}
	silent := rawUpstream(t, func(c net.Conn, r *bufio.Reader) { http.ReadRequest(r) })
	garbage := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n")
	})
	switches := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
	})
	for name, test := range map[string]struct {
		cfg    Config
		status int
		code   string
	}{
		"refused":  {Config{Dial: fail(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)})}, 502, "upstream_refused"},
		"timeout":  {Config{Dial: fail(&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded})}, 504, "upstream_timeout"},
		"own":      {Config{Dial: fail(fmt.Errorf("dial: %w", own))}, 503, "own"},
		"other":    {Config{Dial: fail(errors.New("strange"))}, 502, "upstream_broken"},
		"silent":   {Config{Dial: dialTo(silent)}, 502, "upstream_broken"},
		"garbage":  {Config{Dial: dialTo(garbage)}, 502, "upstream_broken"},
		"switches": {Config{Dial: dialTo(switches)}, 502, "upstream_broken"},
		"ErrorFor": {Config{Dial: fail(errors.New("x")), ErrorFor: func(error) *Problem { return own }}, 503, "own"},
		"ErrorFor nil": {Config{Dial: fail(syscall.ECONNREFUSED), ErrorFor: func(error) *Problem { return nil }},
			502, "upstream_refused"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, test.cfg, func(t *testing.T, f front) {
				for _, method := range []string{"GET", "POST"} {
					r := request(t, method, f.URL, nil)
					res, body := do(t, f, r)
					if res.StatusCode != test.status || res.Header.Get("Wgexpose-Error") != test.code || body == "" {
						t.Errorf("%s: %s %q %q", method, res.Status, res.Header.Get("Wgexpose-Error"), body)
					}
				}
			})
		})
	}
}

// Whoever cancels a request may say what its visitor reads.
func TestCauseOfCancellation(t *testing.T) {
	arrived := make(chan struct{}, 1)
	addr := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		arrived <- struct{}{}
		r.ReadByte() // until the proxy lets go
	})
	p := New(Config{Dial: dialTo(addr)})
	defer p.Close()
	f := front{Server: newServer(t, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		go func() {
			<-arrived
			cancel(sample)
		}()
		p.ServeHTTP(w, r.WithContext(ctx))
	})}
	if res, _ := do(t, f, request(t, "GET", f.URL, nil)); res.StatusCode != 503 || res.Header.Get("Wgexpose-Error") != "agent_away" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
}

// The page comes at once, also to a visitor who has only begun an upload.
func TestProblemDoesNotWaitForTheUpload(t *testing.T) {
	cfg := Config{Dial: func(context.Context) (net.Conn, error) { return nil, sample }}
	p := New(cfg)
	defer p.Close()
	for name, h := range map[string]http.HandlerFunc{
		"proxied": p.ServeHTTP,
		"direct":  func(w http.ResponseWriter, r *http.Request) { WriteProblem(w, r, sample) },
	} {
		t.Run(name, func(t *testing.T) {
			f := front{Server: newServer(t, h)}
			c, br := dialRaw(t, f)
			fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbegin")
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != 503 || !res.Close {
				t.Errorf("%s, close %v", res.Status, res.Close)
			}
		})
	}
}

func TestLog(t *testing.T) {
	var out logbuf.Buffer
	f := serve(t, Config{
		Dial:   func(context.Context) (net.Conn, error) { return nil, errors.New("strange") },
		Logger: slog.New(slog.NewTextHandler(&out, nil)).With("tunnel", "app"),
	})
	do(t, f, request(t, "GET", f.URL+"/secret?token=1", nil))
	if line := out.String(); !regexp.MustCompile(`level=WARN .*tunnel=app .*code=upstream_broken .*visitor=127\.0\.0\.1:\d+ .*err=.*strange`).MatchString(line) {
		t.Errorf("log: %s", line)
	} else if strings.Contains(line, "secret") || strings.Contains(line, "token") {
		t.Errorf("the log tells the path: %s", line)
	}
}
