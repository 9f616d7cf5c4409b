package agent

import (
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/tunnel"
)

func TestRun(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	up := listen(t)
	echo(t, up, "app")
	r := start(t, Config{Dir: dir, Version: "v1", Tunnels: []Tunnel{httpTunnel("app", up.Addr().String())}})

	if ev, _ := r.link(0, LinkConnecting); ev.Edge != e.addr.String() || ev.Transport != "udp" {
		t.Errorf("link event %+v", ev)
	}
	_, n := r.link(0, LinkUp)
	ev, n := r.tunnel(n, "app", TunnelUp)
	if want := "http://" + up.Addr().String(); ev.PublicURL != "https://app.example.com" || ev.Upstream != want || ev.Kind != tunnel.HTTP || ev.Error != nil {
		t.Errorf("tunnel event %+v", ev)
	}
	specs := e.published(j.Node, "app")
	c, err := e.dial(t.Context(), netipVisitor, e.overlay.TunnelAddr(j.Node, specs[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c, "app")

	st, err := ReadStatus(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if !st.Running || st.Version != "v1" || len(st.Links) != 1 || st.Links[0].State != LinkUp || len(st.Tunnels) != 1 {
		t.Fatalf("status %+v", st)
	}
	if ts := st.Tunnels[0]; ts.Name != "app" || ts.State != TunnelUp || ts.PublicURL != "https://app.example.com" || ts.Connections != 1 {
		t.Errorf("tunnel status %+v", ts)
	}
	c.Close()

	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	e.published(j.Node)
	if ev, _ := r.tunnel(n, "app", TunnelGone); ev.PublicURL != "" {
		t.Errorf("gone with a URL: %+v", ev)
	}
	if st, err := ReadStatus(t.Context(), dir); err != nil || st.Running {
		t.Errorf("status after the end: %+v, %v", st, err)
	}
}

// TestGeneratedName: events and status have the name that the edge chose; the
// wish stays open, so that the edge knows its own choice again.
func TestGeneratedName(t *testing.T) {
	t.Parallel() // it waits for the silence
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("", "8089")}})
	ev, n := r.tunnel(0, "brave-otter-0", TunnelUp)
	if ev.PublicURL != "https://brave-otter-0.example.com" {
		t.Errorf("event %+v", ev)
	}
	first := e.published(j.Node, "")
	e.stop()
	e.start()
	r.tunnel(n, "brave-otter-0", TunnelUp)
	if again := e.published(j.Node, ""); again[0] != first[0] {
		t.Errorf("published %+v, then %+v", first[0], again[0])
	}
}

func TestRevoked(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	r := start(t, Config{Dir: dir, Keep: true, Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	r.tunnel(0, "app", TunnelUp)
	e.say(j.Node, control.ServerEvent{Type: control.EventRevoked, Message: "revoked by the owner"})
	if err := r.wait(); control.CodeOf(err) != control.CodeRevoked {
		t.Errorf("Run: %v", err)
	}
	if ev, _ := r.link(0, LinkDown); !strings.Contains(ev.Reason, "revoked by the owner") {
		t.Errorf("link event %+v", ev)
	}

	// The edge does not answer it any more, so a later start knows by itself.
	err := Run(t.Context(), Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	if control.CodeOf(err) != control.CodeRevoked || !strings.Contains(err.Error(), "revoked by the owner") {
		t.Errorf("a later start: %v", err)
	}
	if st, err := ReadStatus(t.Context(), dir); err != nil || st.Revoked != "revoked by the owner" {
		t.Errorf("status: %+v, %v", st, err)
	}
}

// TestSuperseded: two machines with one key do not fight; the later one stays.
func TestSuperseded(t *testing.T) {
	t.Parallel() // it waits for the silence
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	_, n := r.tunnel(0, "app", TunnelUp)

	stolen := testDir(t) // a copy, as of a disk image
	for _, name := range []string{keyFile, edgesFile} {
		data, err := dir.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := stolen.WriteFile(name, data); err != nil {
			t.Fatal(err)
		}
	}
	second := start(t, Config{Dir: stolen, Tunnels: []Tunnel{httpTunnel("wiki", "8090")}})
	second.tunnel(0, "wiki", TunnelUp)
	e.published(j.Node, "wiki")
	// The copy has the way through WireGuard, so the first one cannot hear the
	// edge say so until it handshakes again; then the second one is told.
	var loser *running
	select {
	case <-r.done:
		loser = r
	case <-second.done:
		loser = second
	case <-time.After(patience):
		t.Fatal("both go on")
	}
	if control.CodeOf(loser.err) != control.CodeSuperseded || !strings.Contains(loser.err.Error(), "key") {
		t.Errorf("Run: %v", loser.err)
	}
	_ = n
}

func TestRefusedTunnel(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	e.order(func() { e.taken["app"] = control.CodeNameTaken })

	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	err := r.wait()
	if control.CodeOf(err) != control.CodeNameTaken || !strings.Contains(err.Error(), "desk") {
		t.Errorf("alone: %v", err)
	}
	ev, _ := r.tunnel(0, "app", TunnelError)
	if ev.PublicURL != "" || ev.Error == nil || ev.Error.Code != control.CodeNameTaken {
		t.Errorf("event %+v", ev)
	}

	r = start(t, Config{Dir: dir, Keep: true, Tunnels: []Tunnel{httpTunnel("app", "8089"), httpTunnel("wiki", "8090")}})
	r.tunnel(0, "wiki", TunnelUp)
	r.tunnel(0, "app", TunnelError)
	if err := r.stop(); err != nil {
		t.Errorf("with a good one: %v", err)
	}
	e.published(j.Node)

	e.order(func() { e.taken["wiki"] = control.CodeNameTaken })
	r = start(t, Config{Dir: dir, Keep: true, Tunnels: []Tunnel{httpTunnel("app", "8089"), httpTunnel("wiki", "8090")}})
	if err := r.wait(); control.CodeOf(err) != control.CodeNameTaken {
		t.Errorf("with no good one: %v", err)
	}
}

// TestRefusedAfterUp: a tunnel that has served is not given up, though an edge
// that was started again has something else on its port, say.
func TestRefusedAfterUp(t *testing.T) {
	t.Parallel() // it waits for the silence
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	_, n := r.tunnel(0, "app", TunnelUp)
	e.stop()
	e.order(func() { e.taken["app"] = control.CodePortTaken })
	e.start()
	ev, n := r.tunnel(n, "app", TunnelError)
	if ev.Error == nil || ev.Error.Code != control.CodePortTaken {
		t.Errorf("event %+v", ev)
	}
	e.stop()
	e.order(func() { delete(e.taken, "app") })
	e.start()
	r.tunnel(n, "app", TunnelUp)
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestEdgeBusy: an error that passes is no reason to give up.
func TestEdgeBusy(t *testing.T) {
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	e.order(func() { e.refusePublish = &control.Error{Code: control.CodeUnavailable, Message: "stopping"} })
	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	r.link(0, LinkUp)
	e.mu.Lock()
	e.refusePublish = nil
	e.mu.Unlock()
	r.tunnel(0, "app", TunnelUp)
}

// TestPendingCertificate: a tunnel whose certificate is on its way has no
// public address yet, and gets it without anybody starting again.
func TestPendingCertificate(t *testing.T) {
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	e.order(func() { e.taken["app"] = control.CodeCertificatePending })
	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	ev, _ := r.tunnel(0, "app", TunnelError)
	if ev.PublicURL != "" || ev.Error == nil || ev.Error.Code != control.CodeCertificatePending {
		t.Errorf("event %+v", ev)
	}
	e.order(func() { delete(e.taken, "app") })
	if ev, _ = r.tunnel(0, "app", TunnelUp); ev.PublicURL == "" {
		t.Errorf("event %+v", ev)
	}
}

// TestDrain: connections that run may finish; new ones are refused and the
// edge knows that the tunnel is gone.
func TestDrain(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	up := listen(t)
	echo(t, up, "app")
	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{tcpTunnel("app", up.Addr().String())}})
	r.tunnel(0, "app", TunnelUp)
	addr := e.overlay.TunnelAddr(j.Node, e.published(j.Node, "app")[0].ID)
	c, err := e.dial(t.Context(), netipVisitor, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	talk(t, c, "app")
	r.cancel()
	r.tunnel(0, "app", TunnelGone)
	e.published(j.Node)
	if c, err := e.dial(t.Context(), netipVisitor, addr); err == nil {
		c.Close()
		t.Error("a new connection was served during the drain")
	}
	if _, err := c.Write([]byte("polo\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := readFull(c, b); err != nil || string(b) != "polo\n" {
		t.Errorf("during the drain: %q, %v", b, err)
	}
	select {
	case <-r.done:
		t.Error("Run ended before its connection")
	default:
	}
	c.Close()
	if err := r.wait(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestDrainEnds: a connection that never ends does not keep Run.
func TestDrainEnds(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	up := listen(t)
	echo(t, up, "app")
	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{tcpTunnel("app", up.Addr().String())}, drain: 100 * time.Millisecond})
	r.tunnel(0, "app", TunnelUp)
	c, err := e.dial(t.Context(), netipVisitor, e.overlay.TunnelAddr(j.Node, e.published(j.Node, "app")[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	talk(t, c, "app")
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the visitor's connection was not aborted: %v", err)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestRunNotJoined(t *testing.T) {
	err := Run(t.Context(), Config{Dir: testDir(t), Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	if !errors.Is(err, ErrNotJoined) || !strings.Contains(err.Error(), "wgexpose join") {
		t.Errorf("got %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	dir := testDir(t)
	port := func(name string, n uint16) Tunnel {
		tun := tcpTunnel(name, "22")
		tun.Port = n
		return tun
	}
	proxied := httpTunnel("app", "8089")
	proxied.ProxyProtocol = 1
	third := tcpTunnel("ssh", "22")
	third.ProxyProtocol = 3
	for name, tc := range map[string]struct {
		cfg  Config
		want string // in the error
	}{
		"no dir":        {Config{Tunnels: []Tunnel{httpTunnel("app", "8089")}}, "state directory"},
		"no tunnels":    {Config{Dir: dir}, "no tunnels"},
		"bad name":      {Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("Not A Label", "8089")}}, "Not A Label"},
		"bad upstream":  {Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "ftp://x")}}, "ftp"},
		"name twice":    {Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "1"), httpTunnel("app", "2")}}, `"app"`},
		"port twice":    {Config{Dir: dir, Tunnels: []Tunnel{port("a", 7), port("b", 7)}}, "port 7"},
		"PROXY on http": {Config{Dir: dir, Tunnels: []Tunnel{proxied}}, "X-Forwarded-For"},
		"PROXY v3":      {Config{Dir: dir, Tunnels: []Tunnel{third}}, "version 3"},
	} {
		if err := tc.cfg.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "1"), httpTunnel("", "1"), httpTunnel("", "1"), port("a", 0), port("b", 0)}}).Validate(); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

// TestEventJSON holds the --json output to its documented form.
func TestEventJSON(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		event Event
		want  string
	}{
		{
			Event{Time: at, Event: EventLink, Edge: "192.0.2.1:51820", State: LinkDegraded, Reason: "silence", Transport: "udp"},
			`{"time":"2030-01-02T03:04:05Z","event":"link","edge":"192.0.2.1:51820","state":"degraded","reason":"silence","transport":"udp"}`,
		}, {
			Event{Time: at, Event: EventTunnel, Name: "app", Kind: tunnel.HTTP, State: TunnelUp, PublicURL: "https://app.example.com", Upstream: "http://127.0.0.1:8089"},
			`{"time":"2030-01-02T03:04:05Z","event":"tunnel","name":"app","kind":"http","state":"up","public_url":"https://app.example.com","upstream":"http://127.0.0.1:8089"}`,
		}, {
			Event{Time: at, Event: EventTunnel, Name: "app", Kind: tunnel.HTTP, State: TunnelError, Upstream: "http://127.0.0.1:8089", Error: &control.Error{Code: "name_taken", Message: "m"}},
			`{"time":"2030-01-02T03:04:05Z","event":"tunnel","name":"app","kind":"http","state":"error","upstream":"http://127.0.0.1:8089","error":{"code":"name_taken","message":"m"}}`,
		},
	} {
		got, err := json.Marshal(tc.event)
		if err != nil || string(got) != tc.want {
			t.Errorf("got  %s, %v\nwant %s", got, err, tc.want)
		}
	}
}
