package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
	"github.com/wgexpose/wgexpose/wg"
)

func openDir(t *testing.T) *statedir.Dir {
	t.Helper()
	d, err := statedir.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// someFacts are those of a running edge with one agent that is up.
type someFacts struct {
	since time.Time
	peers map[keys.Public]wg.PeerStatus
	size  int
}

func (someFacts) appliedRevision(context.Context, store.Revision) error { return nil }
func (f someFacts) agentState(tunnel.NodeID) (bool, time.Time)          { return true, f.since }
func (someFacts) upstream(_ tunnel.NodeID, id tunnel.ID) string         { return "" }
func (f someFacts) mtu(tunnel.NodeID) int                               { return f.size }
func (f someFacts) peerStates() (map[keys.Public]wg.PeerStatus, error)  { return f.peers, nil }

// serveAdmin serves w's admin on the socket of a new state directory.
func serveAdmin(t *testing.T, w *world) *statedir.Dir {
	t.Helper()
	dir := openDir(t)
	l, err := dir.ListenUnix(socketFile)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&adminServer{admin: w.admin, log: slog.New(slog.DiscardHandler)}).serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Over the socket there is the same to see and to do as over the store.
func TestAdminOverSocket(t *testing.T) {
	w := newWorld(t)
	node := w.agent("laptop")
	w.publish(node, web(1, "app"), tcp(2, "ssh", 20000))
	w.publish(node, web(1, "app"))
	key := w.snap().nodes[node].Value.Key
	w.admin.live = someFacts{since: w.now, size: 1436, peers: map[keys.Public]wg.PeerStatus{key: {Key: key, RxBytes: 11, TxBytes: 22}}}
	ctx := t.Context()
	a, err := OpenAdmin(ctx, serveAdmin(t, w))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, ok := a.(*socketAdmin); !ok {
		t.Fatalf("got %T", a)
	}
	invite, err := a.Invite(ctx, InviteOptions{Name: "nas", Uses: 3, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if i, err := keys.ParseInvite(invite.Token); err != nil || store.InviteID(i.Key.Public()) != invite.ID || !i.Expires.Equal(invite.Expires) {
		t.Errorf("invite %+v, %v", invite, err)
	}
	agents, err := a.Agents(ctx)
	if err != nil || len(agents) != 1 {
		t.Fatalf("agents %+v, %v", agents, err)
	}
	if g := agents[0]; g.Name != "laptop" || g.State != StateUp || !g.Since.Equal(w.now) || g.MTU != 1436 || g.Rx != 11 || g.Tx != 22 || g.Tunnels != 1 {
		t.Errorf("agent %+v", g)
	}
	tunnels, err := a.Tunnels(ctx)
	if want := []TunnelRow{
		{Name: "app", Kind: tunnel.HTTP, PublicURL: "https://app.example.com", Agent: "laptop", Upstream: "http://127.0.0.1:8089", State: StateUp},
		{Name: "ssh", Kind: tunnel.TCP, PublicURL: "tcp://example.com:20000", Agent: "laptop", Upstream: "tcp://127.0.0.1:22", State: StateReserved},
	}; err != nil || !reflect.DeepEqual(tunnels, want) {
		t.Errorf("tunnels %+v, %v", tunnels, err)
	}
	var r *Refusal
	if err := a.Release(ctx, "app"); !errors.As(err, &r) || r.Code != RefusedInUse || !strings.Contains(r.Message, "laptop") {
		t.Errorf("release what is served: %v", err)
	}
	if err := a.Release(ctx, "ssh"); err != nil {
		t.Error(err)
	}
	if err := a.RevokeInvite(ctx, invite.ID); err != nil {
		t.Error(err)
	}
	if err := a.RevokeInvite(ctx, invite.ID); err != nil {
		t.Errorf("again: %v", err)
	}
	invites, err := a.Invites(ctx)
	if err != nil || len(invites) != 2 {
		t.Fatalf("invites %+v, %v", invites, err)
	}
	states := map[string]InviteRow{}
	for _, i := range invites {
		states[i.State] = i
	}
	if i := states[StateRevoked]; i.ID != invite.ID || i.Name != "nas" || i.Uses != 3 || i.Used != 0 {
		t.Errorf("revoked invite %+v", i)
	}
	if i := states[StateUsed]; len(i.Agents) != 1 || i.Agents[0] != "laptop" {
		t.Errorf("used invite %+v", i)
	}
	if err := a.Revoke(ctx, "laptop"); err != nil {
		t.Error(err)
	}
	if err := a.Revoke(ctx, "laptop"); !errors.As(err, &r) || r.Code != RefusedNotFound {
		t.Errorf("revoke again: %v", err)
	}
}

func TestAdminSocketRefusesWhatItDoesNotKnow(t *testing.T) {
	w := newWorld(t)
	dir := serveAdmin(t, w)
	client := newSocketAdmin(dir)
	defer client.Close()
	var r *Refusal
	if err := client.call(t.Context(), http.MethodGet, "nonsense", nil, &done{}); !errors.As(err, &r) || r.Code != RefusedNotFound {
		t.Errorf("unknown call: %v", err)
	}
	for _, body := range []string{"", "{", `{"name":` + strings.Repeat(" ", maxAdminRequest) + `"x"}`} {
		resp, err := client.client.Post("http://edge/v1/revoke", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%.20q: status %s", body, resp.Status)
		}
	}
}

// An answer that this version does not understand is an error, never a success.
func TestAdminClientDistrusts(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull, not rows",
		"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}",
		"HTTP/1.1 422 No\r\nContent-Length: 5\r\n\r\n<xml>",
		"SSH-2.0-OpenSSH\r\n",
	} {
		dir := openDir(t)
		l, err := dir.ListenUnix(socketFile)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			buf := make([]byte, 4096)
			if _, err := c.Read(buf); err == nil {
				io.WriteString(c, answer)
			}
		}()
		client := newSocketAdmin(dir)
		if strings.Contains(answer, "200") {
			_, err = client.Invite(t.Context(), InviteOptions{})
		} else {
			_, err = client.Agents(t.Context())
		}
		if err == nil {
			t.Errorf("%q is taken as a success", answer)
		}
		client.Close()
		l.Close()
	}
}

func TestOpenAdminWithTheEdgeStopped(t *testing.T) {
	ctx := t.Context()
	dir := openDir(t)
	if _, err := OpenAdmin(ctx, dir); err == nil || !strings.Contains(err.Error(), "wgexpose edge") {
		t.Errorf("without an edge: %v", err)
	}
	db, err := store.OpenBolt(dir.Path(dbFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := bootstrap(ctx, db, newKey(t).Public(), "example.com", time.Now().UTC()); err != nil {
		t.Fatal(err)
	}
	// Never served: an invite could not say where the edge is.
	never := &storeAdmin{store: db}
	var r *Refusal
	if _, err := never.Invite(ctx, InviteOptions{}); !errors.As(err, &r) || r.Code != RefusedNotRunning {
		t.Errorf("invite: %v", err)
	}
	if err := saveServing(ctx, db, serving{Endpoint: "192.168.1.7:51820", Scheme: "https", Port: 443}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	a, err := OpenAdmin(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	i, err := a.Invite(ctx, InviteOptions{})
	if err != nil || !strings.Contains(i.Warning, "192.168.1.7") {
		t.Errorf("invite: %+v, %v", i, err)
	}
	if rows, err := a.Invites(ctx); err != nil || len(rows) != 1 || rows[0].State != StateOpen {
		t.Errorf("invites: %+v, %v", rows, err)
	}
	if rows, err := a.Agents(ctx); err != nil || rows == nil || len(rows) != 0 {
		t.Errorf("agents: %#v, %v", rows, err)
	}
	// An edge that starts meanwhile waits for the command to end.
	opened := make(chan error, 1)
	go func() {
		db, err := openStore(ctx, dir)
		if err == nil {
			err = db.Close()
		}
		opened <- err
	}()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

// A socket that nobody listens on any more is no edge.
func TestOpenAdminIgnoresAStaleSocket(t *testing.T) {
	dir := openDir(t)
	l, err := dir.ListenUnix(socketFile)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := OpenAdmin(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "no edge in "+fmt.Sprint(dir)) {
		t.Errorf("got %v", err)
	}
}

func (f someFacts) report(st *Status) { st.Running = true }
