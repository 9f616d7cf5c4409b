//go:build linux

package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wgexpose/wgexpose/bench/origin"
	"github.com/wgexpose/wgexpose/bench/reference"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startOrigin runs an origin until the test ends.
func startOrigin(t *testing.T) (origin.Ready, string) {
	t.Helper()
	control := filepath.Join(t.TempDir(), "control.sock")
	return serve(t, origin.Run, origin.Config{Host: "127.0.0.1", Control: control}), control
}

// serve runs a role until the test ends, and returns what it is ready with.
func serve[C, R any](t *testing.T, run func(context.Context, C, func(R) error) error, cfg C) R {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan R, 1)
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cfg, func(r R) error { ready <- r; return nil }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case r := <-ready:
		return r
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	panic("unreachable")
}

// session is a load that runs in this process.
type session struct {
	t     *testing.T
	in    *io.PipeWriter
	lines *bufio.Scanner
	ended chan error
}

func begin(t *testing.T, job Job) *session {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	s := &session{t: t, in: inW, lines: bufio.NewScanner(outR), ended: make(chan error, 1)}
	s.lines.Buffer(nil, 1<<20)
	go func() {
		err := Run(context.Background(), inR, outW)
		outW.Close()
		inR.Close()
		s.ended <- err
	}()
	s.say(job)
	return s
}

func (s *session) say(v any) {
	s.t.Helper()
	if err := json.NewEncoder(s.in).Encode(v); err != nil {
		s.t.Fatal(err)
	}
}

// next returns the next answer, which must be of that event.
func (s *session) next(event string) Answer {
	s.t.Helper()
	if !s.lines.Scan() {
		s.t.Fatalf("no %s: %v", event, <-s.ended)
	}
	var a Answer
	if err := json.Unmarshal(s.lines.Bytes(), &a); err != nil || a.Event != event {
		s.t.Fatalf("%s, %v; want %s", s.lines.Bytes(), err, event)
	}
	return a
}

// result returns the last answer.
func (s *session) result() Answer {
	s.t.Helper()
	a := s.next(EventResult)
	if err := <-s.ended; err != nil {
		s.t.Fatal(err)
	}
	return a
}

// failure returns the error that the job ends with, without a result.
func failure(t *testing.T, job Job) error {
	t.Helper()
	s := begin(t, job)
	for s.lines.Scan() {
		if bytes.Contains(s.lines.Bytes(), []byte(EventResult)) {
			t.Fatalf("the job has a result: %s", s.lines.Bytes())
		}
	}
	err := <-s.ended
	if err == nil {
		t.Fatal("the job has neither a result nor an error")
	}
	return err
}

func TestBulkCountsWhatArrives(t *testing.T) {
	o, control := startOrigin(t)
	for _, up := range []bool{false, true} {
		s := begin(t, Job{
			Bulk: &Bulk{Addr: o.TCP, Up: up, Streams: 3, Warmup: 100 * time.Millisecond, For: 300 * time.Millisecond, Control: control},
			PIDs: map[string]int{"origin": os.Getpid()},
		})
		s.next(EventWarm)
		a := s.result()
		b := a.Bulk
		if b.Bytes <= 0 || b.Seconds < 0.3 {
			t.Errorf("up %v: %d bytes in %v s", up, b.Bytes, b.Seconds)
		}
		if want := float64(b.Bytes) * 8 / b.Seconds / 1e9; b.Gbps < 0.999*want || b.Gbps > 1.001*want {
			t.Errorf("up %v: %v Gbit/s, want %v", up, b.Gbps, want)
		}
		last := Point{}
		for _, p := range b.Series {
			if p.Seconds < last.Seconds || p.Bytes < last.Bytes {
				t.Errorf("up %v: %+v comes after %+v", up, p, last)
			}
			last = p
		}
		if last.Bytes < b.Bytes {
			t.Errorf("up %v: %d bytes counted, %d in the series, which has the warm-up too", up, b.Bytes, last.Bytes)
		}
		if !up && (b.Least <= 0 || b.Most < b.Least || b.Most > b.Bytes) {
			t.Errorf("single streams moved %d to %d of %d bytes", b.Least, b.Most, b.Bytes)
		}
		if a.Usage == nil || a.Usage.Seconds < 0.3 || len(a.Usage.CPU) != 2 {
			t.Errorf("usage %+v, want that of load and origin", a.Usage)
		}
	}
}

func TestBulkEndsAtItsCountAndAtAWord(t *testing.T) {
	o, control := startOrigin(t)
	s := begin(t, Job{Bulk: &Bulk{Addr: o.TCP, Streams: 1, For: time.Hour, Until: 1 << 20, Control: control}})
	s.next(EventWarm)
	if a := s.result(); a.Bulk.Bytes < 1<<20 {
		t.Errorf("%d bytes, want a mebibyte at least", a.Bulk.Bytes)
	}
	s = begin(t, Job{Bulk: &Bulk{Addr: o.TCP, Streams: 1, For: time.Hour, Control: control}})
	s.next(EventWarm)
	s.say("stop")
	s.result()
}

// quitter is a server that closes each connection after some bytes.
func quitter(t *testing.T, after int) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.Write(make([]byte, after))
			io.CopyN(io.Discard, conn, 1)
			conn.Close()
		}
	}()
	return ln.Addr().String()
}

func TestFailuresAreNoResults(t *testing.T) {
	_, control := startOrigin(t)
	bad := quitter(t, 100)
	err := failure(t, Job{Bulk: &Bulk{Addr: bad, Streams: 2, Warmup: time.Minute, For: time.Hour, Control: control}})
	if !strings.Contains(err.Error(), "ended early") {
		t.Errorf("a transfer that broke off: %v", err)
	}
	for name, job := range map[string]Job{
		"echo":      {Echo: &Echo{Targets: map[string]string{"in": bad}, Size: 64, For: time.Hour}},
		"idle":      {Idle: &Idle{Addr: quitter(t, 0), Conns: 4, Workers: 2}},
		"https":     {HTTPS: &HTTPS{Addr: bad, Host: "localhost", Path: "/", Conns: 2, For: time.Hour}},
		"no job":    {},
		"no target": {Bulk: &Bulk{Addr: "127.0.0.1:1", Streams: 1, Control: control}},
	} {
		t.Run(name, func(t *testing.T) { failure(t, job) })
	}
}

func TestLoadEndsWithItsInput(t *testing.T) {
	o, control := startOrigin(t)
	s := begin(t, Job{Bulk: &Bulk{Addr: o.TCP, Streams: 1, For: time.Hour, Control: control}})
	s.next(EventWarm)
	s.in.Close()
	if s.lines.Scan() {
		t.Errorf("it goes on: %s", s.lines.Bytes())
	}
	if err := <-s.ended; err == nil || !strings.Contains(err.Error(), "standard input") {
		t.Errorf("it ended with %v", err)
	}
}

func TestEchoMeasuresEachTarget(t *testing.T) {
	o, _ := startOrigin(t)
	a := begin(t, Job{Echo: &Echo{
		Targets: map[string]string{"one": o.TCP, "two": o.TCP}, Size: 700, For: 100 * time.Millisecond,
	}}).result()
	for _, name := range []string{"one", "two"} {
		if l := a.Echo.Targets[name]; l.N == 0 || l.P50 <= 0 || l.P99 < l.P50 || l.Max < l.P99 {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

func TestConnectCounts(t *testing.T) {
	o, _ := startOrigin(t)
	a := begin(t, Job{Connect: &Connect{Addr: o.TCP, Workers: 4, For: time.Minute, Count: 200, Sources: 3}}).result()
	if c := a.Connect; c.Completed != 200 || c.Failed != 0 || c.Latency.N != 200 || c.PerSecond <= 0 {
		t.Errorf("%+v, want 200 connections", c)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := ln.Addr().String()
	ln.Close()
	a = begin(t, Job{Connect: &Connect{Addr: nobody, Workers: 2, For: time.Minute, Count: 20}}).result()
	if c := a.Connect; c.Completed != 0 || c.Failed != 20 || c.Errors["connection refused"] != 20 {
		t.Errorf("%+v, want 20 refused", c)
	}
	a = begin(t, Job{Connect: &Connect{Addr: quitter(t, 0), Workers: 2, For: time.Minute, Count: 20}}).result()
	if c := a.Connect; c.Completed != 0 || c.Failed != 20 {
		t.Errorf("%+v, want 20 failures", c)
	}
}

func TestIdleHoldsUntilTheWord(t *testing.T) {
	o, _ := startOrigin(t)
	s := begin(t, Job{Idle: &Idle{Addr: o.TCP, Conns: 50, Workers: 5}})
	s.next(EventHeld)
	s.say("go")
	if a := s.result(); a.Idle.Opened != 50 || a.Idle.Alive != 50 || len(a.Idle.Errors) != 0 {
		t.Errorf("%+v, want 50 alive", a.Idle)
	}
}

func TestHTTPSThroughTheReferenceProxy(t *testing.T) {
	o, _ := startOrigin(t)
	proxy := serve(t, reference.RunProxy, reference.ProxyConfig{Host: "127.0.0.1", Origin: o.HTTP})
	job := func(path string, size int) Job {
		return Job{HTTPS: &HTTPS{Addr: proxy.Public, Host: "localhost", Path: path, Size: size, Conns: 3, For: 100 * time.Millisecond}}
	}
	a := begin(t, job("/bytes/102400", 102400)).result()
	if h := a.HTTPS; h.Requests < 3 || h.PerSecond <= 0 || h.Latency.N != h.Requests || !strings.HasPrefix(h.TLS, "TLS 1.3 ") {
		t.Errorf("%+v", h)
	}
	failure(t, job("/bytes/100", 99))
	failure(t, job("/elsewhere", 100))
}

func TestReadPage(t *testing.T) {
	const good = "HTTP/1.1 200 OK\r\nDate: x\r\ncontent-length:  5\r\n\r\nhello"
	in := bufio.NewReader(strings.NewReader(good + good))
	for range 2 {
		if err := readPage(in, 5); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{
		"", "HTTP/1.1 200 OK\r\n", strings.Replace(good, "200 OK", "503 No", 1), strings.Replace(good, "5", "6", 1),
		strings.Replace(good, "  5", " five", 1), strings.Replace(good, "content-length", "x-length", 1), good[:len(good)-1],
	} {
		if err := readPage(bufio.NewReader(strings.NewReader(bad)), 5); err == nil {
			t.Errorf("%q was taken for a page", bad)
		}
	}
}

func FuzzReadPage(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	f.Add("HTTP/1.1 200 \ncontent-length:5\n\nhello")
	f.Fuzz(func(t *testing.T, page string) {
		in := bufio.NewReader(strings.NewReader(page))
		if err := readPage(in, 5); err == nil && in.Buffered() > len(page)-5 {
			t.Errorf("%q was taken without its body", page)
		}
	})
}

func TestReasonLeavesAddressesOut(t *testing.T) {
	_, err := net.Dial("tcp", "127.0.0.1:1")
	if err == nil {
		t.Skip("somebody listens on port 1")
	}
	if got := reason(err); got != "connection refused" {
		t.Errorf("reason(%v) = %q", err, got)
	}
	if got := reason(&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}); got != "time-out" {
		t.Errorf("reason of a deadline = %q", got)
	}
	if got := reason(errors.New("odd")); got != "odd" {
		t.Errorf("reason of another error = %q", got)
	}
}

func TestSourcesDiffer(t *testing.T) {
	seen := make(map[string]bool)
	for n := range int64(600) {
		a := source(n, 300)
		if !a.IsLoopback() {
			t.Fatalf("visitor %d comes from %v", n, a)
		}
		seen[a.String()] = true
	}
	if len(seen) != 300 {
		t.Errorf("%d addresses, want 300", len(seen))
	}
}
