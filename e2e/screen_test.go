package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestScreen: what a person sees on a terminal of 80×24 and after it was made
// larger, what keys do, and what is left on the normal screen.
func TestScreen(t *testing.T) {
	s := newSystem(t)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, "hello")
	}))
	t.Cleanup(app.Close)
	x := startTerminal(t, 80, 24, nil, "http", app.URL, "--name", "app", "--state", s.agentDir(), "--web-addr", "127.0.0.1:0")
	url := "https://app.localhost:" + s.httpsPort()
	text := x.shows("wgexpose  laptop at localhost", "app  up  "+url+" → "+app.URL, "up over UDP", " ms  since ", "0 requests", "q quit", "none yet", "inspector  http://127.0.0.1:")
	if n := strings.Count(text, "\n"); n != 23 {
		t.Errorf("the screen has %d lines of 24", n+1)
	}

	get := func(path string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.client(false).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	get("/first?page=1")
	get("/missing")
	get("/%1b%5b2J\u6f22")
	x.shows("200  GET", "/first?page=1", "404  GET", "/missing", "3 requests", "127.0.0.1", "p50 ")

	// A filter, and back.
	x.keys("/404")
	x.await("the others are gone", func(text string) bool { return strings.Contains(text, "/missing") && !strings.Contains(text, "/first") })
	x.keys("\x1b")
	x.shows("/first?page=1", "q quit")

	// Paused, nothing comes in; then all of it.
	x.keys("p")
	x.shows("paused")
	get("/later")
	x.shows("4 requests")
	if strings.Contains(x.text(), "/later") {
		t.Error("a request is shown while it is paused")
	}
	x.keys("p")
	x.shows("/later")

	// The clipboard, by the terminal's own sequence.
	x.keys("c")
	x.shows("copied " + url)
	if want := "\x1b]52;c;" + base64.StdEncoding.EncodeToString([]byte(url)); !strings.Contains(x.written(), want) {
		t.Errorf("no %q was written", want)
	}
	x.keys("r")
	x.shows("█▀▀▀▀▀█", "any key goes back")
	x.keys("x")
	x.keys("o")
	x.shows("cannot open it: this machine has no display; c copies, r shows a QR code")

	// Larger, and so small that little is left.
	x.resize(120, 40)
	text = x.await("the larger screen", func(text string) bool {
		lines := strings.Split(text, "\n")
		return len(lines) == 40 && strings.TrimSpace(lines[39]) != "" && strings.Contains(text, "/first?page=1")
	})
	if strings.Count(text, "wgexpose  laptop") != 1 {
		t.Error("something of the smaller screen is left")
	}
	x.resize(30, 6)
	x.await("the small screen", func(text string) bool {
		lines := strings.Split(text, "\n")
		return len(lines) == 6 && strings.TrimSpace(lines[5]) != ""
	})
	x.resize(96, 18)
	x.await("the screen", func(text string) bool { return strings.TrimSpace(strings.Split(text, "\n")[17]) != "" })
	if file := os.Getenv("WGEXPOSE_SCREENSHOT"); file != "" {
		x.await("that nobody is told of a key", func(text string) bool { return strings.Contains(text, "q quit") })
		x.screenshot(file)
	}

	// A guest beside it has its own.
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	g := startTerminal(t, 80, 24, nil, "tcp", echo.Addr().String(), "--name", "raw", "--state", s.agentDir())
	text = g.shows("raw  up  tcp://localhost:", "up over UDP", "ms  since")
	_, rest, _ := strings.Cut(text, "tcp://localhost:")
	port, _, _ := strings.Cut(rest, " ")
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text = g.shows("open TCP", "1 connection  1 open")
	if strings.Contains(text, "/first") || strings.Contains(x.text(), "open TCP") {
		t.Errorf("one command shows visits of the other:\n%s\n%s", text, x.text())
	}
	c.Close()

	x.keys("q")
	if code, text := x.end(); code != 0 || !strings.Contains(text, url+" -> "+app.URL) || strings.Contains(text, "q quit") {
		t.Errorf("exit code %d, and on the normal screen:\n%s", code, text)
	}
	// The guest holds the links now, and goes on.
	g.shows("raw  up  ")
	g.signal(syscall.SIGTERM)
	if code, text := g.end(); code != 0 || !strings.Contains(text, "tcp://localhost:"+port) {
		t.Errorf("exit code %d, and on the normal screen:\n%s", code, text)
	}
}

// TestScreenErrors: what ends a run stands on the normal screen, with all that was
// logged; and an upstream that is down is told.
func TestScreenErrors(t *testing.T) {
	s := newSystem(t)
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := down.Addr().String()
	down.Close()
	x := startTerminal(t, 80, 24, nil, "http", target, "--name", "app", "--state", s.agentDir(), "--web-addr", "127.0.0.1:0")
	x.shows("app  upstream down  https://app.localhost:", "connection refused by "+target)

	// The same name a second time.
	y := startTerminal(t, 80, 24, nil, "http", "1", "--name", "app", "--state", s.agentDir(), "--web-addr", "127.0.0.1:0")
	if code, text := y.end(); code != 1 || strings.Count(strings.ReplaceAll(text, "\n", ""), "already serves") != 1 || !strings.Contains(text, "wgexpose: ") {
		t.Errorf("exit code %d, and on the normal screen:\n%s", code, text)
	}
	// The agent is revoked.
	s.run("", "edge", "revoke", "laptop", "--state", s.edgeDir())
	if code, text := x.end(); code != 3 || !strings.Contains(text, "revoked") {
		t.Errorf("exit code %d, and on the normal screen:\n%s", code, text)
	}
}

// TestPlain: lines, and not one escape sequence, where a screen is not wanted.
func TestPlain(t *testing.T) {
	s := newSystem(t)
	for name, c := range map[string]struct{ env, args []string }{
		"NO_COLOR": {env: []string{"NO_COLOR=1"}},
		"--plain":  {args: []string{"--plain"}},
		"dumb":     {env: []string{"TERM=dumb"}},
		"--json":   {args: []string{"--json"}},
	} {
		args := append([]string{"tcp", "127.0.0.1:1", "--name", "raw", "--state", s.agentDir()}, c.args...)
		x := startTerminal(t, 80, 24, c.env, args...)
		x.shows("tcp://localhost:")
		x.keys("\x03") // the terminal makes a signal of it
		code, _ := x.end()
		if text := x.written(); code != 0 || strings.Contains(text, "\x1b") {
			t.Errorf("%s: exit code %d, and it wrote %q", name, code, text)
		}
	}
}

// TestScreenAtOnce: a second Ctrl-C ends it at once, and leaves the terminal as it
// was.
func TestScreenAtOnce(t *testing.T) {
	s := newSystem(t)
	hold, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	x := startTerminal(t, 80, 24, nil, "tcp", hold.Addr().String(), "--name", "raw", "--state", s.agentDir())
	_, rest, _ := strings.Cut(x.shows("raw  up  tcp://localhost:"), "tcp://localhost:")
	port, _, _ := strings.Cut(rest, " ")
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x.shows("1 open")
	x.keys("\x03")
	x.shows("stopping")
	x.keys("\x03")
	if code, text := x.end(); code != 1 || strings.Contains(text, "stopping") {
		t.Errorf("exit code %d, and on the normal screen:\n%s", code, text)
	}
}

func (s *system) httpsPort() string {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.ready.HTTPS)
	if err != nil {
		s.t.Fatal(err)
	}
	return port
}

// screenshot writes a picture.
func (x *terminal) screenshot(file string) {
	x.t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		x.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(x.svg()), 0o644); err != nil {
		x.t.Fatal(fmt.Errorf("write the picture: %w", err))
	}
}
