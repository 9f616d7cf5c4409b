package agent

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/wg"
)

const (
	// timeWait is short because an agent mostly closes second, and a visitor's
	// port that comes again must not be swallowed.
	timeWait = time.Millisecond
	// keepalive keeps the way from the edge open through NATs while no event
	// stream does it, such as when an edge restarts and calls its agents.
	// RFC 4787 lets a NAT forget UDP after 2 minutes; many do after 30 s.
	keepalive = 25 * time.Second
)

// node is one WireGuard device and one netstack on it. Its peer is an edge.
type node struct {
	stack     *netstack.Stack
	dev       *wg.Device
	paths     *wg.Paths
	log       *slog.Logger
	resolver  resolver
	nudges    chan string      // reasons to look for the edge anew; see monitor
	keepalive time.Duration    // of the peer; see try
	known     []netip.AddrPort // the edge's, as last found
	once      sync.Once        // of close
}

// openNode opens the overlay node with the given key and address, on a UDP
// socket of its own. It needs no network yet.
func openNode(key keys.Private, addr netip.Addr, log *slog.Logger) (*node, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	stack, err := netstack.Open(netstack.Config{Addr: addr, TimeWait: timeWait, Logger: log})
	if err != nil {
		return nil, err
	}
	paths := wg.Join(nil, wg.UDP(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)))
	dev, err := wg.Open(wg.Config{
		Key:    key,
		Tun:    stack.Device(),
		Bind:   paths,
		Logger: log,
		Sent:   stack.Sent,
	})
	if err != nil {
		stack.Close()
		return nil, err
	}
	return &node{
		stack: stack, dev: dev, paths: paths, log: log,
		resolver: net.DefaultResolver.LookupNetIP, nudges: make(chan string, 1),
	}, nil
}

// close releases everything. It may be called again.
func (n *node) close() {
	n.once.Do(func() {
		n.dev.Close()
		n.stack.Close()
	})
}

// peer is how the peer is doing.
func (n *node) peer(key keys.Public) (wg.PeerStatus, error) {
	p, ok, err := n.dev.Peer(key)
	if err == nil && !ok {
		err = errors.New("the edge is no peer of this device")
	}
	return p, err
}

// nudge has the edge looked for anew, at once. The first reason counts.
func (n *node) nudge(reason string) {
	select {
	case n.nudges <- reason:
	default:
	}
}
