package agent

import (
	"net"
	"runtime"
	"strings"
	"testing"
)

// TestUpstreamIsLookedAfter: that an upstream is down, and back, is told without
// any visitor, with what is there instead.
func TestUpstreamIsLookedAfter(t *testing.T) {
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	up := listen(t)
	addr := up.Addr().String()
	up.Close()
	a := start(t, Config{Dir: dir, Health: true, Tunnels: []Tunnel{tcpTunnel("app", addr)}})
	down, next := a.await(0, "the upstream is down", func(e Event) bool { return e.Name == "app" && e.State == TunnelError && e.PublicURL != "" })
	if !strings.Contains(down.Error.Message, "refused by "+addr) {
		t.Errorf("%+v", down.Error)
	}
	if runtime.GOOS == "linux" && down.Hint == "" {
		t.Error("there is no hint")
	}
	again, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	back, next := a.await(next, "the upstream is back", func(e Event) bool { return e.Name == "app" && e.State == TunnelUp })
	if back.Hint != "" || back.Error != nil {
		t.Errorf("%+v", back)
	}
	again.Close()
	a.await(next, "the upstream is down once more", func(e Event) bool { return e.Name == "app" && e.State == TunnelError && e.PublicURL != "" })
}

// TestHint: the same port of the other family is what was meant, most likely.
func TestHint(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("who listens is known on Linux alone")
	}
	six, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6: ", err)
	}
	defer six.Close()
	_, port, err := net.SplitHostPort(six.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tun := tcpTunnel("app", "127.0.0.1:"+port)
	u, err := tun.dialled()
	if err != nil {
		t.Fatal(err)
	}
	s := newServed(nil, tun, u, nil, 0)
	_, failure := dialUpstream(t.Context(), u, "http/1.1", false)
	if failure == nil {
		t.Skip("somebody else has this port on 127.0.0.1")
	}
	if hint := s.hint(failure); hint != "port "+port+" is open on "+six.Addr().String()+": share that" {
		t.Errorf("%q", hint)
	}
}
