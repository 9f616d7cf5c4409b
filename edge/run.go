package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
	"github.com/wgexpose/wgexpose/wg"
)

// timeWait is that of the edge's stack: long enough for a last segment of the
// other side to find its connection, short enough that the ports of one address
// do not run out (60 s would cap an upstream at some 800 connections a second).
const timeWait = time.Second

// running is an edge that runs: all that Run opens.
type running struct {
	cfg     Config
	timing  Timing
	log     *slog.Logger
	overlay tunnel.Overlay
	side    publicSide
	self    keys.Edge

	store     *store.Bolt
	stack     *netstack.Stack
	sizes     *sizes
	dev       *wg.Device
	streams   *streamHost
	certs     *certs.Manager // nil with TLS off
	pointing  pointing
	front     *front
	sessions  *sessions
	host      *sessionHost
	reconcile *reconciler
	applied   *applied
	control   net.Listener // in the overlay
	admin     net.Listener
	ready     Ready
	started   time.Time

	publishing chan struct{} // capacity 1: held while one agent's tunnels are planned and applied

	undo []func() error // what to close, in the order that it was opened
}

// Run serves until ctx ends, then lets running requests finish for up to 10 s,
// releases everything and returns nil. It returns early with an error only when
// the edge cannot start or cannot go on.
func (e *Edge) Run(ctx context.Context) (err error) {
	r := &running{cfg: e.cfg, timing: e.cfg.Timing, log: e.log, publishing: make(chan struct{}, 1), started: time.Now()}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.open(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil
		}
		return fmt.Errorf("start the edge: %w", err)
	}
	return r.serve(ctx)
}

// opened notes how to close what was just opened.
func (r *running) opened(undo func() error) { r.undo = append(r.undo, undo) }

// close undoes all that open did, in reverse.
func (r *running) close() error {
	var errs []error
	for i := len(r.undo) - 1; i >= 0; i-- {
		errs = append(errs, r.undo[i]())
	}
	return errors.Join(errs...)
}

// open acquires everything, up to the first reconcile: after it the table and
// the peers are as the store says, and nothing is served yet.
func (r *running) open(ctx context.Context) error {
	for _, l := range []net.Listener{r.cfg.HTTPS, r.cfg.HTTP, r.cfg.Metrics} {
		if l != nil {
			r.opened(func() error { return closeOnce(l) })
		}
	}
	if udp := r.cfg.HTTP3; udp != nil {
		r.opened(func() error { return closeOnce(udp) })
	}
	key, settings, err := r.openState(ctx)
	if err != nil {
		return err
	}
	if err := r.openOverlay(key, settings); err != nil {
		return err
	}
	if err := r.openPublic(ctx, key, settings); err != nil {
		return err
	}
	r.admin, err = r.cfg.Dir.ListenUnix(socketFile)
	if err != nil {
		return err
	}
	r.opened(func() error { return closeOnce(r.admin) })
	return r.reconcile.pass(ctx)
}

// closeOnce closes a listener that its server may have closed already.
func closeOnce(l io.Closer) error {
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// openState locks the directory and reads keys and settings, making them at the
// first start.
func (r *running) openState(ctx context.Context) (keys.Private, store.Settings, error) {
	dir := r.cfg.Dir
	lock, err := dir.Lock(lockFile)
	if err != nil {
		return keys.Private{}, store.Settings{}, err
	}
	r.opened(lock.Unlock)
	if err := dir.CheckVersion(stateVersion); err != nil {
		return keys.Private{}, store.Settings{}, err
	}
	if r.store, err = openStore(ctx, dir); err != nil {
		return keys.Private{}, store.Settings{}, err
	}
	r.opened(r.store.Close)
	key, err := edgeKey(ctx, r.store, dir.Path(keyFile))
	if err != nil {
		return keys.Private{}, store.Settings{}, err
	}
	domain := r.cfg.Domain
	if domain == DomainAuto {
		if domain, err = r.autoDomain(ctx); err != nil {
			return keys.Private{}, store.Settings{}, err
		}
	}
	if domain != "" {
		if domain, err = tunnel.CanonicalHost(domain); err != nil {
			return keys.Private{}, store.Settings{}, err
		}
	}
	settings, was, err := bootstrap(ctx, r.store, key.Public(), domain, time.Now().UTC())
	if err != nil {
		return keys.Private{}, store.Settings{}, err
	}
	if was != "" && was != settings.Domain {
		r.warn(fmt.Sprintf("the domain changed from %s to %s: tunnels get their host names under the new one when their agents publish again", was, settings.Domain))
	}
	return key, settings, nil
}

// joined are the addresses in words.
func joined(addrs []netip.AddrPort) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, " and ")
}

// warn is for the log and for whoever started the edge.
func (r *running) warn(msg string) {
	r.log.Warn(msg)
	r.ready.Warnings = append(r.ready.Warnings, msg)
}

// openOverlay opens the edge's node: netstack, control listener, WireGuard.
func (r *running) openOverlay(key keys.Private, settings store.Settings) (err error) {
	r.overlay = settings.Overlay
	r.sizes, err = openStack(netstack.Config{
		Addr: r.overlay.NodeAddr(edgeNode), MTU: r.cfg.MTU, TimeWait: timeWait, Logger: r.log,
	}, r.overlay)
	if err != nil {
		return err
	}
	r.stack = r.sizes.stack
	r.opened(r.stack.Close)
	// Before there are peers: agents that hear the edge's first handshake call
	// at once.
	if r.control, err = r.stack.ListenTCP(tunnel.ControlPort); err != nil {
		return fmt.Errorf("listen for agents in the overlay: %w", err)
	}
	r.opened(func() error { return closeOnce(r.control) })
	var addrs []netip.AddrPort
	var udp []*wg.UDPBind
	for _, addr := range append([]netip.AddrPort{r.cfg.WG}, r.cfg.MoreWG...) {
		if !addr.Addr().IsValid() {
			addr = netip.AddrPortFrom(netip.IPv6Unspecified(), addr.Port())
		}
		addrs, udp = append(addrs, addr), append(udp, wg.UDP(addr))
	}
	r.streams = newStreamHost(r.log)
	r.opened(r.streams.close)
	bind := wg.Join(r.streams.streams, udp...)
	r.dev, err = wg.Open(wg.Config{Key: key, Tun: r.stack.Device(), Bind: bind, Logger: r.log, Sent: r.stack.Sent, Probes: r.sizes.prober})
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on UDP %s for WireGuard: another program has this port; stop it, or choose another with --listen-wg", joined(addrs))
	}
	if err != nil {
		return fmt.Errorf("listen on UDP %s for WireGuard: %w", joined(addrs), err)
	}
	r.opened(r.dev.Close)
	r.ready.WG = netip.AddrPortFrom(addrs[0].Addr(), udp[0].Port())
	for i, more := range udp[1:] {
		r.ready.MoreWG = append(r.ready.MoreWG, netip.AddrPortFrom(addrs[i+1].Addr(), more.Port()))
	}
	return nil
}

// serve runs all parts. The public side ends first, since what it drains needs
// the others.
func (r *running) serve(ctx context.Context) error {
	svc, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, gctx := errgroup.WithContext(svc)
	public, endPublic := context.WithCancel(gctx)
	defer endPublic()
	g.Go(func() error { return r.reconcile.run(gctx) })
	g.Go(func() error { return control.NewServer(r.overlay, r, r.log).Serve(gctx, r.control) })
	admin := &storeAdmin{store: r.store, live: r, close: func() error { return nil }, certs: r.certificates}
	g.Go(func() error { return (&adminServer{admin: admin, log: r.log}).serve(gctx, r.admin) })
	if r.cfg.Metrics != nil {
		g.Go(func() error { return serveMetrics(gctx, r.cfg.Metrics, newCollector(r, admin), r.log) })
	}
	g.Go(func() error { return r.observe(gctx) })
	g.Go(func() error { return r.sweep(gctx) })
	g.Go(func() error { return r.watchDevice(gctx) })
	if r.certs != nil {
		g.Go(func() error { return r.certs.Run(gctx) })
	}
	g.Go(func() error {
		defer stop()
		return r.front.Run(public)
	})
	g.Go(func() error {
		select {
		case <-ctx.Done():
			r.log.Info("stopping: running requests have 10 s to finish")
			r.sessions.tellAll(control.ServerEvent{Type: control.EventDraining, Message: "the edge is stopping"})
			endPublic()
		case <-gctx.Done():
		}
		return nil
	})
	g.Go(func() error {
		r.sayReady(public)
		return nil
	})
	err := g.Wait()
	if oerr := r.observeOnce(context.WithoutCancel(ctx)); oerr != nil {
		r.log.Error("keep the agents' endpoints", "err", oerr)
	}
	return err
}

// watchDevice ends the edge when its WireGuard device ends by itself.
func (r *running) watchDevice(ctx context.Context) error {
	select {
	case <-r.dev.Done():
		return errors.New("the WireGuard device has stopped")
	case <-ctx.Done():
		return nil
	}
}

// sayReady has certificates made for what is in the table, and then tells that
// the edge serves. A public authority is not waited for.
func (r *running) sayReady(ctx context.Context) {
	if r.certs != nil {
		hosts := []string{r.side.domain}
		for e := range r.reconcile.table.Load().All() {
			if e.EndsTLSAtEdge() {
				hosts = append(hosts, e.Host)
			}
		}
		if err := r.certs.Manage(ctx, hosts...); err != nil && ctx.Err() == nil {
			r.log.Error("certificates at start", "err", err)
		}
	}
	if ctx.Err() != nil {
		return
	}
	r.log.Info("edge serves", "domain", r.ready.Domain, "endpoint", r.ready.Endpoint,
		"wireguard", r.ready.WG, "https", r.ready.HTTPS, "http3", r.ready.HTTP3, "http", r.ready.HTTP)
	if r.cfg.Ready != nil {
		r.cfg.Ready(r.ready)
	}
}

// agent is the record of the caller, or the refusal for whoever is no agent.
func (r *running) agent(ctx context.Context, id tunnel.NodeID) (store.Node, error) {
	node, _, err := store.Read[store.Node](ctx, r.store, store.NodeKey(id))
	if errors.Is(err, store.ErrNotFound) {
		err = nil // the zero node is no agent
	}
	if err != nil {
		return store.Node{}, err
	}
	return node, agentError(node.Kind)
}

func (r *running) appliedRevision(ctx context.Context, rev store.Revision) error {
	return r.applied.wait(ctx, rev)
}

func (r *running) agentState(id tunnel.NodeID) (up bool, since time.Time) {
	return r.sessions.state(id)
}

func (r *running) upstream(node tunnel.NodeID, id tunnel.ID) string {
	if why := r.sessions.liveness(node).Last(id); why != nil {
		return cmp.Or(why.reason, why.code)
	}
	return ""
}

func (r *running) peerStates() (map[keys.Public]wg.PeerStatus, error) {
	peers, err := r.dev.Peers()
	if err != nil {
		return nil, fmt.Errorf("ask WireGuard for its peers: %w", err)
	}
	all := make(map[keys.Public]wg.PeerStatus, len(peers))
	for _, p := range peers {
		all[p.Key] = p
	}
	return all, nil
}

// listenTCP is the address of public TCP ports.
func (r *running) listenTCP() string {
	if !r.cfg.ListenTCP.IsValid() {
		return ""
	}
	return r.cfg.ListenTCP.String()
}
