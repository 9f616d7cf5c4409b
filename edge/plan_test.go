package edge

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
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

// world is a real store with an edge that has served, and what plans need.
type world struct {
	t     *testing.T
	store store.Store
	admin *storeAdmin
	now   time.Time
	side  publicSide
	ports tunnel.PortRange
	busy  map[uint16]bool // ports that another program has
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := store.OpenBolt(filepath.Join(t.TempDir(), "edge.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w := &world{
		t: t, store: s, now: time.Now().UTC(),
		admin: &storeAdmin{store: s, close: func() error { return nil }},
		side:  publicSide{domain: "example.com", scheme: "https", port: 443},
		ports: tunnel.PortRange{First: 20000, Last: 20003},
		busy:  map[uint16]bool{},
	}
	if _, _, err := bootstrap(t.Context(), s, newKey(t).Public(), "example.com", w.now); err != nil {
		t.Fatal(err)
	}
	if err := saveServing(t.Context(), s, serving{Endpoint: "198.51.100.7:51820", Scheme: "https", Port: 443}); err != nil {
		t.Fatal(err)
	}
	return w
}

func newKey(t *testing.T) keys.Private {
	t.Helper()
	k, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (w *world) snap() *snapshot {
	w.t.Helper()
	s, err := readSnapshot(w.t.Context(), w.store)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) invite(opts InviteOptions) keys.Invite {
	w.t.Helper()
	r, err := w.admin.Invite(w.t.Context(), opts)
	if err != nil {
		w.t.Fatal(err)
	}
	i, err := keys.ParseInvite(r.Token)
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

func (w *world) enroll(ctx context.Context, i keys.Invite, key keys.Public, name string) (enrolled, error) {
	var got enrolled
	_, err := commit(ctx, w.store, func(snap *snapshot) (ops []store.Op, err error) {
		got, err = planEnroll(snap, tunnel.NodeID(i.Node), control.EnrollRequest{Key: key, Name: name}, w.now)
		return got.ops, err
	})
	return got, err
}

// agent joins a new agent.
func (w *world) agent(name string) tunnel.NodeID {
	w.t.Helper()
	got, err := w.enroll(w.t.Context(), w.invite(InviteOptions{}), newKey(w.t).Public(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return got.node
}

// publish commits the plan and returns its answers and how many operations it had.
func (w *world) publish(node tunnel.NodeID, specs ...tunnel.Spec) ([]control.Published, int) {
	w.t.Helper()
	var plan publishPlan
	_, err := commit(w.t.Context(), w.store, func(snap *snapshot) (ops []store.Op, err error) {
		plan, err = publisher{side: w.side, ports: w.ports, rand: rand.Reader, now: w.now, probe: func(port uint16) error {
			if w.busy[port] {
				return errors.New("address already in use")
			}
			return nil
		}}.plan(snap, node, specs)
		return plan.ops, err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return plan.answers, len(plan.ops)
}

func (w *world) publishOne(node tunnel.NodeID, spec tunnel.Spec) control.Published {
	w.t.Helper()
	got, _ := w.publish(node, spec)
	return got[0]
}

func web(id tunnel.ID, name string) tunnel.Spec {
	return tunnel.Spec{ID: id, Name: name, Kind: tunnel.HTTP, Upstream: "http://127.0.0.1:8089"}
}

func tcp(id tunnel.ID, name string, port uint16) tunnel.Spec {
	return tunnel.Spec{ID: id, Name: name, Kind: tunnel.TCP, Port: port, Upstream: "tcp://127.0.0.1:22"}
}

func wantURL(t *testing.T, got control.Published, url string) {
	t.Helper()
	if got.Error != nil || got.PublicURL != url {
		t.Fatalf("published %+v (%v), want %s", got, got.Error, url)
	}
}

func wantCode(t *testing.T, got control.Published, code string, words ...string) {
	t.Helper()
	if got.Error == nil || got.Error.Code != code || got.PublicURL != "" {
		t.Fatalf("published %+v (%v), want error %s", got, got.Error, code)
	}
	for _, w := range words {
		if !strings.Contains(got.Error.Message, w) {
			t.Errorf("message %q does not say %q", got.Error.Message, w)
		}
	}
}

func TestPublishHostNames(t *testing.T) {
	w := newWorld(t)
	a, b := w.agent("laptop"), w.agent("desktop")
	wantURL(t, w.publishOne(a, web(1, "app")), "https://app.example.com")
	wantCode(t, w.publishOne(b, web(7, "app")), control.CodeNameTaken, "app.example.com", "laptop")

	full := web(2, "x")
	full.Host = "other.example.com"
	wantURL(t, w.publishOne(a, full), "https://other.example.com")
	full.Host = "app.example.org"
	wantCode(t, w.publishOne(a, full), control.CodeNameInvalid, "app.example.org", "example.com")
	full.Host = "notexample.com"
	wantCode(t, w.publishOne(a, full), control.CodeNameInvalid)
	bad := web(3, "app")
	bad.HostHeader = "no host"
	wantCode(t, w.publishOne(a, bad), control.CodeBadRequest)

	// The name stays with the agent that does not ask for it now.
	wantCode(t, w.publishOne(b, web(7, "app")), control.CodeNameTaken, "laptop")

	// Two tunnels of one set cannot have one name; the first one has it.
	got, _ := w.publish(a, web(1, "app"), web(2, "app"))
	wantURL(t, got[0], "https://app.example.com")
	wantCode(t, got[1], control.CodeNameTaken)
}

func TestPublishPorts(t *testing.T) {
	w := newWorld(t)
	a, b := w.agent("laptop"), w.agent("desktop")
	wantURL(t, w.publishOne(a, tcp(1, "ssh", 20001)), "tcp://example.com:20001")
	wantCode(t, w.publishOne(b, tcp(1, "ssh", 20001)), control.CodePortTaken, "laptop", "20000-20003")
	wantCode(t, w.publishOne(b, tcp(1, "ssh", 22)), control.CodePortRange, "20000-20003")
	w.busy[20002] = true
	wantCode(t, w.publishOne(b, tcp(1, "ssh", 20002)), control.CodePortTaken, "20000-20003", "in use")

	// Chosen by the edge: what is left are 20000 and 20003, and then nothing.
	got, _ := w.publish(b, tcp(1, "a", 0), tcp(2, "b", 0), tcp(3, "c", 0))
	urls := []string{got[0].PublicURL, got[1].PublicURL}
	slices.Sort(urls)
	if !slices.Equal(urls, []string{"tcp://example.com:20000", "tcp://example.com:20003"}) {
		t.Fatalf("got %v", urls)
	}
	wantCode(t, got[2], control.CodePortTaken, "20000-20003")

	// Another process of the agent, with other ids, has the same ports for the
	// same names, in whatever order it asks.
	again, _ := w.publish(b, tcp(11, "b", 0), tcp(12, "a", 0))
	if again[0].PublicURL != got[1].PublicURL || again[1].PublicURL != got[0].PublicURL {
		t.Fatalf("got %+v, want the ports of %+v", again, got)
	}
	w.ports = tunnel.PortRange{}
	wantCode(t, w.publishOne(b, tcp(1, "z", 0)), control.CodePortRange, "no public TCP ports")
}

// Two tunnels with the same name (tcp-22 for two machines) keep apart by their
// upstreams.
func TestPublishSameNameTwoUpstreams(t *testing.T) {
	w := newWorld(t)
	a := w.agent("laptop")
	one, two := tcp(1, "tcp-22", 0), tcp(2, "tcp-22", 0)
	two.Upstream = "tcp://192.168.1.9:22"
	got, _ := w.publish(a, one, two)
	if got[0].PublicURL == got[1].PublicURL || got[0].Error != nil || got[1].Error != nil {
		t.Fatalf("got %+v", got)
	}
	one.ID, two.ID = 11, 12
	again, _ := w.publish(a, two, one)
	if again[0].PublicURL != got[1].PublicURL || again[1].PublicURL != got[0].PublicURL {
		t.Fatalf("got %+v, want the ports of %+v", again, got)
	}
}

func TestPublishGeneratedNames(t *testing.T) {
	w := newWorld(t)
	a, b := w.agent("laptop"), w.agent("desktop")
	first := w.publishOne(a, web(1, ""))
	if first.Error != nil || first.Name == "" || first.PublicURL != "https://"+first.Name+".example.com" {
		t.Fatalf("got %+v", first)
	}
	// The same upstream gets its name back, in another process and after a while away.
	w.publish(a)
	if got := w.publishOne(a, web(77, "")); got.PublicURL != first.PublicURL {
		t.Fatalf("got %s, want %s back", got.PublicURL, first.PublicURL)
	}
	// Beside it, and for another upstream or agent, there is another name.
	got, _ := w.publish(a, web(77, ""), web(78, ""))
	if got[0].PublicURL != first.PublicURL || got[1].Error != nil || got[1].PublicURL == first.PublicURL {
		t.Fatalf("got %+v", got)
	}
	// The order of the set does not matter while ids stay.
	got, _ = w.publish(a, web(78, ""), web(77, ""))
	if got[1].PublicURL != first.PublicURL {
		t.Fatalf("got %+v", got)
	}
	if other := w.publishOne(b, web(1, "")); other.PublicURL == first.PublicURL {
		t.Fatal("another agent got the name")
	}
	// Asked for by its name, it is no longer a generated one.
	wantURL(t, w.publishOne(a, web(79, first.Name)), first.PublicURL)
	if w.snap().publics[store.HTTPSKey(first.Name+".example.com")].Value.Generated {
		t.Error("the name would expire, though the agent asked for it")
	}
}

func TestPublishIsDeclarative(t *testing.T) {
	w := newWorld(t)
	a := w.agent("laptop")
	if _, ops := w.publish(a, web(1, "app"), tcp(2, "ssh", 0)); ops == 0 {
		t.Fatal("nothing was stored")
	}
	before := w.snap().rev
	if _, ops := w.publish(a, web(1, "app"), tcp(2, "ssh", 0)); ops != 0 || w.snap().rev != before {
		t.Errorf("the same set again made %d operations", ops)
	}
	w.publish(a, web(1, "app"))
	active := map[string]bool{}
	for _, p := range w.snap().publics {
		active[p.Value.Name] = p.Value.Active
	}
	if !active["app"] || active["ssh"] || len(active) != 2 {
		t.Errorf("active: %v, want app active and ssh reserved", active)
	}
	table, err := buildTable(w.snap(), w.snap().settings.Value.Overlay, w.side)
	if err != nil {
		t.Fatal(err)
	}
	e, ok := table.ByHost("app.example.com")
	if !ok || table.Len() != 1 {
		t.Fatalf("the table has %d entries", table.Len())
	}
	if want := netip.AddrPortFrom(w.snap().settings.Value.Overlay.TunnelAddr(a, 1), 1); e.Addr != want || e.Agent != "laptop" || e.PublicURL != "https://app.example.com" {
		t.Errorf("entry %+v, want address %v", e, want)
	}
}

func TestPublishLimits(t *testing.T) {
	w := newWorld(t)
	a := w.agent("laptop")
	specs := make([]tunnel.Spec, maxPublished+1)
	for i := range specs {
		specs[i] = web(tunnel.ID(i+1), fmt.Sprintf("a%d", i))
	}
	_, err := publisher{side: w.side, now: w.now}.plan(w.snap(), a, specs)
	if control.CodeOf(err) != control.CodeBadRequest {
		t.Errorf("error %v, want a refusal", err)
	}
	// A whole set of other names fits into one commit, and in the end the
	// agent holds no more than it may.
	held := 0
	for round := range 4 {
		for i := range specs {
			specs[i].Name = fmt.Sprintf("r%d-%d", round, i)
		}
		got, _ := w.publish(a, specs[:maxPublished]...)
		for _, p := range got {
			if p.Error == nil {
				held++
			}
		}
	}
	if held != maxReserved || len(w.snap().publics) != maxReserved {
		t.Errorf("the agent got %d names, and holds %d; want %d", held, len(w.snap().publics), maxReserved)
	}
}

func TestPublishURLs(t *testing.T) {
	for _, c := range []struct {
		side publicSide
		want string
	}{
		{publicSide{"example.com", "https", 443}, "https://a.example.com"},
		{publicSide{"example.com", "https", 8443}, "https://a.example.com:8443"},
		{publicSide{"example.com", "http", 80}, "http://a.example.com"},
		{publicSide{"example.com", "http", 443}, "http://a.example.com:443"},
	} {
		if got := c.side.hostURL("a.example.com"); got != c.want {
			t.Errorf("%+v: %s, want %s", c.side, got, c.want)
		}
	}
}

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
	expired.now = w.now.Add(defaultTTL)
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

func TestObserved(t *testing.T) {
	w := newWorld(t)
	a := w.agent("laptop")
	key := w.snap().nodes[a].Value.Key
	at := netip.MustParseAddrPort("203.0.113.9:4711")
	for _, c := range []struct {
		name   string
		status wg.PeerStatus
		ops    int
	}{
		{"never shaken hands", wg.PeerStatus{Key: key, Endpoint: at}, 0},
		{"unknown key", wg.PeerStatus{Key: newKey(t).Public(), Endpoint: at, LastHandshake: w.now}, 0},
		{"new", wg.PeerStatus{Key: key, Endpoint: at, LastHandshake: w.now}, 1},
		{"known", wg.PeerStatus{Key: key, Endpoint: at, LastHandshake: w.now}, 0},
		{"moved", wg.PeerStatus{Key: key, Endpoint: netip.MustParseAddrPort("203.0.113.9:4712"), LastHandshake: w.now}, 1},
	} {
		ops, err := planObserved(w.snap(), []wg.PeerStatus{c.status})
		if err != nil || len(ops) != c.ops {
			t.Errorf("%s: %d operations, %v; want %d", c.name, len(ops), err, c.ops)
		}
		if _, err := w.store.Commit(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.snap().nodes[a].Value; !n.Joined || n.Endpoint.Port() != 4712 {
		t.Errorf("node %+v", n)
	}
}

func TestSweep(t *testing.T) {
	w := newWorld(t)
	a, b := w.agent("laptop"), w.agent("desktop")
	generated := w.publishOne(a, web(1, ""))
	w.publish(a, web(1, ""), web(2, "app"))
	w.publish(b, web(1, ""))
	sweep := func(at time.Duration, up ...tunnel.NodeID) {
		t.Helper()
		ops, err := sweeper{
			now: w.now.Add(at), started: w.now, generated: 24 * time.Hour,
			up: func(id tunnel.NodeID) bool { return slices.Contains(up, id) },
		}.plan(w.snap())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.Commit(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	has := func(what string, invites, publics int) {
		t.Helper()
		if s := w.snap(); len(s.invites) != invites || len(s.publics) != publics {
			t.Fatalf("%s: %d invites and %d names, want %d and %d", what, len(s.invites), len(s.publics), invites, publics)
		}
	}
	sweep(23 * time.Hour)
	has("before anything is due", 2, 3)
	sweep(23*time.Hour+time.Minute, a, b) // both are here: seen again
	sweep(24*time.Hour + time.Minute)
	has("invites have their hour of grace", 2, 3)
	sweep(26*time.Hour, b)
	has("invites are gone", 0, 3)
	if s := w.snap(); len(s.byKey) != 3 {
		t.Errorf("%d keys are left, want those of the edge and the agents", len(s.byKey))
	}
	sweep(48*time.Hour, b)
	has("the name of the agent that is away is gone", 0, 2)
	if w.snap().publics[store.HTTPSKey(generated.Name+".example.com")].Revision != 0 {
		t.Error("the wrong name was swept")
	}
	// The edge was off for long: agents get their time to come back.
	ops, err := sweeper{now: w.now.Add(200 * time.Hour), started: w.now.Add(199 * time.Hour), generated: 24 * time.Hour,
		up: func(tunnel.NodeID) bool { return false }}.plan(w.snap())
	if err != nil || len(ops) != 0 {
		t.Errorf("after a pause: %v, %v", ops, err)
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
