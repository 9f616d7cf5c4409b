package harness

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/tunnel"
	"github.com/wgexpose/wgexpose/wg"
)

// Node is a bare node of the overlay: a WireGuard device with some key, and a
// netstack that sends from whatever address it is told. It does what its test
// says and keeps to no rule.
type Node struct {
	t       testing.TB
	Stack   *netstack.Stack
	Device  *wg.Device
	Overlay tunnel.Overlay
	tap     *Tap
}

// OpenNode opens a node with a key and a node id, whose one peer is the edge.
func (e *Edge) OpenNode(key keys.Private, id tunnel.NodeID, overlay tunnel.Overlay) *Node {
	e.t.Helper()
	n := openNode(e.t, key, id, overlay, loopback)
	edgeKey, err := keys.Load(e.Dir.Path("edge.key"))
	if err != nil {
		e.t.Fatal(err)
	}
	n.SetPeer(wg.Peer{Key: edgeKey.Public(), Endpoint: e.Ready.WG, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("::/0")}})
	return n
}

// OpenNode opens a node in the agent's place.
func (a *Agent) OpenNode() *Node {
	a.t.Helper()
	return a.edge.OpenNode(a.Key(), a.Node, a.Overlay)
}

// OpenInvite opens a node in the place of an invite's holder.
func (e *Edge) OpenInvite(i keys.Invite) *Node {
	e.t.Helper()
	overlay, err := tunnel.OverlayFrom(i.Overlay)
	if err != nil {
		e.t.Fatal(err)
	}
	return e.OpenNode(i.Key, tunnel.NodeID(i.Node), overlay)
}

// TakeOver stops the edge and opens a node in its place, with its key, its
// address and its port: an edge that does as the test says. The agents are its
// peers.
func (e *Edge) TakeOver(agents ...*Agent) *Node {
	e.t.Helper()
	endpoints := make([]netip.AddrPort, len(agents))
	for i, a := range agents {
		endpoints[i] = netip.MustParseAddrPort(a.Row().Endpoint)
	}
	e.Stop()
	key, err := keys.Load(e.Dir.Path("edge.key"))
	if err != nil {
		e.t.Fatal(err)
	}
	n := openNode(e.t, key, 1, agents[0].Overlay, e.Ready.WG)
	for i, a := range agents {
		n.SetPeer(wg.Peer{Key: a.Key().Public(), Endpoint: endpoints[i], AllowedIPs: []netip.Prefix{a.Overlay.NodePrefix(a.Node)}})
		if err := n.Device.Restart(a.Key().Public()); err != nil {
			e.t.Fatal(err)
		}
	}
	return n
}

func openNode(t testing.TB, key keys.Private, id tunnel.NodeID, overlay tunnel.Overlay, addr netip.AddrPort) *Node {
	t.Helper()
	stack, err := netstack.Open(netstack.Config{Addr: overlay.NodeAddr(id), Logger: Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stack.Close() })
	tap := newTap(stack.Device())
	dev, err := wg.Open(wg.Config{Key: key, Tun: tap, Bind: wg.UDP(addr), Logger: Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return &Node{t: t, Stack: stack, Device: dev, Overlay: overlay, tap: tap}
}

// SetPeer sets a peer of the node.
func (n *Node) SetPeer(p wg.Peer) {
	n.t.Helper()
	if err := n.Device.SetPeer(p); err != nil {
		n.t.Fatal(err)
	}
}

// Close ends the node before the test does.
func (n *Node) Close() {
	n.Device.Close()
	n.Stack.Close()
}

// Control is a client of the edge's control API on the node.
func (n *Node) Control() *control.Client {
	n.t.Helper()
	c := control.NewClient(func(ctx context.Context) (net.Conn, error) {
		return n.Stack.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(n.Overlay.NodeAddr(1), tunnel.ControlPort))
	})
	n.t.Cleanup(func() { c.Close() })
	return c
}

// Dial dials as DialTCP does, and gives up after a while.
func (n *Node) Dial(within time.Duration, from, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), within)
	defer cancel()
	c, err := n.Stack.DialTCP(ctx, from, to)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Inject sends a packet, which begins with its IPv6 header, as it is.
func (n *Node) Inject(packet []byte) { n.tap.inject <- packet }

// OnReceive has fn see each packet that comes to the node, before its stack
// does. fn must not keep it.
func (n *Node) OnReceive(fn func(packet []byte)) {
	n.tap.mu.Lock()
	defer n.tap.mu.Unlock()
	n.tap.see = fn
}

// Tap is a tun.Device around another, to look at and to add packets.
type Tap struct {
	tun.Device
	inject chan []byte
	out    chan tapped   // what the inner device has to send
	taken  chan struct{} // the reader may reuse its buffers
	done   chan struct{}
	once   sync.Once
	reader sync.WaitGroup

	mu  sync.Mutex // guards see
	see func([]byte)
}

// tapped is one packet of the inner device, or its end.
type tapped struct {
	packet []byte
	err    error
}

func newTap(inner tun.Device) *Tap {
	t := &Tap{Device: inner, inject: make(chan []byte), out: make(chan tapped), taken: make(chan struct{}), done: make(chan struct{})}
	t.reader.Go(t.read)
	return t
}

// read takes packets out of the inner device, one batch after the other.
func (t *Tap) read() {
	n := t.Device.BatchSize()
	bufs, sizes := make([][]byte, n), make([]int, n)
	for i := range bufs {
		bufs[i] = make([]byte, 65536)
	}
	for {
		got, err := t.Device.Read(bufs, sizes, 0)
		for i := range got {
			select {
			case t.out <- tapped{packet: bufs[i][:sizes[i]]}:
			case <-t.done:
				return
			}
			select {
			case <-t.taken:
			case <-t.done:
				return
			}
		}
		if err != nil {
			select {
			case t.out <- tapped{err: err}:
			case <-t.done:
			}
			return
		}
	}
}

// Read gives one packet at a time, from the inner device or injected.
func (t *Tap) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case p := <-t.inject:
		sizes[0] = copy(bufs[0][offset:], p)
		return 1, nil
	case p := <-t.out:
		if p.err != nil {
			return 0, p.err
		}
		sizes[0] = copy(bufs[0][offset:], p.packet)
		select {
		case t.taken <- struct{}{}:
		case <-t.done:
		}
		return 1, nil
	case <-t.done:
		return 0, os.ErrClosed
	}
}

func (t *Tap) Write(bufs [][]byte, offset int) (int, error) {
	t.mu.Lock()
	see := t.see
	t.mu.Unlock()
	if see != nil {
		for _, b := range bufs {
			see(b[offset:])
		}
	}
	return t.Device.Write(bufs, offset)
}

// Close ends the inner device, and the reader with it.
func (t *Tap) Close() error {
	var err error
	t.once.Do(func() {
		close(t.done)
		err = t.Device.Close()
		t.reader.Wait()
	})
	return err
}
