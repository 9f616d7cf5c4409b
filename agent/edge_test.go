package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/internal/ports"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/tunnel"
	"github.com/wgexpose/wgexpose/wg"
)

// patience bounds every wait of a test, so that a fault fails and does not
// hang. It is no measure of anything.
const patience = 30 * time.Second

// fakeEdge is the least that an agent needs of an edge: a real netstack on a
// real WireGuard device on loopback, a real control server, and a handler that
// keeps its records in maps and never says no unless it is told to.
type fakeEdge struct {
	t       testing.TB
	overlay tunnel.Overlay
	key     keys.Private

	// What to say no to; see order.
	refuseEnroll  error
	refusePublish error
	revokedKey    keys.Public
	taken         map[string]string // tunnel name → error code

	wrap func(conn.Bind) conn.Bind // its sockets, at the next start; may be nil

	mu       sync.Mutex // guards all below
	addr     netip.AddrPort
	stack    *netstack.Stack
	dev      *wg.Device
	cancel   context.CancelFunc
	served   chan error
	peers    map[keys.Public]tunnel.NodeID
	agents   map[keys.Public]control.EnrollReply
	sessions map[tunnel.NodeID]*fakeSession
	specs    map[tunnel.NodeID][]tunnel.Spec
	sets     [][]tunnel.Spec // every set that was published, in order
	reports  []control.AgentEvent
	opened   int                            // event streams, ever
	where    map[keys.Public]netip.AddrPort // of peers, when the edge was stopped
	nextID   uint32
	changed  chan struct{} // closed and replaced at each change
}

type fakeSession struct {
	id  string
	end chan control.ServerEvent
}

func newFakeEdge(t testing.TB) *fakeEdge {
	t.Helper()
	key, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := tunnel.OverlayFrom(netip.MustParsePrefix("fd12:3456:789a::/48"))
	if err != nil {
		t.Fatal(err)
	}
	e := &fakeEdge{
		t: t, overlay: overlay, key: key, addr: ports.Reserve(t).Addr(),
		peers: map[keys.Public]tunnel.NodeID{}, agents: map[keys.Public]control.EnrollReply{},
		sessions: map[tunnel.NodeID]*fakeSession{}, specs: map[tunnel.NodeID][]tunnel.Spec{},
		nextID: 1000, changed: make(chan struct{}), taken: map[string]string{},
	}
	e.start()
	t.Cleanup(e.stop)
	return e
}

// start brings the edge up on the port it had before, knowing whom it knew.
func (e *fakeEdge) start() {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	stack, err := netstack.Open(netstack.Config{Addr: e.overlay.NodeAddr(1)})
	if err != nil {
		e.t.Fatal(err)
	}
	bind := conn.Bind(wg.UDP(e.addr))
	if e.wrap != nil {
		bind = e.wrap(bind)
	}
	dev, err := wg.Open(wg.Config{Key: e.key, Tun: stack.Device(), Bind: bind, Sent: stack.Sent})
	if err != nil {
		e.t.Fatal(err)
	}
	e.addr = netip.AddrPortFrom(e.addr.Addr(), dev.Port())
	l, err := stack.ListenTCP(tunnel.ControlPort)
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.stack, e.dev, e.cancel, e.served = stack, dev, cancel, make(chan error, 1)
	for key, id := range e.peers {
		e.addPeer(key, id)
		if addr, ok := e.where[key]; ok { // call it, as an edge does
			if err := errors.Join(dev.SetPeer(wg.Peer{Key: key, Endpoint: addr, AllowedIPs: []netip.Prefix{e.overlay.NodePrefix(id)}}), dev.Handshake(key)); err != nil {
				e.t.Fatal(err)
			}
		}
	}
	served := e.served
	go func() { served <- control.NewServer(e.overlay, e, nil).Serve(ctx, l) }()
}

// remember has the edge call its peers when it starts the next time.
func (e *fakeEdge) remember() {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	peers, err := e.dev.Peers()
	if err != nil {
		e.t.Fatal(err)
	}
	e.where = map[keys.Public]netip.AddrPort{}
	for _, p := range peers {
		if p.Endpoint.IsValid() {
			e.where[p.Key] = p.Endpoint
		}
	}
}

// stop ends the edge as a crash would: nobody is told.
func (e *fakeEdge) stop() {
	e.mu.Lock()
	dev, stack, cancel, served := e.dev, e.stack, e.cancel, e.served
	e.dev = nil
	e.mu.Unlock()
	if dev == nil {
		return
	}
	dev.Close()
	cancel()
	stack.Close()
	if err := <-served; err != nil {
		e.t.Errorf("control server: %v", err)
	}
}

func (e *fakeEdge) addPeer(key keys.Public, id tunnel.NodeID) {
	e.peers[key] = id
	if err := e.dev.SetPeer(wg.Peer{Key: key, AllowedIPs: []netip.Prefix{e.overlay.NodePrefix(id)}}); err != nil {
		e.t.Error(err)
	}
}

// invite makes an invite that is good for one hour.
func (e *fakeEdge) invite() keys.Invite {
	e.t.Helper()
	key, err := keys.New()
	if err != nil {
		e.t.Fatal(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.nextID++
	e.addPeer(key.Public(), tunnel.NodeID(e.nextID))
	return keys.Invite{
		Key: key, Node: e.nextID, Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
		Overlay: e.overlay.Prefix(), Edges: []keys.Edge{e.self()},
	}
}

func (e *fakeEdge) self() keys.Edge {
	return keys.Edge{Key: e.key.Public(), Node: 1, Endpoints: []keys.Endpoint{{Kind: keys.EndpointUDP, Addr: e.addr.String()}}}
}

// order changes what the handler says no to.
func (e *fakeEdge) order(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

func (e *fakeEdge) broadcastLocked() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// wait blocks until cond, called with the lock held, is true.
func (e *fakeEdge) wait(what string, cond func() bool) {
	e.t.Helper()
	end := time.After(patience)
	for {
		e.mu.Lock()
		ok, changed := cond(), e.changed
		e.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-end:
			e.t.Fatalf("the edge never saw: %s", what)
		}
	}
}

// published waits until exactly the named tunnels of a node are published.
func (e *fakeEdge) published(node tunnel.NodeID, names ...string) []tunnel.Spec {
	e.t.Helper()
	var got []tunnel.Spec
	slices.Sort(names)
	e.wait(fmt.Sprintf("tunnels %v", names), func() bool {
		got = slices.Clone(e.specs[node])
		have := make([]string, 0, len(got))
		for _, s := range got {
			have = append(have, s.Name)
		}
		slices.Sort(have)
		return slices.Equal(have, names)
	})
	return got
}

// reported waits for a report that pick accepts.
func (e *fakeEdge) reported(pick func(control.AgentEvent) bool) control.AgentEvent {
	e.t.Helper()
	var got control.AgentEvent
	e.wait("report", func() bool {
		i := slices.IndexFunc(e.reports, pick)
		if i >= 0 {
			got = e.reports[i]
		}
		return i >= 0
	})
	return got
}

// say ends a node's session with an event.
func (e *fakeEdge) say(node tunnel.NodeID, ev control.ServerEvent) {
	e.t.Helper()
	e.mu.Lock()
	s := e.sessions[node]
	e.mu.Unlock()
	if s == nil {
		e.t.Fatalf("node %d has no session", node)
	}
	s.end <- ev
}

// dial connects to an address of the overlay as a visitor does.
func (e *fakeEdge) dial(ctx context.Context, visitor netip.AddrPort, to netip.Addr) (net.Conn, error) {
	from := netip.AddrPort{}
	if visitor.IsValid() {
		from = netip.AddrPortFrom(e.overlay.VisitorAddr(1, visitor.Addr()), visitor.Port())
	}
	e.mu.Lock()
	stack := e.stack
	e.mu.Unlock()
	c, err := stack.DialTCP(ctx, from, netip.AddrPortFrom(to, tunnel.DialPort))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Enroll implements control.Handler.
func (e *fakeEdge) Enroll(_ context.Context, from tunnel.NodeID, req control.EnrollRequest) (control.EnrollReply, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r, ok := e.agents[req.Key]; ok {
		return r, nil
	}
	if req.Key == e.revokedKey {
		return control.EnrollReply{}, &control.Error{Code: control.CodeRevoked, Message: "this agent was revoked"}
	}
	if e.refuseEnroll != nil {
		return control.EnrollReply{}, e.refuseEnroll
	}
	id := tunnel.NodeIDFor(req.Key.Bytes(), 0)
	e.addPeer(req.Key, id)
	r := control.EnrollReply{Node: id, Name: req.Name, Overlay: e.overlay, Domain: "example.com", Edges: []keys.Edge{e.self()}}
	e.agents[req.Key] = r
	e.broadcastLocked()
	return r, nil
}

// Publish implements control.Handler.
func (e *fakeEdge) Publish(_ context.Context, from tunnel.NodeID, req control.PublishRequest) (control.PublishReply, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sessions[from]; s == nil || s.id != req.Session {
		return control.PublishReply{}, &control.Error{Code: control.CodeSuperseded, Message: "not the current session"}
	}
	if e.refusePublish != nil {
		return control.PublishReply{}, e.refusePublish
	}
	var r control.PublishReply
	for i, s := range req.Tunnels {
		p := control.Published{ID: s.ID, Name: s.Name}
		if p.Name == "" {
			p.Name = fmt.Sprintf("brave-otter-%d", i)
		}
		if code := e.taken[s.Name]; code != "" {
			p.Error = &control.Error{Code: code, Message: s.Name + " is held by agent desk"}
		} else if s.Kind == tunnel.TCP {
			p.PublicURL = "tcp://example.com:20022"
		} else {
			p.PublicURL = "https://" + p.Name + ".example.com"
		}
		r.Tunnels = append(r.Tunnels, p)
	}
	e.specs[from] = req.Tunnels
	e.sets = append(e.sets, req.Tunnels)
	e.broadcastLocked()
	return r, nil
}

// Session implements control.Handler.
func (e *fakeEdge) Session(ctx context.Context, from tunnel.NodeID, stream *control.Session) error {
	e.mu.Lock()
	e.nextID++
	s := &fakeSession{id: fmt.Sprint(e.nextID), end: make(chan control.ServerEvent, 1)}
	if old := e.sessions[from]; old != nil {
		select {
		case old.end <- control.ServerEvent{Type: control.EventSuperseded, Message: "a newer session"}:
		default:
		}
	}
	e.sessions[from] = s
	e.opened++
	e.broadcastLocked()
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		if e.sessions[from] == s {
			delete(e.sessions, from)
		}
		e.broadcastLocked()
		e.mu.Unlock()
	}()
	if err := stream.Send(control.ServerEvent{Type: control.EventHello, Session: s.id, Domain: "example.com"}); err != nil {
		return err
	}
	broken := make(chan error, 1)
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			ev, err := stream.Recv()
			if err != nil {
				broken <- err
				return
			}
			if ev.Type == control.EventUpstream {
				e.mu.Lock()
				e.reports = append(e.reports, ev)
				e.broadcastLocked()
				e.mu.Unlock()
			}
		}
	})
	defer reader.Wait()
	defer stream.Close()
	beat := time.NewTicker(control.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			if err := stream.Send(control.ServerEvent{Type: control.EventHeartbeat}); err != nil {
				return err
			}
		case ev, ok := <-s.end:
			if !ok {
				return nil
			}
			return errors.Join(stream.Send(ev), <-broken)
		case err := <-broken:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}
