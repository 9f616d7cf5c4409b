package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/tunnel"
)

func TestSlept(t *testing.T) {
	for _, c := range []struct {
		wall, mono time.Duration
		want       bool
	}{
		{time.Second, time.Second, false},
		{1900 * time.Millisecond, 1900 * time.Millisecond, false}, // a busy machine
		{5 * time.Minute, time.Second, true},                      // suspended
		{5 * time.Minute, 5 * time.Minute, true},                  // stopped
		{-time.Hour, time.Second, false},                          // the clock was set back
		{time.Second + 200*time.Millisecond, time.Second, false},  // and corrected
	} {
		if got := slept(c.wall, c.mono); got != c.want {
			t.Errorf("slept(%v, %v) = %v", c.wall, c.mono, got)
		}
	}
}

// invited is a node with an invite's key, which e knows.
func invited(t *testing.T, e *fakeEdge) (*node, keys.Edge) {
	t.Helper()
	inv := e.invite()
	n, err := openNode(inv.Key, e.overlay.NodeAddr(tunnel.NodeID(inv.Node)), Reach{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	return n, inv.Edges[0]
}

// Only what changes the way to the edge is news.
func TestMonitorNudges(t *testing.T) {
	e := newFakeEdge(t)
	n, edge := invited(t, e)
	if err := n.reach(t.Context(), edge, patience); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	addrs := make(chan netip.Addr, 1)
	addrs <- netip.MustParseAddr("192.0.2.1")
	changes := make(chan struct{})
	m := &monitor{
		node: n, edge: edge.Key,
		watch: func(ctx context.Context, changed func()) error {
			for {
				select {
				case <-changes:
					changed()
				case <-ctx.Done():
					return nil
				}
			}
		},
		source: func(to netip.AddrPort) netip.Addr {
			if to != e.addr {
				t.Errorf("asked about %v, want %v", to, e.addr)
			}
			return <-addrs
		},
	}
	n.found = m.found
	if err := n.reach(t.Context(), edge, patience); err != nil { // notes the first of addrs
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); m.run(ctx) }()
	nudged := func(addr string) bool {
		t.Helper()
		a, _ := netip.ParseAddr(addr)
		addrs <- a
		changes <- struct{}{}
		// The next call is taken when this one is over.
		addrs <- a
		changes <- struct{}{}
		select {
		case reason := <-n.nudges:
			return reason == reasonNetwork
		default:
			return false
		}
	}
	for _, step := range []struct {
		addr string
		want bool
	}{{"192.0.2.1", false}, {"", true}, {"192.0.2.2", true}, {"192.0.2.2", false}, {"", true}, {"192.0.2.2", true}} {
		if got := nudged(step.addr); got != step.want {
			t.Errorf("now %q: nudged %v", step.addr, got)
		}
	}
	cancel()
	<-done
}

func TestSourceFor(t *testing.T) {
	if got := sourceFor(netip.MustParseAddrPort("127.0.0.1:9")); got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("to this machine: from %v", got)
	}
}

// The edge's name has several addresses, of which one answers, and moves.
func TestReachFollowsTheName(t *testing.T) {
	e := newFakeEdge(t)
	n, edge := invited(t, e)
	hole, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2), Port: int(e.addr.Port())})
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	_, port, err := net.SplitHostPort(e.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	edge.Endpoints = []keys.Endpoint{{Kind: keys.EndpointUDP, Addr: net.JoinHostPort("edge.example", port)}}
	answers := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")}
	n.resolver = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if host != "edge.example" {
			t.Errorf("looked up %q", host)
		}
		return answers, nil
	}
	if err := n.reach(t.Context(), edge, patience); err != nil {
		t.Fatal(err)
	}
	p, err := n.peer(edge.Key)
	if err != nil || p.Endpoint != e.addr {
		t.Errorf("reached at %v, %v", p.Endpoint, err)
	}

	// A resolver that does not answer any more does not matter.
	n.resolver = func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := n.reach(t.Context(), edge, patience); err != nil {
		t.Errorf("without a resolver: %v", err)
	}
	// It moves to where nobody is.
	n.resolver = func(context.Context, string, string) ([]netip.Addr, error) { return answers[1:2], nil }
	var unreachable *unreachableError
	if err := n.reach(t.Context(), edge, time.Second); !errors.As(err, &unreachable) || !slices.Contains(unreachable.tried, "127.0.0.2:"+port) {
		t.Errorf("moved away: %v", err)
	}
}

// There is no network at first, so there is no address either; when there is
// one, nothing is waited for.
func TestReachWithoutNetwork(t *testing.T) {
	e := newFakeEdge(t)
	n, edge := invited(t, e)
	edge.Endpoints[0].Addr = net.JoinHostPort("edge.example", edge.Endpoints[0].Addr[len("127.0.0.1:"):])
	up := make(chan struct{})
	tried := make(chan struct{}, 64)
	n.resolver = func(context.Context, string, string) ([]netip.Addr, error) {
		select {
		case <-up:
			return []netip.Addr{e.addr.Addr()}, nil
		default:
			tried <- struct{}{}
			return nil, &net.DNSError{Err: "no network", Name: "edge.example"}
		}
	}
	done := make(chan error, 1)
	go func() { done <- n.reach(t.Context(), edge, patience) }()
	for range 3 { // the third round would wait for 2 s
		<-tried
	}
	close(up)
	n.nudge(reasonNetwork)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
