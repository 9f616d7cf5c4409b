package edge

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

func TestRevokeGivesNamesBack(t *testing.T) {
	w := newWorld(t)
	a := w.agent("laptop")
	w.publish(a, web(1, "app"), tcp(2, "ssh", 0))
	if err := w.admin.Revoke(t.Context(), "laptop"); err != nil {
		t.Fatal(err)
	}
	if snap := w.snap(); len(snap.publics) != 0 || snap.nodes[a].Value.Kind != nodeRevoked || wantedPeers(snap)[snap.nodes[a].Value.Key].ID != 0 {
		t.Errorf("after the revocation: %v, %v", snap.publics, snap.nodes[a])
	}
	var r *Refusal
	if err := w.admin.Revoke(t.Context(), "laptop"); !errors.As(err, &r) || r.Code != RefusedNotFound {
		t.Errorf("revoke again: %v", err)
	}
	if b := w.agent("laptop"); b == a {
		t.Error("the id was used again")
	} else {
		wantURL(t, w.publishOne(b, web(1, "app")), "https://app.example.com")
	}
}

// What an agent publishes while it is revoked must not be left behind.
func TestPublishLosesAgainstRevoke(t *testing.T) {
	w := newWorld(t)
	a := w.agent("laptop")
	stale := w.snap()
	if err := w.admin.Revoke(t.Context(), "laptop"); err != nil {
		t.Fatal(err)
	}
	plan, err := publisher{side: w.side, rand: rand.Reader, now: w.now}.plan(stale, a, []tunnel.Spec{web(1, "app")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Commit(t.Context(), plan.ops...); !errors.Is(err, store.ErrConflict) {
		t.Errorf("commit: %v, want a conflict", err)
	}
}

func TestRelease(t *testing.T) {
	w := newWorld(t)
	a := w.agent("laptop")
	up := func(tunnel.NodeID) bool { return true }
	publish := func() { w.publish(a, web(1, "app"), tcp(2, "app", 20000), tcp(3, "ssh", 20001)) }
	publish()
	for name, code := range map[string]string{
		"app":             RefusedAmbiguous,
		"nothing":         RefusedNotFound,
		"app.example.com": RefusedInUse,
		"20000":           RefusedInUse,
		"ssh":             RefusedInUse,
	} {
		var r *Refusal
		if _, err := planRelease(w.snap(), name, up); !errors.As(err, &r) || r.Code != code {
			t.Errorf("%s: %v, want %s", name, err, code)
		}
	}
	for name, key := range map[string]string{
		"app.example.com":         store.HTTPSKey("app.example.com"),
		"https://app.example.com": store.HTTPSKey("app.example.com"),
		"app.example.com:8443":    store.HTTPSKey("app.example.com"),
		"App.Example.com.":        store.HTTPSKey("app.example.com"),
		"20000":                   store.TCPKey(20000),
		"tcp://example.com:20000": store.TCPKey(20000),
		"ssh":                     store.TCPKey(20001),
	} {
		publish()
		if err := w.admin.Release(t.Context(), name); err != nil { // the edge is stopped: nobody is here
			t.Errorf("%s: %v", name, err)
		}
		if snap := w.snap(); snap.publics[key].Revision != 0 || len(snap.publics) != 2 {
			t.Errorf("%s: left are %v", name, snap.publics)
		}
	}
}

// A key file that is gone from beside its database is not replaced.
func TestEdgeKeyIsNotReplaced(t *testing.T) {
	ctx := t.Context()
	s, err := store.OpenBolt(filepath.Join(t.TempDir(), "edge.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	path := filepath.Join(t.TempDir(), keyFile)
	key, err := edgeKey(ctx, s, path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := edgeKey(ctx, s, path); err != nil || !again.Equal(key) {
		t.Fatalf("the second start: %v", err)
	}
	if _, _, err := bootstrap(ctx, s, key.Public(), "example.com", time.Now().UTC()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := edgeKey(ctx, s, path); err == nil || !strings.Contains(err.Error(), path+" is missing") {
		t.Errorf("without the file: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a new key was written: %v", err)
	}
}

func TestBootstrap(t *testing.T) {
	s, err := store.OpenBolt(filepath.Join(t.TempDir(), "edge.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, key := t.Context(), newKey(t).Public()
	if _, _, err := bootstrap(ctx, s, key, "", time.Now()); err == nil || !strings.Contains(err.Error(), "--domain") {
		t.Errorf("without a domain: %v", err)
	}
	first, _, err := bootstrap(ctx, s, key, "example.com", time.Now().UTC())
	if err != nil {
		t.Fatal(err)
	}
	again, was, err := bootstrap(ctx, s, key, "", time.Now().UTC())
	if err != nil || again != first || was != "example.com" {
		t.Errorf("again: %+v, %s, %v; want %+v", again, was, err, first)
	}
	moved, was, err := bootstrap(ctx, s, key, "example.net", time.Now().UTC())
	if err != nil || was != "example.com" || moved.Domain != "example.net" || moved.Overlay != first.Overlay {
		t.Errorf("moved: %+v, %s, %v", moved, was, err)
	}
	if _, _, err := bootstrap(ctx, s, newKey(t).Public(), "", time.Now()); err == nil || !strings.Contains(err.Error(), keyFile) {
		t.Errorf("with another key: %v", err)
	}
}

func TestInviteOptions(t *testing.T) {
	w := newWorld(t)
	for _, o := range []InviteOptions{{Name: "No Good"}, {Uses: -1}, {Uses: maxUses + 1}, {TTL: time.Second}, {TTL: -time.Hour}, {TTL: 2 * maxTTL}} {
		var r *Refusal
		if _, err := w.admin.Invite(t.Context(), o); !errors.As(err, &r) {
			t.Errorf("%+v: %v, want a refusal", o, err)
		}
	}
	i := w.invite(InviteOptions{TTL: time.Hour})
	self := w.snap().nodes[edgeNode].Value.Key
	if len(i.Edges) != 1 || i.Edges[0].Key != self || i.Edges[0].Endpoints[0].Addr != "198.51.100.7:51820" || i.Overlay != w.snap().settings.Value.Overlay.Prefix() {
		t.Errorf("invite %+v", i)
	}
	if d := time.Until(i.Expires); d > time.Hour || d < 59*time.Minute {
		t.Errorf("expires in %v", d)
	}
	for _, e := range must(w.store.List(t.Context(), "")) {
		if private := i.Key.Expose(); bytes.Contains(e.Value, private[:]) {
			t.Error("the edge kept the invite's private key")
		}
	}
}

func must(entries []store.Entry, _ store.Revision, err error) []store.Entry {
	if err != nil {
		panic(err)
	}
	return entries
}
