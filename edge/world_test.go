package edge

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

// world is a real store with an edge that has served, and what plans need.
type world struct {
	t     testing.TB
	store store.Store
	admin *storeAdmin
	now   time.Time
	side  publicSide
	ports tunnel.PortRange
	busy  map[uint16]bool // ports that another program has

	outside map[string]*control.Error // what is wrong with names outside of the domain
}

func newWorld(t testing.TB) *world {
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

func newKey(t testing.TB) keys.Private {
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
	_, err := commit(ctx, w.store, nil, func(snap *snapshot) (ops []store.Op, err error) {
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
	_, err := commit(w.t.Context(), w.store, nil, func(snap *snapshot) (ops []store.Op, err error) {
		plan, err = publisher{side: w.side, ports: w.ports, rand: rand.Reader, now: w.now, probe: func(port uint16) error {
			if w.busy[port] {
				return errors.New("address already in use")
			}
			return nil
		}, domains: snap.nodes[node].Value.Domains, outside: w.outside}.plan(snap, node, specs)
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
