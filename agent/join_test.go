package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
)

func TestJoin(t *testing.T) {
	e := newFakeEdge(t)
	dir := testDir(t)
	inv := e.invite()
	var steps []string
	j, err := Join(t.Context(), dir, inv, JoinOptions{Name: "laptop", Version: "v1", Step: func(s string) { steps = append(steps, s) }})
	if err != nil {
		t.Fatal(err)
	}
	if j.Name != "laptop" || j.Domain != "example.com" || j.Edge != e.addr.String() || j.Overlay != e.overlay || j.Node < 256 {
		t.Errorf("joined as %+v", j)
	}
	if len(steps) != 2 || steps[0] != "looking for the edge at "+e.addr.String() || !strings.Contains(steps[1], "enrolling") {
		t.Errorf("steps %q", steps)
	}
	for _, name := range []string{keyFile, edgesFile} {
		fi, err := os.Stat(dir.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, fi.Mode())
		}
	}
	st, err := ReadStatus(t.Context(), dir)
	if err != nil || st.Running || st.Agent != "laptop" || st.Domain != "example.com" {
		t.Errorf("status %+v, %v", st, err)
	}

	// A crash before edges.json was written: the same token works again.
	if err := os.Remove(dir.Path(edgesFile)); err != nil {
		t.Fatal(err)
	}
	e.order(func() { e.refuseEnroll = &control.Error{Code: control.CodeInviteUsed, Message: "used"} })
	again, err := Join(t.Context(), dir, inv, JoinOptions{Name: "laptop"})
	if err != nil || again != j {
		t.Errorf("again: %+v, %v; want %+v", again, err, j)
	}
}

func TestJoinRefused(t *testing.T) {
	e := newFakeEdge(t)
	for _, code := range []string{control.CodeInviteUsed, control.CodeInviteRevoked, control.CodeInviteExpired, control.CodeKeyKnown} {
		e.order(func() { e.refuseEnroll = &control.Error{Code: code, Message: "because of " + code} })
		dir := testDir(t)
		_, err := Join(t.Context(), dir, e.invite(), JoinOptions{})
		if control.CodeOf(err) != code || !strings.Contains(err.Error(), "because of "+code) {
			t.Errorf("%s: got %v", code, err)
		}
		if _, err := ReadStatus(t.Context(), dir); !errors.Is(err, ErrNotJoined) {
			t.Errorf("%s left the state joined: %v", code, err)
		}
	}
}

func TestJoinExpiredHere(t *testing.T) {
	inv := keys.Invite{Expires: time.Now().Add(-time.Minute)}
	dir := testDir(t)
	_, err := Join(t.Context(), dir, inv, JoinOptions{})
	if control.CodeOf(err) != control.CodeInviteExpired || !strings.Contains(err.Error(), "clock") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir.Path(keyFile)); err == nil {
		t.Error("an expired invite made a key")
	}
}

func TestJoinOtherOverlay(t *testing.T) {
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	before, err := dir.ReadFile(edgesFile)
	if err != nil {
		t.Fatal(err)
	}
	inv := e.invite()
	inv.Overlay = netip.MustParsePrefix("fd99:9999:9999::/48")
	if _, err := Join(t.Context(), dir, inv, JoinOptions{}); err == nil || !strings.Contains(err.Error(), "--state") || !strings.Contains(err.Error(), dir.String()) {
		t.Errorf("got %v", err)
	}
	if after, err := dir.ReadFile(edgesFile); err != nil || string(after) != string(before) {
		t.Errorf("edges.json changed: %s, %v", after, err)
	}
}

// TestJoinAgainUpdatesEndpoint: an edge that moved is found again with any
// token of it.
func TestJoinAgainUpdatesEndpoint(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	e.mu.Lock()
	clear(e.agents) // as for a real edge: another invite, so not the same call again
	e.mu.Unlock()
	e.order(func() {
		e.refuseEnroll = &control.Error{Code: control.CodeKeyKnown, Message: "this key is agent laptop"}
	})
	inv := e.invite()
	inv.Edges[0].Endpoints = append(inv.Edges[0].Endpoints, keys.Endpoint{Kind: keys.EndpointUDP, Addr: "192.0.2.7:51820"})
	again, err := Join(t.Context(), dir, inv, JoinOptions{})
	if err != nil || again.Node != j.Node || again.Name != j.Name {
		t.Fatalf("got %+v, %v", again, err)
	}
	state, err := loadEdges(dir)
	if err != nil || len(state.Edges) != 1 || len(state.Edges[0].Endpoints) != 2 {
		t.Errorf("state %+v, %v", state, err)
	}
}

// TestJoinAfterRevocation: a revoked key is given up, and a new invite makes a
// new agent.
func TestJoinAfterRevocation(t *testing.T) {
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	old, err := keys.Load(dir.Path(keyFile))
	if err != nil {
		t.Fatal(err)
	}
	e.mu.Lock()
	clear(e.agents)
	e.revokedKey = old.Public()
	e.mu.Unlock()
	j, err := Join(t.Context(), dir, e.invite(), JoinOptions{Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.Load(dir.Path(keyFile))
	if err != nil {
		t.Fatal(err)
	}
	if key.Equal(old) {
		t.Error("the revoked key is still in use")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.agents[key.Public()].Node != j.Node {
		t.Error("the new key is not the agent's")
	}
}

func TestJoinUnreachable(t *testing.T) {
	e := newFakeEdge(t)
	inv := e.invite()
	// A socket that nobody answers on.
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	inv.Edges[0].Endpoints = []keys.Endpoint{{Kind: keys.EndpointUDP, Addr: silent.LocalAddr().String()}}
	_, err = Join(t.Context(), testDir(t), inv, JoinOptions{reach: 100 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), silent.LocalAddr().String()) || !strings.Contains(err.Error(), "UDP") || !strings.Contains(err.Error(), "revoked the invite") {
		t.Errorf("got %v", err)
	}

	// With a second endpoint that works, the first does no harm.
	inv.Edges[0].Endpoints = append(inv.Edges[0].Endpoints, e.self().Endpoints...)
	if _, err := Join(t.Context(), testDir(t), inv, JoinOptions{}); err != nil {
		t.Errorf("with a second endpoint: %v", err)
	}

	inv.Edges[0].Endpoints = []keys.Endpoint{{Kind: keys.EndpointUDP, Addr: "edge.invalid:51820"}}
	_, err = Join(t.Context(), testDir(t), inv, JoinOptions{reach: 100 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "edge.invalid") {
		t.Errorf("unknown name: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Join(ctx, testDir(t), e.invite(), JoinOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestReachWithoutTime: however short the time was, there is something to say.
func TestReachWithoutTime(t *testing.T) {
	e := newFakeEdge(t)
	key, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	n, err := openNode(key, e.overlay.NodeAddr(300), Reach{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	n.resolver = func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		<-ctx.Done() // name servers that do not answer
		return nil, ctx.Err()
	}
	for _, addr := range []string{"edge.invalid:51820", e.addr.String()} {
		edge := e.self()
		edge.Endpoints[0].Addr = addr
		for _, timeout := range []time.Duration{0, time.Nanosecond, time.Millisecond} {
			if err := n.reach(t.Context(), edge, timeout); err == nil || err.Error() == "" {
				t.Errorf("%s in %v: %v", addr, timeout, err)
			}
		}
		if err := n.reach(t.Context(), edge, 100*time.Millisecond); err == nil || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestJoinBusy(t *testing.T) {
	e := newFakeEdge(t)
	dir := testDir(t)
	lock, err := dir.Lock(joinLock)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if _, err := Join(t.Context(), dir, e.invite(), JoinOptions{}); err == nil || !strings.Contains(err.Error(), "another") {
		t.Errorf("got %v", err)
	}
}

func TestStateOfNewerVersion(t *testing.T) {
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	data, err := dir.ReadFile(edgesFile)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(data), `"version": 1`, `"version": 2`, 1)
	if err := dir.WriteFile(edgesFile, []byte(newer)); err != nil {
		t.Fatal(err)
	}
	var ve *statedir.VersionError
	if err := Run(t.Context(), Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "8089")}}); !errors.As(err, &ve) || ve.Found != 2 {
		t.Errorf("Run: %v", err)
	}
	if _, err := Join(t.Context(), dir, e.invite(), JoinOptions{}); !errors.As(err, &ve) {
		t.Errorf("Join: %v", err)
	}
	if after, err := dir.ReadFile(edgesFile); err != nil || string(after) != newer {
		t.Errorf("the newer file was rewritten: %s, %v", after, err)
	}
	if err := dir.WriteFile(edgesFile, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "8089")}}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged: %v", err)
	}
}

func FuzzLoadEdges(f *testing.F) {
	f.Add([]byte(`{"version":1,"node":300,"name":"laptop","overlay":"fd12:3456:789a::/48","domain":"example.com","edges":[{"key":"YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=","node":1,"endpoints":[{"kind":"udp","addr":"192.0.2.1:51820"}]}]}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	dir := testDir(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(dir.Path(edgesFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := loadEdges(dir)
		if err != nil {
			return
		}
		if s.joined().Edge == "" || s.Node == 0 {
			t.Fatalf("accepted %q as %+v", data, s)
		}
	})
}
