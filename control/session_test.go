package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wgexpose/wgexpose/tunnel"
)

func TestEvents(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	dial, _ := serve(t, fakeHandler{session: func(_ context.Context, from tunnel.NodeID, s *Session) error {
		if err := s.Send(ServerEvent{Type: EventHello, Session: fmt.Sprint(from), Domain: "example.com"}); err != nil {
			return err
		}
		for {
			e, err := s.Recv()
			if err != nil {
				return err
			}
			if err := s.Send(ServerEvent{Type: EventHeartbeat, Message: fmt.Sprintf("%s %d %v %s %v", e.Type, e.Tunnel, e.OK, e.Error, e.At.Equal(at))}); err != nil {
				return err
			}
		}
	}}, node(t, 300))
	c := client(t, dial)
	s, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if e, err := s.Recv(); err != nil || e.Type != EventHello || e.Session != "300" || e.Domain != "example.com" {
		t.Fatalf("hello: %+v, %v", e, err)
	}
	for i := range 100 { // both ways on the same stream, one by one
		if err := s.Send(AgentEvent{Type: EventUpstream, Tunnel: tunnel.ID(i), Error: "refused", At: at}); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("upstream %d false refused true", i)
		if e, err := s.Recv(); err != nil || e.Message != want {
			t.Fatalf("got %+v, %v, want %q", e, err, want)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %+v, %v", e, err)
	}
}

// TestSessionEndsWithError: an error after the hello reaches the agent as its
// last event.
func TestSessionEndsWithError(t *testing.T) {
	dial, _ := serve(t, fakeHandler{session: func(_ context.Context, _ tunnel.NodeID, s *Session) error {
		if err := s.Send(ServerEvent{Type: EventHello, Session: "a"}); err != nil {
			return err
		}
		return &Error{Code: CodeSuperseded, Message: "another process"}
	}}, node(t, 300))
	s, err := client(t, dial).Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); CodeOf(err) != CodeSuperseded {
		t.Errorf("got %v", err)
	}
}

// TestPresence: the process that came last keeps a node's place.
func TestPresence(t *testing.T) {
	ended := make(chan struct{}, 8)
	dial, _ := serve(t, fakeHandler{session: func(_ context.Context, _ tunnel.NodeID, s *Session) error {
		defer func() { ended <- struct{}{} }()
		if err := s.Send(ServerEvent{Type: EventHello, Session: "a"}); err != nil {
			return err
		}
		for {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
	}}, node(t, 300))
	c := client(t, dial)
	open := func(p Presence) *EventStream {
		t.Helper()
		s, err := c.EventsOf(t.Context(), p)
		if err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	open(Presence{Process: "first"})
	open(Presence{Process: "first", Again: true})
	second := open(Presence{Process: "second"})
	if _, err := c.EventsOf(t.Context(), Presence{Process: "first", Again: true}); CodeOf(err) != CodeSuperseded {
		t.Errorf("the first process came back: %v", err)
	}
	open(Presence{}) // tells nothing, so nothing is known against it
	open(Presence{Process: "second", Again: true})
	third := open(Presence{Process: "third"})
	second.Close()
	third.Close()
	<-ended
	<-ended
	// The place is free again, a moment after its handler has ended.
	for deadline := time.Now().Add(30 * time.Second); ; {
		s, err := c.EventsOf(t.Context(), Presence{Process: "first", Again: true})
		if err == nil {
			s.Close()
			return
		}
		if CodeOf(err) != CodeSuperseded || time.Now().After(deadline) {
			t.Fatalf("the place is not free: %v", err)
		}
	}
}

// TestSessionClose: a handler may end a Recv that waits in another goroutine.
func TestSessionClose(t *testing.T) {
	ended := make(chan error, 1)
	dial, _ := serve(t, fakeHandler{session: func(_ context.Context, _ tunnel.NodeID, s *Session) error {
		if err := s.Send(ServerEvent{Type: EventHello, Session: "a"}); err != nil {
			return err
		}
		go func() { _, err := s.Recv(); ended <- err }()
		s.Close()
		<-ended
		return s.Send(ServerEvent{Type: EventSuperseded, Message: "gone"})
	}}, node(t, 300))
	s, err := client(t, dial).Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, want := range []string{EventHello, EventSuperseded} {
		if e, err := s.Recv(); err != nil || e.Type != want {
			t.Fatalf("got %+v, %v, want %s", e, err, want)
		}
	}
}

func TestServerStopEndsStreams(t *testing.T) {
	entered := make(chan struct{})
	dial, stop := serve(t, fakeHandler{session: func(ctx context.Context, _ tunnel.NodeID, s *Session) error {
		if err := s.Send(ServerEvent{Type: EventHello, Session: "a"}); err != nil {
			return err
		}
		close(entered)
		<-ctx.Done()
		return nil
	}}, node(t, 300))
	s, err := client(t, dial).Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	<-entered
	stop()
	for {
		if _, err := s.Recv(); err != nil {
			return // however it broke
		}
	}
}

// TestClientCloseBreaksStreams: Close must not leave a Recv waiting.
func TestClientCloseBreaksStreams(t *testing.T) {
	dial, _ := serve(t, fakeHandler{session: func(ctx context.Context, _ tunnel.NodeID, s *Session) error {
		if err := s.Send(ServerEvent{Type: EventHello, Session: "a"}); err != nil {
			return err
		}
		<-ctx.Done() // Close ends this one, too
		return nil
	}}, node(t, 300))
	c := client(t, dial)
	s, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() { _, err := s.Recv(); got <- err }()
	c.Close()
	if err := <-got; err == nil {
		t.Error("Recv returned no error")
	}
	s.Close()
	if _, err := c.Events(t.Context()); err == nil {
		t.Error("a closed client opened a stream")
	}
}

func TestLongLineIsRefused(t *testing.T) {
	got := make(chan error, 1)
	dial, _ := serve(t, fakeHandler{session: func(_ context.Context, _ tunnel.NodeID, s *Session) error {
		if err := s.Send(ServerEvent{Type: EventHello, Session: "a"}); err != nil {
			return err
		}
		_, err := s.Recv()
		got <- err
		return nil
	}}, node(t, 300))
	s, err := client(t, dial).Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send(AgentEvent{Type: EventUpstream, Error: strings.Repeat("x", MaxLine)}); !errors.Is(err, ErrLineTooLong) {
		t.Errorf("Send: %v", err)
	}
	if _, err := s.out.Write(bytes.Repeat([]byte{'x'}, MaxLine)); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, ErrLineTooLong) {
		t.Errorf("Recv: %v", err)
	}
}

// TestSilentStreamBreaks: an agent that says nothing for a minute is cut off.
func TestSilentStreamBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := make(chan net.Conn)
		l := &pipeListener{conns: conn, done: make(chan struct{}), addr: testOverlay(t).NodeAddr(300)}
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		h := fakeHandler{session: func(_ context.Context, _ tunnel.NodeID, s *Session) error {
			if err := s.Send(ServerEvent{Type: EventHello, Session: "a"}); err != nil {
				return err
			}
			_, err := s.Recv()
			got <- err
			return nil
		}}
		var g errgroup.Group
		g.Go(func() error { return NewServer(testOverlay(t), h, nil).Serve(ctx, l) })
		c := NewClient(func(context.Context) (net.Conn, error) {
			a, b := net.Pipe()
			conn <- b
			return a, nil
		})
		s, err := c.Events(ctx)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := <-got; err == nil {
			t.Error("Recv returned no error")
		}
		if d := time.Since(start); d < 5*time.Second || d > streamSilence {
			t.Errorf("broke after %v", d)
		}
		s.Close()
		c.Close()
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}
