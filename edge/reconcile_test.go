package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
	"github.com/wgexpose/wgexpose/wg"
)

// acted records what a reconciler does, in order.
type acted struct {
	mu     sync.Mutex
	log    []string
	peers  map[keys.Public]wg.Peer
	table  *tunnel.Table
	closed map[uint16]error // ports that cannot be opened
	setErr error
}

func (a *acted) note(format string, args ...any) { a.log = append(a.log, fmt.Sprintf(format, args...)) }

func (a *acted) SetPeer(p wg.Peer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.setErr != nil {
		return a.setErr
	}
	a.peers[p.Key] = p
	a.note("set %s", p.Key.Short())
	return nil
}

func (a *acted) RemovePeer(k keys.Public) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.peers, k)
	a.note("remove %s", k.Short())
	return nil
}

func (a *acted) Handshake(k keys.Public) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note("handshake %s", k.Short())
	return nil
}

func (a *acted) Apply(t *tunnel.Table, live func(tunnel.NodeID) *liveness) map[uint16]error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.table = t
	a.note("apply %d", t.Len())
	return a.closed
}

func (a *acted) DropNode(id tunnel.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note("drop %d", id)
}

func (a *acted) AbortFrom(p netip.Prefix) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note("abort %v", p)
	return 0
}

func (a *acted) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	log := a.log
	a.log = nil
	return log
}

func newActed() *acted { return &acted{peers: map[keys.Public]wg.Peer{}} }

func (w *world) reconciler(a *acted) *reconciler {
	return newReconciler(reconcilerConfig{
		store: w.store, overlay: w.snap().settings.Value.Overlay, side: w.side, peers: a, front: a, stack: a,
		sessions: newSessions(), applied: newApplied(), farewell: time.Minute, log: slog.New(slog.DiscardHandler),
	})
}

func TestReconcilePass(t *testing.T) {
	w := newWorld(t)
	node := w.agent("laptop")
	w.publish(node, web(1, "app"))
	key := w.snap().nodes[node].Value.Key
	at := netip.MustParseAddrPort("203.0.113.9:4711")
	ops, err := planObserved(w.snap(), []wg.PeerStatus{{Key: key, Endpoint: at, LastHandshake: w.now}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Commit(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
	a := newActed()
	r := w.reconciler(a)
	if err := r.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := wg.Peer{Key: key, Endpoint: at, AllowedIPs: []netip.Prefix{r.overlay.NodePrefix(node)}}
	if got := a.peers[key]; got.Endpoint != want.Endpoint || !slices.Equal(got.AllowedIPs, want.AllowedIPs) || len(a.peers) != 2 {
		t.Errorf("peers %+v, want %+v and the invite", a.peers, want)
	}
	log := a.take()
	if i := slices.Index(log, "handshake "+key.Short()); i < 0 || slices.Index(log, "apply 1") < i {
		t.Errorf("%v: want the handshake of the known endpoint, and then the table", log)
	}
	// Nothing is done twice, and a new endpoint in the store moves no peer.
	ops, err = planObserved(w.snap(), []wg.PeerStatus{{Key: key, Endpoint: netip.MustParseAddrPort("203.0.113.9:1"), LastHandshake: w.now}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Commit(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
	if err := r.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if log := a.take(); !slices.Equal(log, []string{"apply 1"}) {
		t.Errorf("second pass: %v", log)
	}
}

// A revoked agent is cut off in order: visitors, its word, its connections, its peer.
func TestReconcileRevokes(t *testing.T) {
	w := newWorld(t)
	node := w.agent("laptop")
	key := w.snap().nodes[node].Value.Key
	w.publish(node, web(1, "app"))
	a := newActed()
	r := w.reconciler(a)
	if err := r.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.take()
	s := newSession(node)
	r.sessions.begin(s, time.Now())
	live := r.sessions.liveness(node)
	if err := w.admin.Revoke(t.Context(), "laptop"); err != nil {
		t.Fatal(err)
	}
	passed := make(chan error, 1)
	go func() { passed <- r.pass(t.Context()) }()
	if e := <-s.last; e.Type != control.EventRevoked {
		t.Fatalf("told %+v", e)
	}
	if log := a.take(); !slices.Equal(log, []string{"apply 0", fmt.Sprintf("drop %d", node)}) {
		t.Errorf("before the agent has read it: %v", log)
	}
	if !live.Away() {
		t.Error("a revoked agent is up")
	}
	r.sessions.end(s, time.Now())
	if err := <-passed; err != nil {
		t.Fatal(err)
	}
	if log := a.take(); !slices.Equal(log, []string{fmt.Sprintf("abort %v", r.overlay.NodePrefix(node)), "remove " + key.Short()}) {
		t.Errorf("then: %v", log)
	}
}

// A call is answered once its revision is applied, and not before.
func TestReconcileRun(t *testing.T) {
	w := newWorld(t)
	a := newActed()
	r := w.reconciler(a)
	if err := r.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.run(ctx) }()
	w.admin.live = liveReconciler{r}
	for range 20 {
		i := w.invite(InviteOptions{})
		a.mu.Lock()
		_, ok := a.peers[i.Key.Public()]
		a.mu.Unlock()
		if !ok {
			t.Fatal("the invite was answered before its peer was there")
		}
	}
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.applied.wait(short, 1<<60); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- r.applied.wait(t.Context(), 1<<60) }()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-waiting; control.CodeOf(err) != control.CodeUnavailable {
		t.Errorf("wait while the edge stops: %v", err)
	}
}

// What cannot be applied reaches who waits for it, and is tried again.
func TestReconcileTellsWhatItCannotDo(t *testing.T) {
	w := newWorld(t)
	node := w.agent("laptop")
	w.publish(node, tcp(1, "ssh", 20000))
	a := newActed()
	a.setErr = errors.New("no memory")
	a.closed = map[uint16]error{20000: errors.New("in use")}
	r := w.reconciler(a)
	if err := r.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.applied.wait(t.Context(), w.snap().rev); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Errorf("wait: %v", err)
	}
	if r.portError(20000) == nil || r.open(20000) || r.open(20001) || !r.unfinished() {
		t.Error("the port that is not open is not known")
	}
	a.setErr, a.closed = nil, nil
	if err := r.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.applied.wait(t.Context(), w.snap().rev); err != nil || !r.open(20000) || r.unfinished() || len(a.peers) != 2 {
		t.Errorf("second try: %v, port open %v, %d peers", err, r.open(20000), len(a.peers))
	}
}

// liveReconciler is the facts of a running edge of which only reconcile is there.
type liveReconciler struct{ r *reconciler }

func (l liveReconciler) appliedRevision(ctx context.Context, rev store.Revision) error {
	return l.r.applied.wait(ctx, rev)
}

func (l liveReconciler) agentState(id tunnel.NodeID) (bool, time.Time) { return l.r.sessions.state(id) }

func (l liveReconciler) upstream(tunnel.NodeID, tunnel.ID) string { return "" }

func (l liveReconciler) mtu(tunnel.NodeID) int { return 0 }

func (l liveReconciler) peerStates() (map[keys.Public]wg.PeerStatus, error) { return nil, nil }

func (l liveReconciler) report(*Status) {}
