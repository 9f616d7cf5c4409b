package agent

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/wgexpose/wgexpose/tunnel"
)

// TestUpdate: a new set takes the place of the old one in one step. What stays as
// it was keeps its connections, and so does what has only another policy.
func TestUpdate(t *testing.T) {
	for _, role := range []string{"owner", "guest"} {
		t.Run(role, func(t *testing.T) {
			e := newFakeEdge(t)
			dir, j := joined(t, e)
			var first *running
			others := []string{}
			if role == "guest" {
				first = start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("other", "8089")}})
				first.tunnel(0, "other", TunnelUp)
				others = append(others, "other")
			}
			names := func(more ...string) []string { return append(more, others...) }
			upstream := func(name string) Tunnel {
				l := listen(t)
				echo(t, l, name)
				return tcpTunnel(name, l.Addr().String())
			}
			same, policy, moved, removed := upstream("same"), upstream("policy"), upstream("moved"), upstream("removed")
			updates := make(chan []Tunnel)
			run := start(t, Config{Dir: dir, Keep: true, Tunnels: []Tunnel{removed, same, policy, moved}, Updates: updates})
			addrs := func(specs []tunnel.Spec) map[string]netip.Addr {
				m := make(map[string]netip.Addr)
				for _, s := range specs {
					m[s.Name] = e.overlay.TunnelAddr(j.Node, s.ID)
				}
				return m
			}
			before := addrs(e.published(j.Node, names("same", "policy", "moved", "removed")...))
			dial := func(to netip.Addr, greeting string) net.Conn {
				t.Helper()
				c, err := e.dial(t.Context(), netipVisitor, to)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				talk(t, c, greeting)
				return c
			}
			open := map[string]net.Conn{}
			for _, name := range []string{"same", "policy", "moved", "removed"} {
				run.tunnel(0, name, TunnelUp)
				open[name] = dial(before[name], name)
			}

			// What cannot be used changes nothing.
			updates <- []Tunnel{same, same}

			strict := policy
			strict.Policy = &tunnel.Policy{Deny: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
			l := listen(t)
			echo(t, l, "another")
			elsewhere := tcpTunnel("moved", l.Addr().String())
			added := upstream("added")
			n := run.seen()
			updates <- []Tunnel{same, strict, elsewhere, added}
			specs := e.published(j.Node, names("same", "policy", "moved", "added")...)
			after := addrs(specs)
			for _, s := range specs {
				if s.Name == "policy" && s.Policy == nil {
					t.Error("the edge was not told the policy")
				}
			}
			for name, kept := range map[string]bool{"same": true, "policy": true, "moved": false} {
				if (before[name] == after[name]) != kept {
					t.Errorf("%s: %v became %v", name, before[name], after[name])
				}
			}
			run.tunnel(n, "added", TunnelUp)
			run.tunnel(n, "removed", TunnelGone)
			dial(after["moved"], "another")
			dial(after["added"], "added")
			if c, err := e.dial(t.Context(), netipVisitor, before["removed"]); !errors.Is(err, syscall.ECONNREFUSED) {
				if err == nil {
					c.Close()
				}
				t.Errorf("what was removed: %v", err)
			}
			for _, name := range []string{"same", "policy"} {
				again(t, open[name])
			}
			for _, name := range []string{"moved", "removed"} { // they have their time to finish
				again(t, open[name])
				open[name].Close()
			}
			for _, ev := range run.told(n) {
				if ev.Event == EventTunnel && ev.State == TunnelGone && ev.Name != "removed" {
					t.Errorf("told %+v", ev)
				}
			}

			if first == nil {
				return
			}
			// The guest becomes the owner, of what it wants by now.
			if err := first.stop(); err != nil {
				t.Error(err)
			}
			e.published(j.Node, "same", "policy", "moved", "added")
			updates <- []Tunnel{same}
			e.published(j.Node, "same")
		})
	}
}

// TestUpdateTurns: whatever the order of updates and owners, the last set counts.
func TestUpdateTurns(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	updates := make(chan []Tunnel)
	owner := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("owner", "1")}})
	owner.tunnel(0, "owner", TunnelUp)
	guest := start(t, Config{Dir: dir, Keep: true, Tunnels: []Tunnel{httpTunnel("a", "1")}, Updates: updates})
	guest.tunnel(0, "a", TunnelUp)
	stopped := make(chan error, 1)
	go func() { stopped <- owner.stop() }()
	for _, name := range []string{"b", "c", "d", "e", "f"} {
		updates <- []Tunnel{httpTunnel("a", "1"), httpTunnel(name, "2")}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	e.published(j.Node, "a", "f")
	_, n := guest.tunnel(0, "f", TunnelUp)
	if err := guest.stop(); err != nil {
		t.Error(err)
	}
	guest.tunnel(n, "f", TunnelGone)
}
