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
	set      *set
	claim    *claim
	number   int // by which its process calls it
	upstream tunnel.Upstream

	dials  chan struct{}   // a token for each dial under way
	queue  chan struct{}   // a token for each visitor that waits for one of dials
	conns  gate            // running connections, dials included
	passed meter.Meter     // connections that reached the upstream
	site   *site           // http whose TLS ends here; else nil
	ctx    context.Context // of its connections: outlives the withdrawal until the drain is over
	cancel context.CancelFunc
	dial   context.Context // of dials under way: ends with the withdrawal
	hangUp context.CancelFunc

	// The rest is guarded by set.mu.
	wanted  Tunnel                      // as its process wants it by now; the same way, see SameWay
	named   string                      // by the user, else by the edge; "" until then
	answers map[*link]control.Published // of edges whose link is up
	failure *control.Error              // of the last dial of the upstream; nil when it succeeded
	instead string                      // what listens there instead, for the user
	last    Event                       // as last told
}

func newServed(set *set, t Tunnel, u tunnel.Upstream, c *claim, number int) *served {
	s := &served{
		Tunnel: t, set: set, claim: c, number: number, wanted: t, upstream: u, named: t.Name,
		dials: make(chan struct{}, maxDials), queue: make(chan struct{}, maxWaiting), answers: map[*link]control.Published{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.dial, s.hangUp = context.WithCancel(s.ctx)
	if t.Kind == tunnel.HTTP && t.EndsTLSAtAgent() {
		s.site = newSite(s)
	}
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
	if t.site != nil {
		t.site.drain(ctx)
	}
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
	edge    string // in logs
	ends    *tlsEnd
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
	visitor, one := f.visitor(r.From())
	log := t.claim.log.With("edge", f.edge, "tunnel", f.set.nameOf(t), "visitor", visitorText(visitor, one), "upstream", t.Spec.Upstream)
	if t.EndsTLSAtAgent() {
		f.serveTLS(t, r, visitor, log)
		return
	}
	up, connected := f.connect(t, log)
	if !connected {
		r.Reject()
		return
	}
	c, err := r.Accept()
	if err != nil { // the visitor has gone meanwhile
		log.Debug("accept", "err", err)
		up.Close()
		return
	}
	level := slog.LevelInfo
	if !one { // shared between visitors, whose requests the edge's log has
		level = slog.LevelDebug
	}
	f.relay(t, c, t.tap(up, visitor), visitor, log, level)
}

// connect dials the upstream for a visitor. Where that fails, the edge has been
// told why.
func (f *forwarder) connect(t *served, log *slog.Logger) (net.Conn, bool) {
	up, failure, news := t.connect(t.dial, log)
	switch {
	case failure != nil && failure.Code == codeBusy, up == nil && failure == nil:
		return nil, false
	case failure != nil:
		// Before the RST, which cannot say why.
		f.link.report(control.AgentEvent{Type: control.EventUpstream, Tunnel: t.ID, Code: failure.Code, Error: failure.Message, At: time.Now()})
		return nil, false
	case news:
		f.link.report(control.AgentEvent{Type: control.EventUpstream, Tunnel: t.ID, OK: true, At: time.Now()})
	}
	return up, true
}

// codeBusy is the code of a dial that was not made: too many are under way.
const codeBusy = "upstream_busy"

// connect dials the upstream when it is its turn. news says that it went another
// way than the last time. Without an upstream and without a failure ctx has ended,
// and nothing is known.
func (t *served) connect(ctx context.Context, log *slog.Logger) (up net.Conn, failure *control.Error, news bool) {
	if !t.turn() {
		log.Debug("refused a visitor: the upstream is too slow to take those before", "dials", maxDials)
		return nil, &control.Error{Code: codeBusy, Message: "too many connections wait for the upstream"}, false
	}
	up, failure = dialUpstream(ctx, t.upstream, t.protocol(), t.InsecureUpstreamTLS)
	t.done()
	if ctx.Err() != nil { // withdrawn meanwhile, or the visitor has gone
		if up != nil {
			up.Close()
		}
		return nil, nil, false
	}
	news = t.set.dialled(t, failure)
	switch {
	case news && failure != nil:
		log.Info("upstream cannot be dialled", "err", failure) // the user has had an event
	case news:
		log.Info("upstream is back")
	}
	return up, failure, news
}

// protocol is what an https upstream must agree to speak, as ALPN has it.
func (t *served) protocol() string {
	if t.UpstreamProtocol == tunnel.HTTP2 {
		return "h2"
	}
	return "http/1.1"
}

func (f *forwarder) relay(t *served, c net.Conn, up net.Conn, visitor netip.AddrPort, log *slog.Logger, level slog.Level) {
	log.Log(t.ctx, level, "connection opened")
	start := time.Now()
	t.passed.Begin(start)
	var v *visit // nil: requests are visits
	if t.Kind != tunnel.HTTP {
		v = t.claim.visits.begin(f.set.nameOf(t), visitorText(visitor, true), start)
	}
	var stats relay.Stats
	var err error
	defer func() {
		took := time.Since(start)
		t.passed.End(took)
		if v != nil {
			t.claim.visits.end(v, took, stats.AtoB, stats.BtoA, err)
		}
	}()
	if t.ProxyProtocol != 0 {
		if err = writeHeader(up, t.ProxyProtocol, visitor, f.set.publicPort(t, f.link)); err != nil {
			log.Warn("PROXY header", "err", err)
			relay.Abort(c)
			up.Close()
			return
		}
	}
	stats, err = relay.Copy(t.ctx, c, up)
	attrs := []any{"to_upstream", stats.AtoB, "to_visitor", stats.BtoA, "took", time.Since(start).Round(time.Millisecond)}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	log.Log(t.ctx, level, "connection closed", attrs...)
}

// writeHeader tells the upstream of the visitor, and of the port that was asked
// for: of the edge's addresses only the edge knows which one it was.
func writeHeader(up net.Conn, version int, visitor netip.AddrPort, port uint16) error {
	if err := up.SetWriteDeadline(time.Now().Add(headerTimeout)); err != nil {
		return err
	}
	edge := netip.IPv6Unspecified()
	if visitor.Addr().Is4() {
		edge = netip.IPv4Unspecified()
	}
	if err := relay.WriteProxyHeader(up, version, visitor, netip.AddrPortFrom(edge, port)); err != nil {
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
