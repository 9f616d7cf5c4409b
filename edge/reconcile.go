package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
	"github.com/wgexpose/wgexpose/wg"
)

// retryApply is the pause before a pass that could not apply everything is made
// again, such as one with a public TCP port that another program has.
const retryApply = 10 * time.Second

// What reconcile acts on; the real ones are a WireGuard device, the front and
// the netstack.
type (
	peerSetter interface {
		SetPeer(wg.Peer) error
		RemovePeer(keys.Public) error
		Handshake(keys.Public) error
	}
	tableApplier interface {
		Apply(*tunnel.Table, func(tunnel.NodeID) *liveness) map[uint16]error
		DropNode(tunnel.NodeID)
	}
	aborter interface {
		AbortFrom(netip.Prefix) int
	}
)

// reconcilerConfig is what a reconciler reads and acts on.
type reconcilerConfig struct {
	store    store.Store
	overlay  tunnel.Overlay
	side     publicSide
	peers    peerSetter
	front    tableApplier
	stack    aborter
	sessions *sessions
	applied  *applied
	farewell time.Duration
	log      *slog.Logger
}

// reconciler makes the world what the store says. It alone sets and removes
// peers, and swaps the table.
type reconciler struct {
	reconcilerConfig
	set   map[keys.Public]knownPeer // peers that are set; used by the one goroutine
	table atomic.Pointer[tunnel.Table]
	snap  atomic.Pointer[snapshot] // what was last applied; nil before the first pass

	mu    sync.Mutex       // guards ports
	ports map[uint16]error // public TCP ports of the table; nil: open
}

// newReconciler returns a reconciler that has applied nothing yet: no peers and
// an empty table.
func newReconciler(cfg reconcilerConfig) *reconciler {
	r := &reconciler{reconcilerConfig: cfg, set: make(map[keys.Public]knownPeer)}
	r.table.Store(new(tunnel.Table))
	return r
}

// knownPeer is a peer that is set, and who it is.
type knownPeer struct {
	node tunnel.NodeID
	kind store.NodeKind
	name string
}

// applied is the revision that reconcile has applied, to wait for.
type applied struct {
	mu      sync.Mutex // guards all below
	rev     store.Revision
	err     error         // what the last pass could not do
	changed chan struct{} // closed and replaced at each pass
	over    bool
}

func newApplied() *applied { return &applied{changed: make(chan struct{})} }

// errStopping is what callers get that wait while the edge stops.
var errStopping = &control.Error{Code: control.CodeUnavailable, Message: "the edge is stopping: try again in a moment"}

func (a *applied) set(rev store.Revision, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rev, a.err = rev, err
	close(a.changed)
	a.changed = make(chan struct{})
}

// stop lets nobody wait any more.
func (a *applied) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.over = true
		close(a.changed)
	}
}

// wait returns when rev, or a later revision, is applied. The error is what
// could not be.
func (a *applied) wait(ctx context.Context, rev store.Revision) error {
	for {
		a.mu.Lock()
		done, err, over, changed := a.rev >= rev, a.err, a.over, a.changed
		a.mu.Unlock()
		switch {
		case done && err != nil:
			return fmt.Errorf("apply revision %d: %w", rev, err)
		case done:
			return nil
		case over:
			return errStopping
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for revision %d to be applied: %w", rev, ctx.Err())
		}
	}
}

// run applies the store as it is now, then whatever changes, until ctx ends.
// The first pass is pass itself, so that the caller can make it early.
func (r *reconciler) run(ctx context.Context) error {
	defer r.applied.stop()
	changes, err := r.store.Watch(ctx, r.applied.revision())
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("watch the database: %w", err)
	}
	retry := time.NewTicker(retryApply)
	defer retry.Stop()
	var late behind
	for {
		select {
		case c, ok := <-changes:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("the database was closed while the edge runs")
			}
			late, err = r.follow(ctx, late, c)
		case <-retry.C:
			if !r.unfinished() && len(late.keys) == 0 {
				continue
			}
			late, err = behind{}, r.pass(ctx)
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func (a *applied) revision() store.Revision {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rev
}

// unfinished tells whether the last pass left something undone.
func (r *reconciler) unfinished() bool {
	r.applied.mu.Lock()
	failed := r.applied.err != nil
	r.applied.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range r.ports {
		failed = failed || err != nil
	}
	return failed
}

// behind are changes that are not applied yet: when they were read, the store had
// moved on, and what moved it is told by the next change.
type behind struct {
	keys []string
	laps int // how often that has happened
}

const (
	maxBehind = 512 // keys; reading the whole store is quicker then
	maxLaps   = 8
)

// follow applies a change. Of the store it reads what has changed, so that one of a
// thousand agents costs what it alone costs; and all of it where the change does not
// say, or where something was left undone.
func (r *reconciler) follow(ctx context.Context, late behind, c store.Change) (behind, error) {
	snap := r.snap.Load()
	switch {
	case snap != nil && c.Revision <= snap.rev:
		return behind{}, nil
	case snap == nil, c.Keys == nil, r.unfinished():
		return behind{}, r.pass(ctx)
	}
	late.keys = slices.Concat(late.keys, c.Keys)
	slices.Sort(late.keys)
	late.keys = slices.Compact(late.keys)
	if late.laps++; late.laps > maxLaps || len(late.keys) > maxBehind {
		return behind{}, r.pass(ctx)
	}
	entries, rev, err := r.store.GetAll(ctx, late.keys)
	if err != nil {
		return behind{}, fmt.Errorf("read the database: %w", err)
	}
	if rev != c.Revision {
		return late, nil
	}
	next, effect, err := snap.after(rev, late.keys, entries)
	if err != nil {
		return behind{}, fmt.Errorf("read the database: %w", err)
	}
	r.apply(ctx, next, effect)
	return behind{}, nil
}

// pass reads the store and applies all of it. Its error means that the edge
// cannot go on; what merely could not be applied goes to those who wait.
func (r *reconciler) pass(ctx context.Context) error {
	snap, err := readSnapshot(ctx, r.store)
	if err != nil {
		return err
	}
	r.apply(ctx, snap, effect{peers: true, table: true})
	return nil
}

// apply makes the world what snap says, as far as that may have changed.
//
// New peers come before the table that leads to them, and removed ones go last,
// after all connections to them.
func (r *reconciler) apply(ctx context.Context, snap *snapshot, changed effect) {
	var undone []error
	var want map[keys.Public]store.Node
	if changed.peers {
		want = wantedPeers(snap)
		for key, node := range want {
			if _, ok := r.set[key]; ok {
				continue
			}
			if err := r.addPeer(key, node); err != nil {
				undone = append(undone, err)
			}
		}
	}
	if changed.table {
		table, err := buildTable(snap, r.overlay, r.side)
		if err != nil {
			undone = append(undone, err)
			table = r.table.Load() // as it was
		}
		r.table.Store(table)
		failed := r.front.Apply(table, r.sessions.liveness)
		r.notePorts(table, failed)
	}
	if changed.peers {
		undone = append(undone, r.removePeers(ctx, want)...)
	}
	err := errors.Join(undone...)
	if err != nil {
		r.log.Error("not all changes could be applied; they are tried again", "err", err)
	}
	r.snap.Store(snap)
	r.applied.set(snap.rev, err)
}

func (r *reconciler) addPeer(key keys.Public, node store.Node) error {
	peer := wg.Peer{Key: key, Endpoint: node.Endpoint, AllowedIPs: []netip.Prefix{r.overlay.NodePrefix(node.ID)}}
	if err := r.peers.SetPeer(peer); err != nil {
		return fmt.Errorf("set the WireGuard peer of %s: %w", peerName(node), err)
	}
	r.set[key] = knownPeer{node: node.ID, kind: node.Kind, name: node.Name}
	if !node.Endpoint.IsValid() {
		return nil
	}
	// An agent notices a restart of the edge by itself only after some 15 s;
	// the edge's own handshake brings it back at once.
	if err := r.peers.Handshake(key); err != nil {
		r.log.Warn("handshake with a known endpoint", "agent", node.Name, "err", err)
	}
	return nil
}

func peerName(node store.Node) string {
	if node.Kind == store.InviteNode {
		return "invite " + node.Invite
	}
	return "agent " + node.Name
}

// notePorts keeps which public TCP ports are open, and says once of each that
// it is not.
func (r *reconciler) notePorts(table *tunnel.Table, failed map[uint16]error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.ports
	r.ports = make(map[uint16]error)
	for e := range table.All() {
		if e.Kind != tunnel.TCP {
			continue
		}
		err := failed[e.Port]
		r.ports[e.Port] = err
		if err != nil && before[e.Port] == nil {
			r.log.Error("public TCP port cannot be opened; it is tried again", "tunnel", e.Name, "agent", e.Agent, "port", e.Port, "err", err)
		}
	}
}

// open tells whether the port is open for a tunnel.
func (r *reconciler) open(port uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	err, ok := r.ports[port]
	return ok && err == nil
}

// portError is why the port of a tunnel is not open, or nil.
func (r *reconciler) portError(port uint16) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ports[port]
}

// removePeers takes out whom the store does not have any more. An agent that is
// revoked is cut off in this order: visitors' connections and requests at once,
// then it is told, then its own connections are reset, and the peer goes last,
// so that nothing is left which would go on retransmitting.
func (r *reconciler) removePeers(ctx context.Context, want map[keys.Public]store.Node) []error {
	var gone []keys.Public
	for key := range r.set {
		if _, ok := want[key]; !ok {
			gone = append(gone, key)
		}
	}
	var told []*session
	for _, key := range gone {
		known := r.set[key]
		r.front.DropNode(known.node)
		if s := r.sessions.forget(known.node); s != nil {
			s.stop(control.ServerEvent{Type: control.EventRevoked,
				Message: "this agent was revoked at the edge; join again with a new invite"})
			told = append(told, s)
		}
	}
	awaitEnd(ctx, told, r.farewell)
	var errs []error
	for _, key := range gone {
		known := r.set[key]
		r.stack.AbortFrom(r.overlay.NodePrefix(known.node))
		if err := r.peers.RemovePeer(key); err != nil {
			errs = append(errs, fmt.Errorf("remove the WireGuard peer %s: %w", key.Short(), err))
			continue
		}
		delete(r.set, key)
		if known.kind == store.AgentNode {
			r.log.Info("agent cut off", "agent", known.name)
		}
	}
	return errs
}

// awaitEnd waits until the sessions are over, or for as long as limit.
func awaitEnd(ctx context.Context, all []*session, limit time.Duration) {
	if len(all) == 0 {
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, s := range all {
		select {
		case <-s.ended:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// buildTable makes the table of all tunnels that are asked for.
func buildTable(snap *snapshot, overlay tunnel.Overlay, side publicSide) (*tunnel.Table, error) {
	var entries []tunnel.Entry
	for _, key := range slices.Sorted(maps.Keys(snap.publics)) {
		rec := snap.publics[key].Value
		node, ok := snap.nodes[rec.Node]
		if !rec.Active || !ok || node.Value.Kind != store.AgentNode {
			continue
		}
		entries = append(entries, tableEntry(rec, node.Value, overlay, side))
	}
	return tunnel.NewTable(entries)
}
