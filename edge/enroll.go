package edge

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

const (
	// idTries bounds the search for a node id that was never used. Of four
	// billion, a second try is rare and a third one does not happen.
	idTries = 64
	// maxAgentName leaves room for the number of a name's namesake.
	maxAgentName = 63
)

// enrolled is the outcome of a plan: who the caller is from now on.
type enrolled struct {
	ops  []store.Op
	node tunnel.NodeID
	name string
}

// planEnroll makes the holder of the invite from an agent. The same key again,
// with the same invite, is the same agent, whatever became of the invite since:
// a join that broke off in the middle is done over, and loses nothing.
func planEnroll(snap *snapshot, from tunnel.NodeID, req control.EnrollRequest, now time.Time) (enrolled, error) {
	caller, ok := snap.nodes[from]
	if !ok || caller.Value.Kind != store.InviteNode {
		return enrolled{}, &control.Error{Code: control.CodeNotEnrolled,
			Message: "only the holder of an invite can enroll: get one from the edge's owner (wgexpose edge invite)"}
	}
	item, ok := snap.invites[caller.Value.Invite]
	if !ok {
		return enrolled{}, fmt.Errorf("node %d is of invite %s, which is not there", from, caller.Value.Invite)
	}
	invite := item.Value
	for _, use := range invite.Used {
		if use.Key == req.Key {
			return enrolledBefore(snap, use)
		}
	}
	if err := inviteError(invite, now); err != nil {
		return enrolled{}, err
	}
	if id, ok := snap.byKey[req.Key]; ok {
		return enrolled{}, keyKnown(snap, id)
	}
	id, err := freeNodeID(snap, req.Key)
	if err != nil {
		return enrolled{}, err
	}
	name := freeAgentName(snap, cmp.Or(invite.Name, req.Name, "agent"))
	invite.Used = append(invite.Used[:len(invite.Used):len(invite.Used)], store.InviteUse{Key: req.Key, Node: id, At: now})
	ops, err := puts(
		put(store.InviteKey(invite.ID), invite, item.Revision),
		put(store.NodeKey(id), store.Node{
			ID: id, Kind: store.AgentNode, Name: name, Key: req.Key,
			Version: req.Version, Platform: req.Platform, Created: now, Invite: invite.ID, Domains: invite.Domains,
		}, 0),
		put(store.NodeKeyKey(req.Key), id, 0),
		put(store.NameKey(name), id, 0),
	)
	return enrolled{ops: ops, node: id, name: name}, err
}

func enrolledBefore(snap *snapshot, use store.InviteUse) (enrolled, error) {
	node, ok := snap.nodes[use.Node]
	if !ok || node.Value.Kind != store.AgentNode {
		return enrolled{}, revokedError()
	}
	return enrolled{node: use.Node, name: node.Value.Name}, nil
}

// inviteError says why an invite lets nobody in any more, or nil.
func inviteError(invite store.Invite, now time.Time) error {
	const fix = "ask the edge's owner for a new one (wgexpose edge invite)"
	switch inviteState(invite, now) {
	case StateRevoked:
		return &control.Error{Code: control.CodeInviteRevoked, Message: "this invite was revoked: " + fix}
	case StateExpired:
		return &control.Error{Code: control.CodeInviteExpired, Message: fmt.Sprintf(
			"this invite expired at %s: %s", invite.Expires.Format(time.RFC3339), fix)}
	case StateUsed:
		times := "once"
		if invite.Uses > 1 {
			times = fmt.Sprintf("%d times", invite.Uses)
		}
		return &control.Error{Code: control.CodeInviteUsed, Message: fmt.Sprintf(
			"this invite could be used %s, and was: %s", times, fix)}
	}
	return nil
}

// inviteState is one of open, used, expired and revoked.
func inviteState(invite store.Invite, now time.Time) string {
	switch {
	case invite.Revoked:
		return StateRevoked
	case len(invite.Used) >= invite.Uses:
		return StateUsed
	case !now.Before(invite.Expires):
		return StateExpired
	}
	return StateOpen
}

func revokedError() error {
	return &control.Error{Code: control.CodeRevoked,
		Message: "this agent was revoked at the edge: join again with a new invite and a new key"}
}

func keyKnown(snap *snapshot, id tunnel.NodeID) error {
	node := snap.nodes[id].Value
	switch node.Kind {
	case nodeRevoked:
		return revokedError()
	case store.AgentNode:
		return &control.Error{Code: control.CodeKeyKnown, Message: fmt.Sprintf(
			"this key is agent %s of this edge already: it needs no invite; for a second agent, use another state directory", node.Name)}
	}
	return &control.Error{Code: control.CodeKeyKnown, Message: "this key belongs to another node of this edge: use one of your own"}
}

// freeNodeID is the first id for the key that no node has or had.
func freeNodeID(snap *snapshot, key keys.Public) (tunnel.NodeID, error) {
	for attempt := range idTries {
		id := tunnel.NodeIDFor(key.Bytes(), attempt)
		if _, ok := snap.nodes[id]; !ok {
			return id, nil
		}
	}
	return 0, fmt.Errorf("no free node id in %d tries", idTries)
}

// freeAgentName is name, or name-2, name-3 … where agents have it already.
func freeAgentName(snap *snapshot, name string) string {
	free := name
	for n := 2; ; n++ {
		if _, ok := snap.byName[free]; !ok {
			return free
		}
		suffix := fmt.Sprintf("-%d", n)
		free = strings.TrimRight(name[:min(len(name), maxAgentName-len(suffix))], "-") + suffix
	}
}

// Enroll implements control.Handler.
func (r *running) Enroll(ctx context.Context, from tunnel.NodeID, req control.EnrollRequest) (control.EnrollReply, error) {
	var got enrolled
	rev, err := commit(ctx, r.store, r.reconcile.snap.Load(), func(snap *snapshot) (ops []store.Op, err error) {
		got, err = planEnroll(snap, from, req, time.Now().UTC())
		return got.ops, err
	})
	if err != nil {
		return control.EnrollReply{}, err
	}
	// The agent handshakes with its own key next, so the peer has to be there.
	if err := r.applied.wait(ctx, rev); err != nil {
		return control.EnrollReply{}, err
	}
	r.log.Info("agent enrolled", "agent", got.name, "node", got.node)
	return control.EnrollReply{
		Node: got.node, Name: got.name, Overlay: r.overlay, Domain: r.side.domain, Edges: []keys.Edge{r.self},
	}, nil
}
