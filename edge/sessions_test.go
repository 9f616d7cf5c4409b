package edge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

func TestLifeline(t *testing.T) {
	start := time.Now()
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	l := lifeline{heartbeat: 2 * time.Second, away: 5 * time.Second}
	l.heard(at(0))
	if l.overdue() != 2500*time.Millisecond {
		t.Errorf("an event is overdue after %v", l.overdue())
	}
	// The count at the first look may be older than the event: no sign of life.
	if l.look(at(2.6), 1000) || l.isAway(at(4.9)) || !l.isAway(at(5)) {
		t.Error("the first look counts as a sign of life, or away is wrong")
	}
	if l.look(at(4), 1000) {
		t.Error("nothing came")
	}
	if !l.look(at(4.5), 1032) || l.isAway(at(9.4)) || !l.isAway(at(9.5)) {
		t.Error("bytes are a sign of life")
	}
	l.heard(at(20))
	if l.isAway(at(20)) || l.look(at(23), 5000) {
		t.Error("what came before the event counts after it")
	}
}

// fakeStream is an agent at the other end of a session.
type fakeStream struct {
	sent   chan control.ServerEvent
	events chan control.AgentEvent
	closed chan struct{}
	once   sync.Once
}

func newFakeStream() *fakeStream {
	return &fakeStream{sent: make(chan control.ServerEvent), events: make(chan control.AgentEvent), closed: make(chan struct{})}
}

func (f *fakeStream) Send(e control.ServerEvent) error {
	select {
	case f.sent <- e:
		return nil
	case <-f.closed:
		return io.ErrClosedPipe
	}
}

func (f *fakeStream) Recv() (control.AgentEvent, error) {
	select {
	case e := <-f.events:
		return e, nil
	case <-f.closed:
		return control.AgentEvent{}, io.EOF
	}
}

func (f *fakeStream) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// next is the next event that is no heartbeat.
func (f *fakeStream) next(t *testing.T) control.ServerEvent {
	t.Helper()
	for {
		select {
		case e := <-f.sent:
			if e.Type != control.EventHeartbeat {
				return e
			}
		case <-t.Context().Done():
			t.Fatal("the edge sent nothing")
		}
	}
}

// started is one session that runs.
type started struct {
	*session
	stream *fakeStream
	result chan error
}

// startSession runs a session as Edge does.
func startSession(t *testing.T, h *sessionHost, node tunnel.NodeID) *started {
	t.Helper()
	st := &started{session: newSession(node), stream: newFakeStream(), result: make(chan error, 1)}
	h.sessions.begin(st.session, time.Now())
	go func() {
		err := h.run(t.Context(), st.session, store.Node{ID: node, Name: "laptop"}, st.stream)
		h.sessions.end(st.session, time.Now())
		st.result <- err
	}()
	if e := st.stream.next(t); e.Type != control.EventHello || e.Session != st.id || e.Domain != "example.com" {
		t.Fatalf("hello %+v", e)
	}
	// Until it has said what it wants, what the table has may be of another
	// process, and lead nowhere.
	if !h.sessions.liveness(node).Away() {
		t.Error("up before it has published")
	}
	h.sessions.published(node, "another session's id", time.Now())
	if !h.sessions.liveness(node).Away() {
		t.Error("up because another session has published")
	}
	h.sessions.published(node, st.id, time.Now())
	return st
}

// await blocks until cond holds, which only sessions change.
func (ss *sessions) await(t *testing.T, cond func() bool) {
	t.Helper()
	for {
		ss.mu.Lock()
		changed := ss.changed
		ss.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("it never came to be")
		}
	}
}

func testHost(away time.Duration, received func(keys.Public) (uint64, error)) *sessionHost {
	return &sessionHost{
		sessions: newSessions(), domain: "example.com", version: "test", received: received, call: func(keys.Public) error { return nil },
		timing: Timing{Heartbeat: 10 * time.Millisecond, Away: away, Farewell: time.Minute},
		log:    slog.New(slog.DiscardHandler),
	}
}

func silentPeer(keys.Public) (uint64, error) { return 7, nil }

func TestSessionTurnsAwayAndUp(t *testing.T) {
	h := testHost(300*time.Millisecond, silentPeer)
	s := startSession(t, h, 300)
	live := h.sessions.liveness(300)
	go func() { // take the heartbeats
		for range s.stream.sent {
		}
	}()
	defer close(s.stream.sent)
	if live.Away() {
		t.Fatal("away with a session")
	}
	h.sessions.await(t, live.Away) // it says nothing
	if h.sessions.current(300) != s.id {
		t.Error("the session of a silent agent is over")
	}
	s.stream.events <- control.AgentEvent{Type: control.EventUpstream, Tunnel: 9, Error: "refused"}
	h.sessions.await(t, func() bool { up, _ := h.sessions.state(300); return up })
	s.stream.events <- control.AgentEvent{Type: control.EventHeartbeat} // so that the report is through
	if got := live.Refusal(t.Context(), 9, time.Time{}); got == nil || got.reason != "refused" {
		t.Errorf("the report is %+v", got)
	}
	s.stream.Close()
	if err := <-s.result; err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if !live.Away() || h.sessions.current(300) != "" {
		t.Error("up without a session")
	}
}

// An agent whose events are held up by bulk traffic is not away.
func TestSessionBytesKeepAlive(t *testing.T) {
	var rx atomic.Uint64
	var flows atomic.Bool
	looks := make(chan struct{}, 1)
	flows.Store(true)
	h := testHost(400*time.Millisecond, func(keys.Public) (uint64, error) {
		select {
		case looks <- struct{}{}:
		default:
		}
		if flows.Load() {
			rx.Add(1)
		}
		return rx.Load(), nil
	})
	s := startSession(t, h, 300)
	go func() {
		for range s.stream.sent {
		}
	}()
	defer close(s.stream.sent)
	for range 60 { // three times the away time, at a look each 20 ms
		<-looks
		if h.sessions.liveness(300).Away() {
			t.Fatal("away while bytes come")
		}
	}
	flows.Store(false)
	h.sessions.await(t, h.sessions.liveness(300).Away)
	s.stream.Close()
	<-s.result
}

func TestNewerSessionSupersedes(t *testing.T) {
	h := testHost(time.Hour, silentPeer)
	old := startSession(t, h, 300)
	var second *started
	done := make(chan struct{})
	go func() { defer close(done); second = startSession(t, h, 300) }()
	if e := old.stream.next(t); e.Type != control.EventSuperseded || e.Message == "" {
		t.Fatalf("got %+v", e)
	}
	<-done
	old.stream.Close() // it has read that
	if err := <-old.result; err != nil {
		t.Error(err)
	}
	if live := h.sessions.liveness(300); live.Away() || h.sessions.current(300) != second.id {
		t.Error("the end of the old session ended the new one")
	}
	second.stream.Close()
	<-second.result
}

func TestDrainingIsTold(t *testing.T) {
	h := testHost(time.Hour, silentPeer)
	s := startSession(t, h, 300)
	h.sessions.tellAll(control.ServerEvent{Type: control.EventDraining})
	if e := s.stream.next(t); e.Type != control.EventDraining {
		t.Errorf("got %+v", e)
	}
	s.stream.Close()
	<-s.result
}

func TestAwaitEndIsBounded(t *testing.T) {
	s := newSession(300)
	awaitEnd(t.Context(), []*session{s}, time.Millisecond) // or it hangs
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	awaitEnd(ctx, []*session{s}, time.Hour)
	close(s.ended)
	awaitEnd(t.Context(), []*session{s}, time.Hour)
}
