package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/statedir"
)

// watching is a Watch in a goroutine.
type watching struct {
	t      *testing.T
	shown  chan Status
	ended  chan error
	cancel context.CancelFunc
}

func watchDir(t *testing.T, dir *statedir.Dir, o WatchOptions) *watching {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	w := &watching{t: t, shown: make(chan Status), ended: make(chan error, 1), cancel: cancel}
	go func() {
		w.ended <- Watch(ctx, dir, o, func(st Status) {
			select {
			case w.shown <- st:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(cancel)
	return w
}

// see is the next status that is shown.
func (w *watching) see() Status {
	w.t.Helper()
	select {
	case st := <-w.shown:
		return st
	case err := <-w.ended:
		w.t.Fatalf("the watch ended: %v", err)
		return Status{}
	}
}

func (s *standIn) answer(c *localConn, m message) {
	s.t.Helper()
	if err := c.write(m); err != nil {
		s.t.Fatal(err)
	}
}

// TestWatch: a watch waits for an owner, asks it again and again for what it was told to
// watch, and goes on with the next owner.
func TestWatch(t *testing.T) {
	dir := testDir(t)
	w := watchDir(t, dir, WatchOptions{Of: 42, Every: time.Millisecond}) // nobody is there yet
	for _, name := range []string{"first", "second"} {
		owner := newStandIn(t, dir)
		c, req := owner.asked()
		for i := range 3 {
			if i > 0 {
				req = owner.question(c)
			}
			if req.Type != askStatus || req.Version != localVersion || req.Of != 42 || !req.Visits {
				t.Fatalf("asked %+v", req)
			}
			owner.answer(c, message{Type: msgStatus, Status: &Status{Agent: name, PID: i}})
			if st := w.see(); st.Agent != name || st.PID != i {
				t.Fatalf("shown %+v, want %d of %s", st, i, name)
			}
		}
		owner.end()
		c.Close()
	}
	w.cancel()
	if err := <-w.ended; err != nil {
		t.Errorf("ended: %v", err)
	}
}

// TestWatchEnds: a watch ends with its context, also while an owner does not answer, and
// with an error where going on is of no use.
func TestWatchEnds(t *testing.T) {
	dir := testDir(t)
	if err := Watch(t.Context(), dir, WatchOptions{}, nil); err == nil {
		t.Error("a watch without an interval")
	}
	owner := newStandIn(t, dir)
	w := watchDir(t, dir, WatchOptions{Every: time.Millisecond})
	owner.asked()
	w.cancel()
	if err := <-w.ended; err != nil {
		t.Errorf("cancelled: %v", err)
	}
	for want, m := range map[string]message{
		"another version":       {Type: msgEnd, Error: versionError(7)},
		`unexpected answer "x"`: {Type: "x"},
		"unexpected answer":     {Type: msgStatus},
	} {
		w := watchDir(t, dir, WatchOptions{Every: time.Millisecond})
		c, _ := owner.asked()
		owner.answer(c, m)
		if err := <-w.ended; err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "watch: ") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refusal := &control.Error{Code: control.CodeRevoked, Message: "revoked"}
	w = watchDir(t, dir, WatchOptions{Every: time.Millisecond})
	c, _ := owner.asked()
	owner.answer(c, message{Type: msgEnd, Error: refusal})
	if err := <-w.ended; control.CodeOf(err) != control.CodeRevoked {
		t.Errorf("refused: %v", err)
	}
	owner.end()
}

// Nobody looks often while there is nothing to be seen.
func TestVisited(t *testing.T) {
	for _, c := range []struct {
		st   Status
		want bool
	}{
		{Status{}, false},
		{Status{Tunnels: []TunnelStatus{{Name: "a"}}}, false},
		{Status{Tunnels: []TunnelStatus{{Name: "a"}, {Name: "b", Connections: 1}}}, true},
		{Status{Visits: []Visit{{}}}, true},
	} {
		if got := visited(&c.st); got != c.want {
			t.Errorf("%+v: %v", c.st, got)
		}
	}
}
