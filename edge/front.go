package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/tunnel"
)

// frontConfig says where visitors come in and which way they go.
type frontConfig struct {
	Stack   *netstack.Stack
	Overlay tunnel.Overlay
	Edge    tunnel.NodeID

	// HTTPS and HTTP are owned by the front from newFront on. Either may be nil.
	// With TLS off, HTTP serves the host names and HTTPS is nil.
	HTTPS, HTTP net.Listener

	// HTTP3 takes HTTP/3 for the host names of HTTPS. Owned likewise; may be nil.
	HTTP3 net.PacketConn

	WarnRandomNames bool // visitors of names that the edge has chosen are warned

	ListenTCP netip.Addr     // address for public TCP ports; zero: all addresses
	Certs     *certs.Manager // nil, or of mode Off: TLS is off
	Streams   *streamHost    // takes agents' connections on HTTPS; nil: there are none

	Handshakes int // TLS sessions that one address may begin each second; 0: any number

	Trusted proxy.Trusted // proxies between visitors and this edge

	// PublicHTTPSPort is the port that visitors know HTTPS by, for redirects.
	// Zero: 443.
	PublicHTTPSPort uint16

	// Domain is the edge's own, in canonical form. Its certificate is what visitors
	// without SNI see. Visitors of plain HTTP who ask for a host outside of it that
	// has neither tunnel nor certificate get 404 instead of a redirect to an
	// address that cannot answer. Empty: all are redirected.
	Domain string

	Logger *slog.Logger // nil: silence
}

// limits are the bounds on what visitors may take and how long the end may take.
type limits struct {
	hello      time.Duration // to send a whole ClientHello
	greeted    int           // connections before the end of the TLS handshake
	greetedPer int           // of them, from one address
	quic       int           // open QUIC connections; whoever is refused comes over TCP
	quicPer    int           // of them, from one address
	header     time.Duration // to send a request's header; also for the TLS handshake
	body       time.Duration // to wait for an upload, see proxy.Config; zero: its defaults
	stream     time.Duration // the same for one of unknown length
	idle       time.Duration // between two requests
	dial       time.Duration // for the agent and its upstream to accept a connection
	dials      int           // connections being dialled at once, per tunnel
	drain      time.Duration // for what is under way, once the front ends
	cut        time.Duration // for what was cut after that to come to its end
}

func defaultLimits() limits {
	return limits{
		hello:      10 * time.Second,
		greeted:    4096,
		greetedPer: 2048, // an office behind one address may bring a thousand at once
		quic:       4096,
		quicPer:    1024,
		header:     proxy.HeaderTime,
		idle:       proxy.IdleTime,
		dial:       10 * time.Second,
		dials:      4096, // what agents let wait, see maxWaiting in agent
		drain:      10 * time.Second,
		cut:        2 * time.Second,
	}
}

// dialer opens connections into the overlay, as netstack.Stack does.
type dialer interface {
	DialTCP(ctx context.Context, from, to netip.AddrPort) (net.Conn, error)
}

// stackDialer gives the stack's connections their interface type.
type stackDialer struct{ stack *netstack.Stack }

func (d stackDialer) DialTCP(ctx context.Context, from, to netip.AddrPort) (net.Conn, error) {
	conn, err := d.stack.DialTCP(ctx, from, to)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// front is the data plane: the public listeners, and the way from each of them
// to a tunnel. The control plane tells it what to serve through Apply.
type front struct {
	cfg    frontConfig
	limits limits
	log    *slog.Logger
	dialer dialer
	certs  certSource // nil: TLS is off
	listen func(netip.AddrPort) (net.Listener, error)

	routes    atomic.Pointer[routes]
	shown     leafs
	hasty     hasty
	passwords *passwords

	applyMu sync.Mutex // serialises Apply and the end; guards ports and ended
	ports   map[uint16]*tcpPort
	ended   bool

	nodesMu sync.Mutex // guards nodes
	nodes   map[tunnel.NodeID]*node

	// base is the parent of all that is done for visitors; cut ends it.
	base   context.Context
	cut    context.CancelCauseFunc
	active tracker // visitors' requests and connections, accept loops
	tally  *tally
}

// newFront returns a front that serves nothing yet. Run must be called in the
// end, with a context that may have ended already, to release the listeners.
func newFront(cfg frontConfig) *front {
	f := &front{
		cfg:    cfg,
		limits: defaultLimits(),
		log:    cfg.Logger,
		dialer: stackDialer{cfg.Stack},
		listen: listenTCP,
		ports:  make(map[uint16]*tcpPort),
		nodes:  make(map[tunnel.NodeID]*node),

		passwords: newPasswords(),
		tally:     newTally(),
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Certs != nil && cfg.Certs.TLSConfig() != nil {
		f.certs = cfg.Certs
	}
	f.base, f.cut = context.WithCancelCause(context.Background())
	f.routes.Store(noRoutes())
	return f
}

// Run serves visitors until ctx ends. Then it takes no new ones, lets what is
// under way finish for up to 10 s (HTTP/2 clients are told by GOAWAY), cuts the
// rest off, and returns nil. It returns an error when a listener breaks, or when
// something would not end.
func (f *front) Run(ctx context.Context) error {
	servers := f.servers()
	broken := make(chan error, len(servers))
	var serving sync.WaitGroup
	for _, s := range servers {
		serving.Go(func() {
			if err := s.serve(); !errors.Is(err, http.ErrServerClosed) {
				broken <- fmt.Errorf("serve %s: %w", s.label(), err)
			}
		})
	}
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-broken:
	}
	err := f.end(servers)
	serving.Wait()
	return errors.Join(failure, err)
}

// end drains and releases everything.
func (f *front) end(servers []server) error {
	f.closePorts()
	drained, cancel := context.WithTimeout(context.Background(), f.limits.drain)
	defer cancel()
	var closing sync.WaitGroup
	for _, s := range servers {
		closing.Go(func() { s.drain(drained) })
	}
	closing.Wait()
	if err := f.active.wait(drained); err != nil {
		f.log.Info("cutting off what did not finish", "connections", f.active.count())
	}
	f.cut(edgeStopping)
	for _, s := range servers {
		s.close()
	}
	f.closeServices()
	last, cancel := context.WithTimeout(context.Background(), f.limits.cut)
	defer cancel()
	if err := f.active.wait(last); err != nil {
		return fmt.Errorf("end the front: %d connections did not end", f.active.count())
	}
	return nil
}

// Apply makes the front serve the tunnels of t, and nothing else. live gives
// what is known of a node; what it returns for one node must stay the same
// value. Connections under way stay; idle ones to tunnels that went or changed
// are closed. The result has the public TCP ports that could not be opened, and
// why; Apply tries them again each time.
func (f *front) Apply(t *tunnel.Table, live func(tunnel.NodeID) *liveness) map[uint16]error {
	f.applyMu.Lock()
	defer f.applyMu.Unlock()
	before := f.routes.Load()
	now := f.route(t, live, before)
	// The table first: a port that opens must find its tunnel, and one that
	// closes must not find an old one.
	f.routes.Store(now)
	for addr, s := range before.services {
		if now.services[addr] != s {
			s.close()
		}
	}
	f.shown.prune(f.keepsLeaf)
	return f.openPortsLocked(now)
}

// DropNode cuts off every connection and request that goes to the node, at once
// and for good: a node id is never used again.
func (f *front) DropNode(id tunnel.NodeID) {
	f.node(id).drop()
	for _, s := range f.routes.Load().services {
		if s.node.id == id {
			s.close()
		}
	}
}

// RestartNode cuts off every connection and request that went to the node so
// far: its process is another one now, and knows nothing of them.
func (f *front) RestartNode(id tunnel.NodeID) {
	f.node(id).restart(f.base)
	for _, s := range f.routes.Load().services {
		if s.node.id == id {
			s.close()
		}
	}
}

// node is what the front holds of one node: a context that lives as long as the
// node's process, and ends for good when the node may not be reached any more.
type node struct {
	id tunnel.NodeID

	mu      sync.Mutex // guards all below
	now     context.Context
	cut     context.CancelCauseFunc
	dropped bool
}

// life ends, with a *proxy.Problem as its cause, when what goes to the node now
// is to be cut off.
func (n *node) life() context.Context {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

// drop ends the node's life for good.
func (n *node) drop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dropped = true
	n.cut(nodeDropped)
}

// restart ends the node's life and begins another one below base.
func (n *node) restart(base context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dropped {
		return
	}
	n.cut(agentAway)
	n.now, n.cut = context.WithCancelCause(base)
}

// node returns the node with that id. Nodes are kept for the life of the front,
// so that DropNode also reaches a request whose tunnel has left the table; they
// are small, and an agent keeps its id for life.
func (f *front) node(id tunnel.NodeID) *node {
	f.nodesMu.Lock()
	defer f.nodesMu.Unlock()
	n := f.nodes[id]
	if n == nil {
		n = &node{id: id}
		n.now, n.cut = context.WithCancelCause(f.base)
		f.nodes[id] = n
	}
	return n
}
