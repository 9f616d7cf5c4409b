package edge

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

func TestEnroll(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	i := w.invite(InviteOptions{})
	key := newKey(t).Public()
	got, err := w.enroll(ctx, i, key, "laptop")
	if err != nil || got.name != "laptop" || got.node != tunnel.NodeIDFor(key.Bytes(), 0) {
		t.Fatalf("got %+v, %v", got, err)
	}
	// Over again after a crash: the same answer, although the invite is used up.
	again, err := w.enroll(ctx, i, key, "laptop")
	if err != nil || again.node != got.node || again.name != "laptop" || len(again.ops) != 0 {
		t.Fatalf("again %+v, %v", again, err)
	}
	// And after the invite was revoked: the agent is in.
	if err := w.admin.RevokeInvite(ctx, store.InviteID(i.Key.Public())); err != nil {
		t.Fatal(err)
	}
	if again, err = w.enroll(ctx, i, key, "laptop"); err != nil || again.node != got.node {
		t.Fatalf("again %+v, %v", again, err)
	}
	if peers := wantedPeers(w.snap()); peers[key].ID != got.node || len(peers) != 2 {
		t.Errorf("peers %v, want the agent and the invite", peers)
	}
}

func TestEnrollRefusals(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	agent := newKey(t).Public()
	used := w.invite(InviteOptions{})
	if _, err := w.enroll(ctx, used, agent, "laptop"); err != nil {
		t.Fatal(err)
	}
	revoked := w.invite(InviteOptions{})
	if err := w.admin.RevokeInvite(ctx, store.InviteID(revoked.Key.Public())); err != nil {
		t.Fatal(err)
	}
	open := w.invite(InviteOptions{Uses: 5})
	self := w.snap().nodes[edgeNode].Value.Key
	expired := *w
	expired.now = open.Expires
	for _, c := range []struct {
		name string
		w    *world
		i    keys.Invite
		key  keys.Public
		code string
	}{
		{"used up", w, used, newKey(t).Public(), control.CodeInviteUsed},
		{"revoked", w, revoked, newKey(t).Public(), control.CodeInviteRevoked},
		{"expired", &expired, open, newKey(t).Public(), control.CodeInviteExpired},
		{"another agent's key", w, open, agent, control.CodeKeyKnown},
		{"the edge's key", w, open, self, control.CodeKeyKnown},
		{"the invite's own key", w, open, open.Key.Public(), control.CodeKeyKnown},
	} {
		if _, err := c.w.enroll(ctx, c.i, c.key, "x"); control.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
	}
	// An agent is not an invite.
	_, err := planEnroll(w.snap(), tunnel.NodeIDFor(agent.Bytes(), 0), control.EnrollRequest{Key: newKey(t).Public()}, w.now)
	if control.CodeOf(err) != control.CodeNotEnrolled {
		t.Errorf("agent enrolls: %v", err)
	}
	// A revoked agent's key is not let in again, by any invite.
	if err := w.admin.Revoke(ctx, "laptop"); err != nil {
		t.Fatal(err)
	}
	for _, i := range []keys.Invite{used, open} {
		if _, err := w.enroll(ctx, i, agent, "laptop"); control.CodeOf(err) != control.CodeRevoked {
			t.Errorf("revoked key: %v", err)
		}
	}
}

// Many at once with one invite: as many as it allows, each with a name and an id
// of its own.
func TestEnrollTogether(t *testing.T) {
	const uses, callers = 6, 9
	w := newWorld(t)
	i := w.invite(InviteOptions{Uses: uses, Name: "node"})
	var mu sync.Mutex
	names, refused := map[string]bool{}, 0
	var wait sync.WaitGroup
	for range callers {
		key := newKey(t).Public()
		wait.Go(func() {
			got, err := w.enroll(t.Context(), i, key, "ignored")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				names[got.name] = true
			case control.CodeOf(err) == control.CodeInviteUsed:
				refused++
			default:
				t.Error(err)
			}
		})
	}
	wait.Wait()
	want := map[string]bool{"node": true, "node-2": true, "node-3": true, "node-4": true, "node-5": true, "node-6": true}
	if refused != callers-uses || fmt.Sprint(names) != fmt.Sprint(want) {
		t.Errorf("names %v and %d refused", names, refused)
	}
}

func TestFreeAgentNameFits(t *testing.T) {
	long := strings.Repeat("a", 60) + "-bc"
	snap := &snapshot{byName: map[string]store.Item[tunnel.NodeID]{}}
	for range 12 {
		name := freeAgentName(snap, long)
		if err := tunnel.ValidateName(name); err != nil {
			t.Fatal(err)
		}
		if _, ok := snap.byName[name]; ok {
			t.Fatalf("%s is taken", name)
		}
		snap.byName[name] = store.Item[tunnel.NodeID]{}
	}
}

func TestNodeIDsAreNotUsedAgain(t *testing.T) {
	key := newKey(t).Public()
	first := tunnel.NodeIDFor(key.Bytes(), 0)
	snap := &snapshot{nodes: map[tunnel.NodeID]store.Item[store.Node]{first: {Value: store.Node{Kind: nodeRevoked}}}}
	if id, err := freeNodeID(snap, key); err != nil || id != tunnel.NodeIDFor(key.Bytes(), 1) {
		t.Errorf("got %v, %v", id, err)
	}
}
