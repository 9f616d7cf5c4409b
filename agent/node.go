package agent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/pathmtu"
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
	// lastWords is for what the stack has to say when it ends: resets, and what
	// it has received.
	lastWords = 300 * time.Millisecond
)

// node is one WireGuard device and one netstack on it. Its peer is an edge.
type node struct {
	stack     *netstack.Stack
	dev       *wg.Device
	paths     *wg.Paths
	prober    *pathmtu.Prober
	pinned    int // see Reach.MTU
	log       *slog.Logger
	resolver  resolver
	nudges    chan string      // reasons to look for the edge anew; see monitor
	transport string           // see Reach
	dialer    streamDialer     // of streams
	streams   *wg.Streams      // of which there is one at a time
	stream    *wg.Stream       // nil: none; used by reach and what comes after it
	carrying  sync.WaitGroup   // streams' Run
	trial     trial            // of UDP, while there is a stream
	keepalive time.Duration    // of the peer; see settle
	heeded    bool             // the last reach ended with an answer to a handshake of this side
	known     []netip.AddrPort // the edge's, as last found
	found     func()           // called when a way to the edge was found; may be nil
	once      sync.Once        // of close
}

// openNode opens the overlay node with the given key and address, on a UDP
// socket of its own. It needs no network yet.
func openNode(key keys.Private, addr netip.Addr, how Reach, log *slog.Logger) (*node, error) {
	proxy, err := how.proxy()
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var prober *pathmtu.Prober // is there before any packet comes
	stack, err := netstack.Open(netstack.Config{
		Addr: addr, MTU: how.MTU, TimeWait: timeWait, Logger: log,
		Probes: func(packet []byte) { prober.Receive(packet) },
	})
	if err != nil {
		return nil, err
	}
	prober = pathmtu.New(pathmtu.Config{Local: addr, Default: netstack.DefaultMTU, Send: stack.Send, Logger: log})
	streams := wg.NewStreams()
	paths := wg.Join(streams, wg.UDP(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)))
	dev, err := wg.Open(wg.Config{
		Key:    key,
		Tun:    stack.Device(),
		Bind:   paths,
		Logger: log,
		Sent:   stack.Sent,
		Probes: prober,
	})
	if err != nil {
		stack.Close()
		return nil, err
	}
	return &node{
		stack: stack, dev: dev, paths: paths, prober: prober, pinned: how.MTU, log: log,
		resolver: net.DefaultResolver.LookupNetIP, nudges: make(chan string, 1),
		transport: cmp.Or(how.Transport, TransportAuto), dialer: streamDialer{proxy}, streams: streams,
	}, nil
}

// close releases everything. It may be called again.
func (n *node) close() {
	n.once.Do(func() {
		n.stack.Flush(lastWords)
		n.dev.Close()
		n.streams.Close()
		n.carrying.Wait()
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

// streamsTo reports whether a stream may be tried.
func (n *node) streamsTo(edge keys.Edge) bool {
	return n.transport == TransportTLS || n.transport == TransportAuto && hasStreamEndpoint(edge)
}

// useStream makes a connection the node's stream.
func (n *node) useStream(d dialled) error {
	st, err := n.streams.Attach(d.conn, d.from, wg.StreamOptions{})
	if err != nil {
		return err
	}
	n.stream = st
	n.carrying.Go(func() {
		err := st.Run(context.Background()) // until dropStream or close
		n.log.Debug("stream ended", "err", err, "dropped", st.Dropped())
		if ep, ok := n.paths.Pinned().(*wg.StreamEndpoint); ok && ep == st.Endpoint() {
			n.nudge(reasonStream)
		}
	})
	return nil
}

// dropStream ends the node's stream, if there is one.
func (n *node) dropStream() {
	if n.stream == nil {
		return
	}
	n.stream.Close()
	n.stream = nil
}

// nudge has the edge looked for anew, at once. The first reason counts.
func (n *node) nudge(reason string) {
	select {
	case n.nudges <- reason:
	default:
	}
}
