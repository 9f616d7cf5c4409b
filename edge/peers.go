package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
	"github.com/wgexpose/wgexpose/wg"
)

// maxObserved bounds a commit of what was seen; the rest waits for the next.
const maxObserved = 500

// planObserved keeps what WireGuard knows of agents and the store does not yet:
// the endpoint, where the edge shakes hands first after a restart, and that
// they have come with their own key. version is that of the peers' programs; "" where
// nothing is known of it.
func planObserved(snap *snapshot, peers []wg.PeerStatus, version string) ([]store.Op, error) {
	var ops []op
	for _, p := range peers {
		item, ok := snap.nodes[snap.byKey[p.Key]]
		if !ok || item.Value.Kind != store.AgentNode || p.LastHandshake.IsZero() {
			continue
		}
		node := item.Value
		node.Joined, node.Version = true, cmp.Or(version, node.Version)
		if p.Endpoint.IsValid() && !p.Stream { // nobody can be called at the other end of a stream
			node.Endpoint = p.Endpoint
		}
		if node.Joined == item.Value.Joined && node.Endpoint == item.Value.Endpoint && node.Version == item.Value.Version {
			continue
		}
		if ops = append(ops, put(store.NodeKey(node.ID), node, item.Revision)); len(ops) == maxObserved {
			break
		}
	}
	return puts(ops...)
}

// observe keeps what WireGuard has seen of the agents, every now and then.
func (r *running) observe(ctx context.Context) error {
	tick := time.NewTicker(r.timing.Observe)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := r.observeOnce(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("keep the agents' endpoints; it is tried again", "err", err)
		}
	}
}

func (r *running) observeOnce(ctx context.Context) error {
	peers, err := r.dev.Peers()
	if err != nil {
		return fmt.Errorf("ask WireGuard for its peers: %w", err)
	}
	snap := r.reconcile.snap.Load()
	for _, p := range peers {
		r.sizes.moved(snap.byKey[p.Key], p.Stream)
	}
	_, err = commit(ctx, r.store, snap, func(snap *snapshot) ([]store.Op, error) { return planObserved(snap, peers, "") })
	return err
}

// seen keeps at once that an agent is here, where, and with which version.
func (r *running) seen(ctx context.Context, node store.Node, version string) (wg.PeerStatus, error) {
	peer, ok, err := r.dev.Peer(node.Key)
	if err != nil {
		return peer, fmt.Errorf("ask WireGuard for a peer: %w", err)
	}
	if !ok {
		return peer, revokedError() // between the look into the store and now
	}
	_, err = commit(ctx, r.store, r.reconcile.snap.Load(), func(snap *snapshot) ([]store.Op, error) {
		return planObserved(snap, []wg.PeerStatus{peer}, version)
	})
	return peer, err
}

// counters are how many bytes came from each peer, as of a moment ago. To read
// one costs as much as to read all (wg.Device.Peer), and all sessions of an edge
// that has too much to do ask at once, several times a second.
type counters struct {
	read  func() ([]wg.PeerStatus, error)
	fresh time.Duration // for which one reading serves

	mu sync.Mutex // guards all below; held while reading
	at time.Time
	rx map[keys.Public]uint64
}

// received is how many bytes came from the peer so far.
func (c *counters) received(key keys.Public) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.rx[key]
	if !ok || time.Since(c.at) > c.fresh {
		peers, err := c.read()
		if err != nil {
			return 0, fmt.Errorf("ask WireGuard for its peers: %w", err)
		}
		c.at, c.rx = time.Now(), make(map[keys.Public]uint64, len(peers))
		for _, p := range peers {
			c.rx[p.Key] = p.RxBytes
		}
		n, ok = c.rx[key]
	}
	if !ok {
		return 0, errors.New("the peer was removed")
	}
	return n, nil
}

// inviteGrace is for how long an invite is kept after its expiry, so that a late
// comer, or one whose clock is slow, is told what is wrong.
const inviteGrace = time.Hour

// sweeper plans what time alone changes.
type sweeper struct {
	now       time.Time
	started   time.Time                // of the edge: before it, nobody could be seen
	generated time.Duration            // for which a generated name is kept
	up        func(tunnel.NodeID) bool // the agent is here
}

// plan deletes invites that expired, and generated names that their agents did
// not come back for. Names in use are noted as seen now and then, so that the
// time counts from when the agent left, over restarts of the edge.
func (s sweeper) plan(snap *snapshot) ([]store.Op, error) {
	var ops []store.Op
	for _, item := range snap.invites {
		invite := item.Value
		if s.now.Before(invite.Expires.Add(inviteGrace)) {
			continue
		}
		ops = append(ops, store.Delete(store.InviteKey(invite.ID), item.Revision))
		if node, ok := snap.nodes[invite.Node]; ok && node.Value.Kind == store.InviteNode {
			ops = append(ops, store.Delete(store.NodeKey(invite.Node), node.Revision), dropKey(invite.Key))
		}
		if len(ops) >= maxObserved {
			return ops, nil
		}
	}
	for key, item := range snap.publics {
		rec := item.Value
		if !rec.Generated {
			continue
		}
		last := rec.Seen
		if last.Before(s.started) {
			last = s.started
		}
		switch {
		case rec.Active && s.up(rec.Node):
			if s.now.Sub(rec.Seen) < s.generated/24 {
				continue
			}
			rec.Seen = s.now
			op, err := store.Put(key, rec, item.Revision)
			if err != nil {
				return nil, err
			}
			ops = append(ops, op)
		case s.now.Sub(last) >= s.generated:
			ops = append(ops, store.Delete(key, item.Revision))
		}
		if len(ops) >= maxObserved {
			break
		}
	}
	return ops, nil
}

// dropKey lets a key be used by another node. Nobody else writes its record.
func dropKey(key keys.Public) store.Op { return store.Op{Key: store.NodeKeyKey(key), Any: true} }

// sweep lets go of what has had its time, every now and then.
func (r *running) sweep(ctx context.Context) error {
	started := time.Now()
	tick := time.NewTicker(r.timing.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		_, err := commit(ctx, r.store, r.reconcile.snap.Load(), func(snap *snapshot) ([]store.Op, error) {
			return sweeper{
				now: time.Now().UTC(), started: started, generated: r.timing.Generated,
				up: func(id tunnel.NodeID) bool { up, _ := r.sessions.state(id); return up },
			}.plan(snap)
		})
		if err != nil && ctx.Err() == nil {
			r.log.Error("sweep expired invites and names; it is tried again", "err", err)
		}
	}
}

// wantedPeers are the nodes that may speak to the edge: agents, and invites
// until they are swept, used ones too, so that their holders are told what is
// wrong.
func wantedPeers(snap *snapshot) map[keys.Public]store.Node {
	want := make(map[keys.Public]store.Node, len(snap.nodes))
	for _, item := range snap.nodes {
		switch item.Value.Kind {
		case store.AgentNode, store.InviteNode:
			want[item.Value.Key] = item.Value
		}
	}
	return want
}
