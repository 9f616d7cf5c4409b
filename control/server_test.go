package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"golang.org/x/sync/errgroup"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/tunnel"
)

// A client that closes may be gone at once, and nobody is left who would acknowledge
// an end.
func TestCloseResets(t *testing.T) {
	dial, _ := serve(t, fakeHandler{publish: func(tunnel.NodeID, PublishRequest) (PublishReply, error) {
		return PublishReply{Tunnels: []Published{}}, nil
	}}, node(t, 300))
	var conn *abortable
	c := client(t, func(ctx context.Context) (net.Conn, error) {
		overlay, err := dial(ctx)
		conn = &abortable{Conn: overlay}
		return conn, err
	})
	if _, err := c.Publish(t.Context(), PublishRequest{}); err != nil {
		t.Fatal(err)
	}
	if conn.aborted.Load() {
		t.Error("reset after a call")
	}
	c.Close()
	if !conn.aborted.Load() {
		t.Error("not reset")
	}
}

func TestEnroll(t *testing.T) {
	key := testKey(t)
	want := EnrollReply{
		Node: 4711, Name: "laptop-2", Overlay: testOverlay(t), Domain: "example.com",
		Edges: []keys.Edge{{Key: testKey(t), Node: 1, Endpoints: []keys.Endpoint{{Kind: keys.EndpointUDP, Addr: "192.0.2.1:51820"}}}},
	}
	dial, _ := serve(t, fakeHandler{enroll: func(from tunnel.NodeID, r EnrollRequest) (EnrollReply, error) {
		if from != 300 || r.Key != key || r.Name != "laptop" || r.Version != "v1" || r.Platform != "linux/amd64" {
			t.Errorf("handler got %d, %+v", from, r)
		}
		return want, nil
	}}, node(t, 300))
	got, err := client(t, dial).Enroll(t.Context(), EnrollRequest{Key: key, Name: "laptop", Version: "v1", Platform: "linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestPublish(t *testing.T) {
	dial, _ := serve(t, fakeHandler{publish: func(_ tunnel.NodeID, r PublishRequest) (PublishReply, error) {
		var reply PublishReply
		for _, s := range r.Tunnels {
			p := Published{ID: s.ID, Name: s.Name}
			if s.Name == "app" {
				p.PublicURL = "https://app.example.com"
			} else {
				p.Error = &Error{Code: CodeNameTaken, Message: "held by desk"}
			}
			reply.Tunnels = append(reply.Tunnels, p)
		}
		return reply, nil
	}}, node(t, 300))
	c := client(t, dial)
	got, err := c.Publish(t.Context(), PublishRequest{Session: "s", Tunnels: []tunnel.Spec{
		{ID: 7, Name: "app", Kind: tunnel.HTTP, Upstream: "http://127.0.0.1:8089"},
		{ID: 8, Name: "wiki", Kind: tunnel.HTTP, Upstream: "http://127.0.0.1:8090"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if p := got.Tunnels[0]; p.ID != 7 || p.PublicURL != "https://app.example.com" || p.Error != nil {
		t.Errorf("first: %+v", p)
	}
	if p := got.Tunnels[1]; p.ID != 8 || p.PublicURL != "" || p.Error == nil || p.Error.Code != CodeNameTaken {
		t.Errorf("second: %+v", p)
	}
	if got, err := c.Publish(t.Context(), PublishRequest{Session: "s"}); err != nil || len(got.Tunnels) != 0 {
		t.Errorf("empty set: %v, %v", got, err)
	}
}

// TestPublishAnswerMustFit: an edge whose answers are for other tunnels must
// not be believed, or a URL would be shown for the wrong upstream.
func TestPublishAnswerMustFit(t *testing.T) {
	var reply PublishReply
	dial, _ := serve(t, fakeHandler{publish: func(tunnel.NodeID, PublishRequest) (PublishReply, error) { return reply, nil }}, node(t, 300))
	c := client(t, dial)
	req := PublishRequest{Tunnels: []tunnel.Spec{{ID: 7, Name: "app"}}}
	for _, reply = range []PublishReply{{}, {Tunnels: []Published{{ID: 8}}}, {Tunnels: []Published{{ID: 7}, {ID: 8}}}} {
		if _, err := c.Publish(t.Context(), req); err == nil {
			t.Errorf("answer %+v was believed", reply)
		}
	}
}

func TestErrorsTravel(t *testing.T) {
	var fail error
	dial, _ := serve(t, fakeHandler{
		enroll:  func(tunnel.NodeID, EnrollRequest) (EnrollReply, error) { return EnrollReply{}, fail },
		session: func(context.Context, tunnel.NodeID, *Session) error { return fail },
	}, node(t, 300))
	c := client(t, dial)
	for _, code := range []string{
		CodeInviteUsed, CodeInviteExpired, CodeInviteRevoked, CodeKeyKnown, CodeNameTaken, CodeNameInvalid, CodePortTaken,
		CodePortRange, CodeBadRequest, CodeRevoked, CodeSuperseded, CodeNotEnrolled, CodeNotFound, CodeUnavailable, CodeInternal, "of_a_newer_edge",
	} {
		want := &Error{Code: code, Message: "because of " + code}
		fail = fmt.Errorf("wrapped: %w", want)
		_, err := c.Enroll(t.Context(), EnrollRequest{Key: testKey(t)})
		var got *Error
		if !errors.As(err, &got) || *got != *want {
			t.Errorf("enroll: got %v, want %v", err, want)
		}
		_, err = c.Events(t.Context())
		if CodeOf(err) != code {
			t.Errorf("events: got %v, want %v", err, want)
		}
	}
	fail = errors.New("the database password is hunter2")
	_, err := c.Enroll(t.Context(), EnrollRequest{Key: testKey(t)})
	if CodeOf(err) != CodeInternal || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("an internal error became %v", err)
	}
}

// TestIdentity: only a node's own address is a caller.
func TestIdentity(t *testing.T) {
	o := testOverlay(t)
	other, err := tunnel.OverlayFrom(netip.MustParsePrefix("fd12:3456:789b::/48"))
	if err != nil {
		t.Fatal(err)
	}
	second := o.NodeAddr(300).As16()
	second[15] = 2
	for _, tc := range []struct {
		addr netip.Addr
		want tunnel.NodeID // 0: refused
	}{
		{o.NodeAddr(300), 300},
		{o.NodeAddr(1), 1},
		{o.TunnelAddr(300, 7), 0},
		{o.TunnelAddr(300, 1), 0},
		{netip.AddrFrom16(second), 0},
		{other.NodeAddr(300), 0},
		{netip.MustParseAddr("127.0.0.1"), 0},
		{netip.MustParseAddr("64:ff9b::c000:201"), 0},
		{netip.MustParseAddr("2001:db8::1"), 0},
	} {
		var got atomic.Uint32
		dial, stop := serve(t, fakeHandler{publish: func(id tunnel.NodeID, _ PublishRequest) (PublishReply, error) {
			got.Store(uint32(id))
			return PublishReply{}, nil
		}}, func() netip.Addr { return tc.addr })
		_, err := client(t, dial).Publish(t.Context(), PublishRequest{})
		if id := tunnel.NodeID(got.Load()); id != tc.want || (err == nil) != (tc.want != 0) {
			t.Errorf("%v: node %d, err %v; want node %d", tc.addr, id, err, tc.want)
		}
		stop()
	}
}

// TestOldConnectionsGiveWay: a node's leftovers never lock it out.
func TestOldConnectionsGiveWay(t *testing.T) {
	dial, _ := serve(t, fakeHandler{publish: func(tunnel.NodeID, PublishRequest) (PublishReply, error) { return PublishReply{}, nil }}, node(t, 300))
	var first net.Conn
	for i := range maxConns + 1 {
		c, err := dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i == 0 {
			first = c
		}
	}
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("the oldest connection still talks")
	}
	if _, err := client(t, dial).Publish(t.Context(), PublishRequest{}); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

// TestGarbage: what is not of the API is refused with a typed error, and the
// handler never sees it.
func TestGarbage(t *testing.T) {
	dial, _ := serve(t, fakeHandler{}, node(t, 300))
	c := client(t, dial)
	long := `{"key":"` + strings.Repeat("A", MaxEnroll) + `"}`
	for _, tc := range []struct{ method, path, body, code string }{
		{"POST", "/v1/enroll", "", CodeBadRequest},
		{"POST", "/v1/enroll", "null", CodeBadRequest},
		{"POST", "/v1/enroll", "[]", CodeBadRequest},
		{"POST", "/v1/enroll", "{}", CodeBadRequest},
		{"POST", "/v1/enroll", "\x16\x03\x01", CodeBadRequest},
		{"POST", "/v1/enroll", `{"key":"short"}`, CodeBadRequest},
		{"POST", "/v1/enroll", `{"key":"` + testKey(t).String() + `","name":"Bad Name"}`, CodeBadRequest},
		{"POST", "/v1/enroll", `{"key":"` + testKey(t).String() + `"}{}`, CodeBadRequest},
		{"POST", "/v1/enroll", long, CodeBadRequest},
		{"PUT", "/v1/tunnels", `{"tunnels":7}`, CodeBadRequest},
		{"PUT", "/v1/tunnels", `{"tunnels":[{"id":1},{"id":1}]}`, CodeBadRequest},
		{"PUT", "/v1/tunnels", `{"session":"` + strings.Repeat("s", 200) + `"}`, CodeBadRequest},
		{"GET", "/v1/tunnels", ``, CodeNotFound},
		{"POST", "/v2/enroll", `{}`, CodeNotFound},
	} {
		r, err := newRequest(t.Context(), tc.method, tc.path, bytes.NewReader([]byte(tc.body)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.http.Do(r)
		if err != nil {
			t.Errorf("%s %s: %v", tc.method, tc.path, err)
			continue
		}
		if err := checkStatus(resp); CodeOf(err) != tc.code {
			t.Errorf("%s %s %.40q: got %v, want %s", tc.method, tc.path, tc.body, err, tc.code)
		}
		resp.Body.Close()
	}
}

// TestUnknownFieldsAndEvents: the other side may be newer.
func TestUnknownFieldsAndEvents(t *testing.T) {
	var r EnrollRequest
	in := `{"key":"` + testKey(t).String() + `","name":"laptop","colour":"blue"}`
	if err := decode(strings.NewReader(in), MaxEnroll, &r); err != nil || r.Name != "laptop" {
		t.Errorf("got %+v, %v", r, err)
	}
	var e ServerEvent
	if err := unmarshal([]byte(`{"type":"weather","sky":1}`), &e); err != nil || e.Type != "weather" {
		t.Errorf("got %+v, %v", e, err)
	}
}

// TestHTTP1IsRefused: only HTTP/2 is spoken, so that there is one parser to
// attack.
func TestHTTP1IsRefused(t *testing.T) {
	dial, _ := serve(t, fakeHandler{}, node(t, 300))
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://edge/v1/tunnels")
	if err == nil {
		resp.Body.Close()
		t.Errorf("HTTP/1.1 was answered with %d", resp.StatusCode)
	}
}

// TestLostConnectionIsLetGo: what an agent's connection takes is free soon after
// it broke in the middle of an event stream. net/http keeps it for IdleTimeout:
// it sets the timer of an idle connection when the last stream ends, which here is
// after it has stopped that timer (h2_bundle.go, closeAllStreamsOnConnClose).
func TestLostConnectionIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type half struct{ net.Conn } // a weak pointer wants a type
		conn := make(chan net.Conn)
		l := &pipeListener{conns: conn, done: make(chan struct{}), addr: testOverlay(t).NodeAddr(300)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		h := fakeHandler{session: func(_ context.Context, _ tunnel.NodeID, s *Session) error {
			defer close(ended)
			if err := s.Send(ServerEvent{Type: EventHello, Session: "a"}); err != nil {
				return err
			}
			_, err := s.Recv()
			return err
		}}
		var g errgroup.Group
		g.Go(func() error { return NewServer(testOverlay(t), h, nil).Serve(ctx, l) })
		var ours net.Conn
		var theirs weak.Pointer[half]
		c := NewClient(func(context.Context) (net.Conn, error) {
			a, b := net.Pipe()
			server := &half{b}
			ours, theirs = a, weak.Make(server)
			conn <- server
			return a, nil
		})
		s, err := c.Events(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ours.Close() // without a word
		<-ended
		time.Sleep(15 * time.Second)
		synctest.Wait()
		for range 3 { // the first two empty net/http's pools
			runtime.GC()
		}
		if theirs.Value() != nil {
			t.Error("the server still holds a connection that broke 15 s ago")
		}
		s.Close()
		c.Close()
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}
