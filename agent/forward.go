package agent

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/meter"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/relay"
	"github.com/wgexpose/wgexpose/tunnel"
)

const (
	// maxDials is how many dials of one tunnel's upstream may be under way.
	// An upstream that swallows SYNs holds each for 10 s; without a bound its
	// visitors would use up what the other tunnels need.
	maxDials = 64

	// maxWaiting is how many visitors of one tunnel may wait for their turn
	// to have the upstream dialled, and turnPatience for how long. A burst of
	// visitors of a healthy upstream is through in milliseconds; those of a
	// stuck one are refused when the patience is over, never left in silence.
	maxWaiting   = 4096
	turnPatience = 2 * time.Second

	// headerTimeout is for an upstream to take the PROXY header.
	headerTimeout = 10 * time.Second
)

// served is a tunnel that a set holds, with its running connections.
type served struct {
	Tunnel
	claim    *claim
	index    int // in the claim's tunnels
	upstream tunnel.Upstream

	dials  chan struct{}   // a token for each dial under way
	queue  chan struct{}   // a token for each visitor that waits for one of dials
	conns  gate            // running connections, dials included
	passed meter.Meter     // connections that reached the upstream
	ctx    context.Context // of its connections: outlives the withdrawal until the drain is over
	cancel context.CancelFunc
	dial   context.Context // of dials under way: ends with the withdrawal
	hangUp context.CancelFunc

	// The rest is guarded by set.mu.
	named   string                      // by the user, else by the edge; "" until then
	answers map[*link]control.Published // of edges whose link is up
	failure *control.Error              // of the last dial of the upstream; nil when it succeeded
	last    Event                       // as last told
}

func newServed(t Tunnel, u tunnel.Upstream, c *claim, index int) *served {
	s := &served{
		Tunnel: t, claim: c, index: index, upstream: u, named: t.Name,
		dials: make(chan struct{}, maxDials), queue: make(chan struct{}, maxWaiting), answers: map[*link]control.Published{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.dial, s.hangUp = context.WithCancel(s.ctx)
	return s
}

// turn waits until the upstream may be dialled once more, within bounds; done
// must follow when it reports true.
func (t *served) turn() bool {
	select {
	case t.dials <- struct{}{}:
		return true
	default:
	}
	select {
	case t.queue <- struct{}{}:
		defer func() { <-t.queue }()
	default:
		return false
	}
	timer := time.NewTimer(turnPatience)
	defer timer.Stop()
	select {
	case t.dials <- struct{}{}:
		return true
	case <-timer.C:
	case <-t.dial.Done():
	}
	return false
}

func (t *served) done() { <-t.dials }

// drain waits for the running connections until ctx ends, then aborts them.
// No new ones get in, and those that wait for the upstream are refused.
func (t *served) drain(ctx context.Context) {
	empty := t.conns.shut()
	t.hangUp()
	select {
	case <-empty:
	case <-ctx.Done():
	}
	t.cancel()
	<-empty
}

// forwarder answers the connections that an edge opens through one link.
type forwarder struct {
	overlay tunnel.Overlay
	node    tunnel.NodeID
	set     *set
	link    *link
	log     *slog.Logger
	open    gate
}

// handle answers one request and stays until its connection has ended. What
// may be reached is decided here alone: one of the tunnels in the set, at its
// own address. The port is of no meaning.
func (f *forwarder) handle(r *netstack.Request) {
	if !f.open.enter() {
		r.Reject()
		return
	}
	defer f.open.leave()
	node, kind, value, ok := f.overlay.Parse(r.To().Addr())
	if !ok || node != f.node || kind != tunnel.KindTunnel {
		f.log.Warn("refused a connection from the edge to what is no tunnel of this agent", "to", r.To(), "from", r.From())
		r.Reject()
		return
	}
	t := f.set.find(tunnel.ID(value))
	if t == nil || !t.conns.enter() {
		f.log.Debug("refused a connection to a tunnel that is not served any more", "to", r.To(), "from", r.From())
		r.Reject()
		return
	}
	defer t.conns.leave()
	f.serve(t, r)
}

func (f *forwarder) serve(t *served, r *netstack.Request) {
	visitor, ok := f.visitor(r.From())
	log := f.log.With("tunnel", f.set.nameOf(t), "visitor", visitorText(visitor, ok), "upstream", t.Spec.Upstream)
	if !t.turn() {
		log.Debug("refused a visitor: the upstream is too slow to take those before", "dials", maxDials)
		r.Reject()
		return
	}
	protocol := "http/1.1"
	if t.UpstreamProtocol == tunnel.HTTP2 {
		protocol = "h2"
	}
	up, failure := dialUpstream(t.dial, t.upstream, protocol, t.InsecureUpstreamTLS)
	t.done()
	if t.dial.Err() != nil { // withdrawn meanwhile; nothing is known of the upstream
		if up != nil {
			up.Close()
		}
		r.Reject()
		return
	}
	changed := f.set.dialled(t, failure)
	if failure != nil {
		if changed {
			log.Warn("upstream cannot be dialled", "err", failure)
		}
		// Before the RST, which cannot say why.
		f.link.report(control.AgentEvent{Type: control.EventUpstream, Tunnel: t.ID, Code: failure.Code, Error: failure.Message, At: time.Now()})
		r.Reject()
		return
	}
	if changed {
		log.Info("upstream is back")
		f.link.report(control.AgentEvent{Type: control.EventUpstream, Tunnel: t.ID, OK: true, At: time.Now()})
	}
	c, err := r.Accept()
	if err != nil { // the visitor has gone meanwhile
		log.Debug("accept", "err", err)
		up.Close()
		return
	}
	level := slog.LevelInfo
	if !ok { // shared between visitors, whose requests the edge's log has
		level = slog.LevelDebug
	}
	f.relay(t, c, up, visitor, log, level)
}

func (f *forwarder) relay(t *served, c *netstack.Conn, up net.Conn, visitor netip.AddrPort, log *slog.Logger, level slog.Level) {
	log.Log(t.ctx, level, "connection opened")
	start := time.Now()
	t.passed.Begin(start)
	defer func() { t.passed.End(time.Since(start)) }()
	if t.ProxyProtocol != 0 {
		if err := writeHeader(up, t.ProxyProtocol, visitor); err != nil {
			log.Warn("PROXY header", "err", err)
			c.Abort()
			up.Close()
			return
		}
	}
	stats, err := relay.Copy(t.ctx, c, up)
	attrs := []any{"to_upstream", stats.AtoB, "to_visitor", stats.BtoA, "took", time.Since(start).Round(time.Millisecond)}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	log.Log(t.ctx, level, "connection closed", attrs...)
}

func writeHeader(up net.Conn, version int, visitor netip.AddrPort) error {
	if err := up.SetWriteDeadline(time.Now().Add(headerTimeout)); err != nil {
		return err
	}
	if err := relay.WriteProxyHeader(up, version, visitor, netip.AddrPort{}); err != nil {
		return err
	}
	return up.SetWriteDeadline(time.Time{})
}

// visitor is who is behind a source address of the overlay. It is zero for a
// visitor who has no address to tell. one is false for the edge itself, which
// shares its connections between visitors.
func (f *forwarder) visitor(from netip.AddrPort) (who netip.AddrPort, one bool) {
	if addr, ok := f.overlay.Visitor(from.Addr()); ok {
		return netip.AddrPortFrom(addr, from.Port()), true
	}
	_, kind, _, ok := f.overlay.Parse(from.Addr())
	return netip.AddrPort{}, !ok || kind != tunnel.KindNode
}

func visitorText(who netip.AddrPort, one bool) string {
	switch {
	case who.IsValid():
		return who.String()
	case one:
		return "unnamed"
	}
	return "the edge"
}
