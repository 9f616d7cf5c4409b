package agent

import (
	"strings"
	"testing"
)

// TestReconnect: an edge that crashes and comes back has the tunnels again,
// the agent untouched.
func TestReconnect(t *testing.T) {
	t.Parallel() // it waits for the silence
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	up := listen(t)
	echo(t, up, "app")
	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{tcpTunnel("app", up.Addr().String())}})
	_, n := r.tunnel(0, "app", TunnelUp)
	before := e.published(j.Node, "app")

	e.stop()
	ev, n := r.link(n, LinkDegraded)
	if ev.Reason == "" {
		t.Error("no reason given")
	}
	if st, err := ReadStatus(t.Context(), dir); err != nil || st.Tunnels[0].State != TunnelAway || st.Tunnels[0].PublicURL != "" {
		t.Errorf("status without a link: %+v, %v", st, err)
	}
	e.mu.Lock()
	clear(e.specs)
	e.mu.Unlock()
	e.start()
	_, n = r.link(n, LinkUp)
	r.tunnel(n, "app", TunnelUp)
	if after := e.published(j.Node, "app"); after[0] != before[0] {
		t.Errorf("published %+v, then %+v", before[0], after[0])
	}
	c, err := e.dial(t.Context(), netipVisitor, e.overlay.TunnelAddr(j.Node, before[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	talk(t, c, "app")
}

// TestEdgeRestarts: an edge that calls its agents when it starts need not wait
// for them to miss it.
func TestEdgeRestarts(t *testing.T) {
	t.Parallel()
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	_, n := r.tunnel(0, "app", TunnelUp)
	before := e.published(j.Node, "app")
	e.remember()
	e.stop()
	e.mu.Lock()
	clear(e.specs)
	e.mu.Unlock()
	e.start()
	ev, n := r.link(n, LinkDegraded)
	if !strings.Contains(ev.Reason, "restarted") {
		t.Errorf("reason %q", ev.Reason)
	}
	_, n = r.link(n, LinkUp)
	r.tunnel(n, "app", TunnelUp)
	if after := e.published(j.Node, "app"); after[0] != before[0] {
		t.Errorf("published %+v, then %+v", before[0], after[0])
	}
}

// TestStreamBreaks: when only the event stream ends, the agent is back at once
// and does not wait for a silence.
func TestStreamBreaks(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	r := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	_, n := r.tunnel(0, "app", TunnelUp)
	for range 3 {
		e.mu.Lock()
		s := e.sessions[j.Node]
		e.mu.Unlock()
		close(s.end) // a handler that returns
		ev, m := r.link(n, LinkDegraded)
		if strings.Contains(ev.Reason, "nothing heard") {
			t.Errorf("reason %q", ev.Reason)
		}
		_, n = r.tunnel(m, "app", TunnelUp)
	}
}

// TestReconnectBesideConnections: connections of visitors give the stack more
// addresses, and the agent still calls its edge from its own.
func TestReconnectBesideConnections(t *testing.T) {
	e := newFakeEdge(t)
	up := listen(t)
	echo(t, up, "app")
	r, addr, j := serving(t, e, Config{Tunnels: []Tunnel{tcpTunnel("app", up.Addr().String())}})
	c, err := e.dial(t.Context(), netipVisitor, addr["app"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	talk(t, c, "app")
	n := 0
	for range 5 {
		e.mu.Lock()
		s := e.sessions[j.Node]
		e.mu.Unlock()
		close(s.end)
		_, n = r.link(n, LinkDegraded)
		ev, m := r.await(n, "link", func(ev Event) bool { return ev.Event == EventLink })
		if n = m; ev.State != LinkUp {
			t.Fatalf("link %s: %s", ev.State, ev.Reason)
		}
		r.tunnel(n, "app", TunnelUp)
	}
	if _, err := c.Write([]byte("polo\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := readFull(c, b); err != nil || string(b) != "polo\n" {
		t.Errorf("the connection did not survive: %q, %v", b, err)
	}
}
