package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

// lastStates are the last two states that were told of each of a Run's tunnels.
func (r *running) lastStates(name string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var states []string
	for _, e := range r.events {
		if e.Event == EventTunnel && e.Name == name {
			states = append(states, e.State)
		}
	}
	return states[max(0, len(states)-2):]
}

// standIn speaks an owner's part with a guest.
type standIn struct {
	t        *testing.T
	lock     *statedir.Lock
	listener net.Listener
}

func newStandIn(t *testing.T, dir *statedir.Dir) *standIn {
	t.Helper()
	lock, err := dir.Lock(lockFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := dir.ListenUnix(socketFile)
	if err != nil {
		t.Fatal(err)
	}
	return &standIn{t, lock, l}
}

// asked is the connection of somebody who comes to the owner, and the first question.
func (s *standIn) asked() (*localConn, request) {
	s.t.Helper()
	conn, err := s.listener.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	c := newLocalConn(conn)
	return c, s.question(c)
}

func (s *standIn) question(c *localConn) (req request) {
	s.t.Helper()
	if err := c.readSoon(&req); err != nil {
		s.t.Fatal(err)
	}
	return req
}

// take serves a guest, as far as it can see.
func (s *standIn) take(r *running) *localConn {
	s.t.Helper()
	c, req := s.asked()
	if len(req.Tunnels) != 1 {
		s.t.Fatalf("%+v", req)
	}
	name := req.Tunnels[0].Name
	up := Event{Event: EventTunnel, Name: name, Kind: req.Tunnels[0].Kind, State: TunnelUp, PublicURL: "https://x.example.com"}
	for _, m := range []message{{Version: localVersion, Type: msgWelcome}, {Type: msgEvent, Number: 1, Event: &up}} {
		if err := c.write(m); err != nil {
			s.t.Fatal(err)
		}
	}
	r.tunnel(0, name, TunnelUp)
	return c
}

// interrupt ends a guest, and waits until it has said so.
func (s *standIn) interrupt(r *running, c *localConn) {
	s.t.Helper()
	r.cancel()
	var req request
	if err := c.readSoon(&req); err != nil || req.Type != askWithdraw {
		s.t.Fatalf("%+v, %v", req, err)
	}
}

// end is that of an owner which did not get around to withdraw the guests'
// tunnels.
func (s *standIn) end(guests ...*localConn) {
	s.t.Helper()
	err := errors.Join(s.listener.Close(), s.lock.Unlock())
	for _, c := range guests {
		err = errors.Join(err, c.write(message{Type: msgBye}), c.Close())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestEndTogether: guests that end together with their owner withdraw their
// tunnels from the edge, and say so.
func TestEndTogether(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	owner := newStandIn(t, dir)
	var guests []*running
	var conns []*localConn
	names := []string{"a", "b"}
	for _, name := range names {
		r := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel(name, "8089")}})
		guests = append(guests, r)
		conns = append(conns, owner.take(r))
	}
	e.order(func() { e.specs[j.Node] = []tunnel.Spec{{Name: "a"}, {Name: "b"}, {Name: "owner"}} })
	for i, c := range conns {
		owner.interrupt(guests[i], c)
	}
	owner.end(conns...)
	for i, name := range names {
		if err := guests[i].wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if got := guests[i].lastStates(name); !slices.Equal(got, []string{TunnelUp, TunnelGone}) {
			t.Errorf("%s: %v", name, got)
		}
	}
	e.published(j.Node)
}

// TestEndAmongOthers: a guest that ends together with its owner leaves to the
// next owner what goes on.
func TestEndAmongOthers(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	owner := newStandIn(t, dir)
	a := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("a", "8089")}})
	toA := owner.take(a)
	b := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("b", "8089")}})
	toB := owner.take(b)
	e.order(func() { e.specs[j.Node] = []tunnel.Spec{{Name: "a"}, {Name: "b"}} })
	owner.interrupt(a, toA)
	owner.end(toA, toB)
	if err := a.wait(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if got := a.lastStates("a"); !slices.Equal(got, []string{TunnelUp, TunnelGone}) {
		t.Errorf("a: %v", got)
	}
	_, n := b.tunnel(0, "b", TunnelAway)
	b.tunnel(n, "b", TunnelUp)
	e.published(j.Node, "b")
	if err := b.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	// Away before, if it had just lost a as its owner.
	if got := b.lastStates("b"); got[1] != TunnelGone || got[0] == TunnelGone {
		t.Errorf("b: %v", got)
	}
	e.published(j.Node)
}

// TestEndInVain: a guest that finds neither an owner nor the lock free ends
// all the same.
func TestEndInVain(t *testing.T) {
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	owner := newStandIn(t, dir)
	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("a", "8089")}})
	c := owner.take(r)
	owner.interrupt(r, c)
	if err := errors.Join(owner.listener.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if got := r.lastStates("a"); !slices.Equal(got, []string{TunnelUp, TunnelGone}) {
		t.Errorf("states %v", got)
	}
	if err := owner.lock.Unlock(); err != nil {
		t.Fatal(err)
	}
}

// TestGuestTooLate: what the edge could not be told any more is not told to the
// guest as done.
func TestGuestTooLate(t *testing.T) {
	dir := testDir(t)
	listener, err := dir.ListenUnix(socketFile)
	if err != nil {
		t.Fatal(err)
	}
	o := &owner{dir: dir, log: slog.New(slog.DiscardHandler), set: newSet(slog.New(slog.DiscardHandler)), muster: newMuster(nil, 0)}
	g := newGuests(o, listener)
	var accept sync.WaitGroup
	accept.Go(func() {
		if err := g.accept(); err != nil {
			t.Error(err)
		}
	})
	conn, err := dir.DialUnix(t.Context(), socketFile)
	if err != nil {
		t.Fatal(err)
	}
	c := newLocalConn(conn)
	defer c.Close()
	next := func() message {
		t.Helper()
		var m message
		if err := c.readSoon(&m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	if err := c.write(request{Version: localVersion, Type: askRun, PID: os.Getpid(), Tunnels: offered(httpTunnel("a", "8089"))}); err != nil {
		t.Fatal(err)
	}
	if m := next(); m.Type != msgWelcome {
		t.Fatalf("%+v", m)
	}
	if err := o.set.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.write(request{Version: localVersion, Type: askWithdraw}); err != nil {
		t.Fatal(err)
	}
	listener.Close()
	accept.Wait()
	g.dismiss()
	if m := next(); m.Type != msgBye {
		t.Errorf("%+v, want bye", m)
	}
}

// TestWithdrawSettled: what is settled stays as it is.
func TestWithdrawSettled(t *testing.T) {
	s := newSet(slog.New(slog.DiscardHandler))
	early, err := s.add(1, offered(httpTunnel("early", "8089")), nil)
	if err != nil {
		t.Fatal(err)
	}
	late, err := s.add(2, offered(httpTunnel("late", "8089")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !s.withdraw(t.Context(), early) {
		t.Error("not withdrawn before")
	}
	if err := s.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, _, _ := s.snapshot()
	if s.withdraw(t.Context(), late) {
		t.Error("withdrawn")
	}
	if after, specs, _ := s.snapshot(); after != before || len(specs) != 1 || specs[0].Name != "late" {
		t.Errorf("version %d is now %d: %+v", before, after, specs)
	}
	late.inbox.close()
	if m, ok := late.inbox.next(t.Context()); ok {
		t.Errorf("told %+v", m)
	}
	late.tunnels[0].cancel()
}

// TestWithdrawInherited: an edge that another process has published to is waited
// for, and one that knows nothing of the tunnels is not.
func TestWithdrawInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, inherited := range []bool{false, true} {
			s := newSet(slog.New(slog.DiscardHandler))
			s.inherited = inherited
			l := &link{}
			s.join(l)
			mine, err := s.add(1, offered(httpTunnel("a", "8089")), nil)
			if err != nil {
				t.Fatal(err)
			}
			var withdrawn bool
			var wg sync.WaitGroup
			wg.Go(func() { withdrawn = s.withdraw(t.Context(), mine) })
			synctest.Wait()
			if withdrawn == inherited {
				t.Errorf("inherited %v: withdrawn %v before there was a link", inherited, withdrawn)
			}
			s.linkState(l, LinkConnecting, "")
			s.linkState(l, LinkUp, "")
			synctest.Wait()
			if withdrawn == inherited {
				t.Errorf("inherited %v: withdrawn %v before the edge knew", inherited, withdrawn)
			}
			version, specs, _ := s.snapshot()
			if len(specs) != 0 {
				t.Errorf("published %+v", specs)
			}
			s.answered(l, version, control.PublishReply{})
			wg.Wait()
			if !withdrawn {
				t.Error("not withdrawn")
			}
		}
		// An edge that is not there is not waited for.
		s := newSet(slog.New(slog.DiscardHandler))
		s.inherited = true
		l := &link{}
		s.join(l)
		s.linkState(l, LinkDown, "no answer")
		before := time.Now()
		if mine, err := s.add(1, nil, nil); err != nil || !s.withdraw(t.Context(), mine) || time.Now() != before {
			t.Errorf("%v after %v", err, time.Since(before))
		}
		if err := s.settle(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
