package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestGuestLogsItsVisitors: what happens to a guest's tunnels is logged by the
// guest, at its own level, and not by the owner; and a watch tells the visits of
// the one or the other.
func TestGuestLogsItsVisitors(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	first, second := listen(t), listen(t)
	echo(t, first, "first")
	echo(t, second, "second")
	var ownerLog, guestLog, quietLog lines
	logger := func(w io.Writer, level slog.Level) *slog.Logger {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
	}
	a := start(t, Config{Dir: dir, Tunnels: []Tunnel{tcpTunnel("first", first.Addr().String())}, Logger: logger(&ownerLog, slog.LevelWarn)})
	a.tunnel(0, "first", TunnelUp)
	b := start(t, Config{Dir: dir, Tunnels: []Tunnel{tcpTunnel("second", second.Addr().String())}, Logger: logger(&guestLog, slog.LevelInfo)})
	b.tunnel(0, "second", TunnelUp)
	q := start(t, Config{Dir: dir, Tunnels: []Tunnel{tcpTunnel("quiet", second.Addr().String())}, Logger: logger(&quietLog, slog.LevelError)})
	q.tunnel(0, "quiet", TunnelUp)
	for _, s := range e.published(j.Node, "first", "second", "quiet") {
		c, err := e.dial(t.Context(), netipVisitor, e.overlay.TunnelAddr(j.Node, s.ID))
		if err != nil {
			t.Fatal(err)
		}
		greeting := s.Name
		if greeting == "quiet" {
			greeting = "second"
		}
		talk(t, c, greeting)
		c.Close()
	}
	seen := map[string]bool{}
	ctx, enough := context.WithTimeout(t.Context(), patience)
	defer enough()
	if err := Watch(ctx, dir, WatchOptions{Every: time.Millisecond}, func(s Status) {
		for _, v := range s.Visits {
			if !strings.HasPrefix(v.Visitor, netipVisitor.Addr().String()+":") || v.Start.IsZero() {
				t.Errorf("visit %+v", v)
			}
			if !v.Open && v.ToVisitor > 0 && v.Took > 0 {
				seen[v.Tunnel] = true
			}
		}
		if len(seen) == 3 {
			enough()
		}
	}); err != nil || len(seen) != 3 {
		t.Fatalf("visits to %v, %v", seen, err)
	}
	for _, r := range []*running{b, q, a} { // their last lines have been logged then
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}
	text := guestLog.String()
	for _, want := range []string{"connection opened", "connection closed", "tunnel=second", "visitor=" + netipVisitor.Addr().String() + ":"} {
		if !strings.Contains(text, want) {
			t.Errorf("the guest's log has no %q: %s", want, text)
		}
	}
	for name, log := range map[string]*lines{"owner": &ownerLog, "quiet guest": &quietLog} {
		if strings.Contains(log.String(), "connection opened") {
			t.Errorf("the log of the %s has %s", name, log)
		}
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu  sync.Mutex // guards buf
	buf strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// TestGuestLogIsBounded: a guest that does not read its log loses lines, is told
// how many, and loses nothing else.
func TestGuestLogIsBounded(t *testing.T) {
	b := newInbox()
	log := slog.New(&guestHandler{inbox: b, level: slog.LevelInfo}).With("tunnel", "app")
	for range maxLogLines + 5 {
		log.Info("connection opened", "visitor", netipVisitor)
	}
	log.Debug("nobody wants this")
	b.put(message{Type: msgBye})
	for range maxLogLines {
		m, ok := b.next(t.Context())
		if !ok || m.Log == nil || m.Log.Lost != 0 {
			t.Fatalf("%+v", m)
		}
	}
	if m, ok := b.next(t.Context()); !ok || m.Type != msgBye {
		t.Fatalf("%+v", m)
	}
	log.Warn("upstream cannot be dialled")
	m, ok := b.next(t.Context())
	if !ok || m.Log == nil || m.Log.Lost != 5 {
		t.Fatalf("%+v", m)
	}
	var out lines
	if err := m.Log.print(slog.New(slog.NewTextHandler(&out, nil))); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "lines=5") || !strings.Contains(text, "tunnel=app") {
		t.Errorf("%s", text)
	}
}

// TestVisits: the newest are kept, and one that ends is told again however long
// ago it began.
func TestVisits(t *testing.T) {
	v := newVisits()
	now := time.Now()
	old := v.begin("ssh", "192.0.2.1:1", now)
	got, seq := v.since(0, now.Add(time.Second))
	if len(got) != 1 || !got[0].Open || got[0].Took != time.Second {
		t.Fatalf("%+v", got)
	}
	for range maxVisits + 10 {
		x := v.begin("ssh", "192.0.2.1:2", now)
		v.end(x, time.Second, 1, 2, nil)
	}
	got, seq = v.since(seq, now)
	if len(got) != maxVisits || len(v.kept) != maxVisits {
		t.Fatalf("%d visits, %d kept", len(got), len(v.kept))
	}
	v.end(old, time.Minute, 3, 4, errors.New("reset by the upstream"))
	got, _ = v.since(seq, now)
	want := Visit{ID: old.ID, Tunnel: "ssh", Start: now, Took: time.Minute, Visitor: "192.0.2.1:1", ToUpstream: 3, ToVisitor: 4, Error: "reset by the upstream"}
	if len(got) != 1 || got[0] != want {
		t.Fatalf("%+v", got)
	}
}
