package harness_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/internal/harness"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/tunnel"
)

// noWay is for how long a packet that must not get through is waited for.
const noWay = 700 * time.Millisecond

// counted is a TCP server that counts its connections, and says "hello".
func counted(t testing.TB) (addr string, count *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	count = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	return l.Addr().String(), count
}

// An agent reaches the control API of the edge, and nothing else of the overlay.
func TestAgentReachesNobodyElse(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	upstream, hits := counted(t)
	victim := e.AddAgent("victim")
	mine := tunnel.ID(4711)
	target := harness.TCP("svc", upstream, 0)
	target.ID = mine
	url := victim.Publish(target).WaitUp("svc")
	if got, err := io.ReadAll(e.Dial(url)); err != nil || string(got) != "hello" {
		t.Fatalf("a visitor got %q, %v", got, err)
	}
	before := hits.Load()

	a := e.AddAgent("attacker")
	n := a.OpenNode()
	o := a.Overlay
	dial := func(from netip.AddrPort, to netip.Addr, port uint16) error {
		t.Helper()
		c, err := n.Dial(noWay, from, netip.AddrPortFrom(to, port))
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := dial(netip.AddrPort{}, o.NodeAddr(1), tunnel.ControlPort); err != nil {
		t.Fatalf("the control API: %v", err)
	}
	for name, to := range map[string]netip.AddrPort{
		"another agent":          netip.AddrPortFrom(o.NodeAddr(victim.Node), 80),
		"another's tunnel":       netip.AddrPortFrom(o.TunnelAddr(victim.Node, mine), tunnel.DialPort),
		"its own tunnels":        netip.AddrPortFrom(o.TunnelAddr(a.Node, mine), tunnel.DialPort),
		"the edge's other ports": netip.AddrPortFrom(o.NodeAddr(1), 22),
		"another edge":           netip.AddrPortFrom(o.NodeAddr(2), tunnel.ControlPort),
		"the edge's loopback":    netip.MustParseAddrPort("[64:ff9b::7f00:1]:22"),
		"the internet":           netip.MustParseAddrPort("[2001:db8::1]:80"),
	} {
		if err := dial(netip.AddrPort{}, to.Addr(), to.Port()); err == nil {
			t.Errorf("%s is reached at %v", name, to)
		}
	}
	// As somebody else: WireGuard drops what does not come from the node's own
	// prefix, so no answer can come.
	for name, from := range map[string]netip.Addr{
		"as another agent": o.NodeAddr(victim.Node),
		"as the edge":      o.NodeAddr(1),
		"as a visitor":     netip.MustParseAddr("64:ff9b::c633:6407"),
	} {
		if err := dial(netip.AddrPortFrom(from, 0), o.NodeAddr(1), tunnel.ControlPort); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want no answer", name, err)
		}
	}
	// From its own prefix but not as the node itself: the control API closes it unread.
	c, err := n.Dial(noWay, netip.AddrPortFrom(o.TunnelAddr(a.Node, 1), 0), netip.AddrPortFrom(o.NodeAddr(1), tunnel.ControlPort))
	if err == nil {
		c.SetDeadline(time.Now().Add(time.Minute))
		if got, err := io.ReadAll(c); len(got) != 0 {
			t.Errorf("the control API answered a tunnel's address: %q, %v", got, err)
		}
		c.Close()
	}
	if got := hits.Load(); got != before {
		t.Errorf("the victim's upstream got %d more connections", got-before)
	}
}

// Not even an edge that was taken over reaches what the agent has not published.
func TestEdgeReachesOnlyWhatIsPublished(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	published, publishedHits := counted(t)
	private, privateHits := counted(t)
	a := e.AddAgent("laptop")
	spec := harness.TCP("svc", published, 0)
	spec.ID = 4711
	a.Publish(spec).WaitUp("svc")
	n := e.TakeOver(a)
	o := a.Overlay
	visitor := netip.MustParseAddrPort("[64:ff9b::c633:6407]:40000")

	c, err := n.Dial(time.Minute, visitor, netip.AddrPortFrom(o.TunnelAddr(a.Node, 4711), tunnel.DialPort))
	if err != nil {
		t.Fatalf("the published tunnel: %v", err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("the published tunnel: %q, %v", got, err)
	}
	c.Close()
	port := netip.MustParseAddrPort(private).Port()
	v4 := uint32(127<<24 | 1)
	for name, to := range map[string]netip.AddrPort{
		"the agent itself":    netip.AddrPortFrom(o.NodeAddr(a.Node), port),
		"an unknown tunnel":   netip.AddrPortFrom(o.TunnelAddr(a.Node, 4712), tunnel.DialPort),
		"a private address":   netip.AddrPortFrom(kindAddr(o, a.Node, 4, v4), port),
		"an unknown kind":     netip.AddrPortFrom(kindAddr(o, a.Node, 9, 4711), port),
		"the published as 4":  netip.AddrPortFrom(kindAddr(o, a.Node, 4, 4711), tunnel.DialPort),
		"another node's":      netip.AddrPortFrom(o.TunnelAddr(a.Node+1, 4711), tunnel.DialPort),
		"loopback by NAT64":   netip.AddrPortFrom(netip.MustParseAddr("64:ff9b::7f00:1"), port),
		"the loopback itself": netip.AddrPortFrom(netip.MustParseAddr("::1"), port),
	} {
		if c, err := n.Dial(noWay, visitor, to); err == nil {
			c.Close()
			t.Errorf("%s is reached at %v", name, to)
		}
	}
	if publishedHits.Load() != 1 || privateHits.Load() != 0 {
		t.Errorf("the published upstream got %d connections, the private one %d", publishedHits.Load(), privateHits.Load())
	}
}

// kindAddr is an address of the plan that tunnel has no function for.
func kindAddr(o tunnel.Overlay, n tunnel.NodeID, kind uint16, value uint32) netip.Addr {
	a := o.NodeAddr(n).As16()
	binary.BigEndian.PutUint16(a[10:], kind)
	binary.BigEndian.PutUint32(a[12:], value)
	return netip.AddrFrom16(a)
}

// publishBare publishes a TCP tunnel from a bare node, whose visitors' connections
// come out of the channel.
func publishBare(t *testing.T, n *harness.Node, id tunnel.ID) (url string, conns <-chan *netstack.Conn) {
	t.Helper()
	ch := make(chan *netstack.Conn, 1)
	n.Stack.ForwardTCP(func(r *netstack.Request) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		ch <- c
	})
	client := n.Control()
	events, err := client.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	hello, err := events.Recv()
	if err != nil {
		t.Fatal(err)
	}
	reply, err := client.Publish(t.Context(), control.PublishRequest{Session: hello.Session, Tunnels: []tunnel.Spec{
		{ID: id, Name: "bare", Kind: tunnel.TCP, Upstream: "tcp://127.0.0.1:1"},
	}})
	if err != nil || reply.Tunnels[0].Error != nil {
		t.Fatalf("publish: %+v, %v", reply, err)
	}
	return reply.Tunnels[0].PublicURL, ch
}

// One agent forges ICMPv6 errors about another's connections. Those go on with
// packets of the full size.
func TestForgedICMPChangesNothing(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	victim := e.AddAgent("victim").OpenNode()
	url, conns := publishBare(t, victim, 4711)
	attacker := e.AddAgent("attacker")
	forger := attacker.OpenNode()

	var mu sync.Mutex
	var sample []byte // a packet of the visitor's connection, to be quoted
	var largest int   // packet since it was last set to 0
	victim.OnReceive(func(p []byte) {
		if len(p) < 60 || p[6] != 6 || binary.BigEndian.Uint16(p[42:]) != tunnel.DialPort {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if sample == nil {
			sample = append([]byte(nil), p[:60]...)
		}
		largest = max(largest, len(p))
	})
	visitor := e.Dial(url)
	send := func() (size int) {
		t.Helper()
		mu.Lock()
		largest = 0
		mu.Unlock()
		if _, err := visitor.Write(make([]byte, 256<<10)); err != nil {
			t.Fatalf("the visitor's connection: %v", err)
		}
		return 256 << 10
	}
	size := send()
	inner := <-conns
	defer inner.Close()
	take := func(n int) int {
		t.Helper()
		inner.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.CopyN(io.Discard, inner, int64(n)); err != nil {
			t.Fatalf("the victim's end: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		return largest
	}
	full := take(size)
	if full <= 1300 {
		t.Fatalf("the largest packet has %d bytes: the test would not see it shrink", full)
	}
	from := attacker.Overlay.NodeAddr(attacker.Node)
	mu.Lock()
	quoted := sample
	mu.Unlock()
	edgeAddr, _ := netip.AddrFromSlice(quoted[8:24])
	for _, to := range []netip.Addr{edgeAddr, attacker.Overlay.NodeAddr(1)} {
		forger.Inject(icmp6(from, to, 2, 0, 1280, quoted)) // Packet Too Big
		for code := range uint8(7) {
			forger.Inject(icmp6(from, to, 1, code, 0, quoted)) // Destination Unreachable
		}
		forger.Inject(icmp6(from, to, 3, 0, 0, quoted)) // Time Exceeded
		forger.Inject(icmp6(from, to, 4, 1, 0, quoted)) // Parameter Problem
	}
	// The forger's own packets keep their order: when this call is answered,
	// the edge has seen all of the above.
	c, err := forger.Dial(time.Minute, netip.AddrPort{}, netip.AddrPortFrom(attacker.Overlay.NodeAddr(1), tunnel.ControlPort))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for range 4 {
		if got := take(send()); got < full {
			t.Fatalf("the victim's packets have shrunk from %d to %d bytes", full, got)
		}
	}
	if _, err := inner.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if _, err := io.ReadFull(visitor, got); err != nil || string(got) != "still here" {
		t.Errorf("%q, %v", got, err)
	}
}

// icmp6 makes an ICMPv6 error message (RFC 4443, section 2.1).
func icmp6(from, to netip.Addr, kind, code uint8, value uint32, quoted []byte) []byte {
	p := make([]byte, 48, 48+len(quoted))
	p[0] = 6 << 4
	binary.BigEndian.PutUint16(p[4:], uint16(8+len(quoted)))
	p[6], p[7] = 58, 64
	src, dst := from.As16(), to.As16()
	copy(p[8:], src[:])
	copy(p[24:], dst[:])
	p[40], p[41] = kind, code
	binary.BigEndian.PutUint32(p[44:], value)
	p = append(p, quoted...)
	sum := uint32(len(p)-40) + 58
	for _, part := range [][]byte{p[8:40], p[40:]} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(p[42:], ^uint16(sum))
	return p
}

// A packet without a key gets no answer, nor does a handshake with an unknown one.
func TestWireGuardPortIsSilent(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	c, err := net.Dial("udp", e.Ready.WG.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	initiation := make([]byte, 148)
	initiation[0] = 1
	for _, p := range [][]byte{{}, {0}, []byte("GET / HTTP/1.1\r\n\r\n"), initiation, make([]byte, 1400)} {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	// A real handshake after them is answered, so they were looked at.
	n := e.OpenInvite(e.Invite(edge.InviteOptions{}))
	conn, err := n.Dial(time.Minute, netip.AddrPort{}, netip.AddrPortFrom(n.Overlay.NodeAddr(1), tunnel.ControlPort))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	c.SetReadDeadline(time.Now().Add(noWay))
	if got, err := c.Read(make([]byte, 1500)); err == nil {
		t.Errorf("an answer of %d bytes", got)
	}
	stranger, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	n = e.OpenNode(stranger, 5000, n.Overlay)
	if c, err := n.Dial(noWay, netip.AddrPort{}, netip.AddrPortFrom(n.Overlay.NodeAddr(1), tunnel.ControlPort)); err == nil {
		c.Close()
		t.Error("a stranger's key is let in")
	}
	peers, err := n.Device.Peers()
	if err != nil || len(peers) != 1 || peers[0].RxBytes != 0 {
		t.Errorf("the stranger was answered: %+v, %v", peers, err)
	}
}
