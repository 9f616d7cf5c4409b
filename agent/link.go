package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netwatch"
	"github.com/wgexpose/wgexpose/tunnel"
)

const (
	// silence is how long an edge may say nothing: it sends something every 2
	// s, and answers what is sent to it. An edge waits longer, 5 s, so that
	// agents find another way before they count as away.
	silence = 3 * time.Second
	// oneWay is how long an edge may answer nothing while bytes come from it,
	// as on a path that works in one direction. A handshake that is answered
	// counts, since bulk traffic may hold up events for longer.
	oneWay = silence * 3 / 2
	// lookPause is how often it is looked for a sign of the edge when it is quiet;
	// see link.rest for how long it is not after an event.
	lookPause = silence / 10
	// maxSilence holds even then, when it is the event stream that is stuck,
	// and on a stream, where a handshake waits as long as events do.
	maxSilence = 15 * time.Second
	// connectTimeout bounds one attempt to reach an edge, to its hello.
	connectTimeout = 10 * time.Second
	// retryPause is the longest pause between two attempts. Agents that lost
	// the same edge come back spread over it.
	retryPause = 3 * time.Second
	// retryPassing and retryRefused are the least pauses, and half of the
	// longest, before tunnels that the edge does not serve are published
	// again: those that wait for something there, and those that another
	// agent must give up first.
	retryPassing = time.Second
	retryRefused = 20 * time.Second

	// reportWait is how long a refused visitor's RST waits for the report
	// that says why.
	reportWait = 200 * time.Millisecond
	// callAfter is how old a session may become while this agent's clock is
	// behind, before the edge is asked to begin the next handshake. WireGuard
	// begins one after 120 s, and gives a session up after 180 s.
	callAfter = 100 * time.Second
	// byeWait is for the edge to take note of a stream's end.
	byeWait = 300 * time.Millisecond
)

// errSessionOver means that the edge holds another session for the current
// one, because it has already given this one up.
var errSessionOver = errors.New("the edge has ended the session")

// errSuperseded ends a Run whose place another process has taken.
var errSuperseded = &control.Error{
	Code:    control.CodeSuperseded,
	Message: "another process with this agent's key took its place at the edge (was the state directory copied to another machine?): run it in one place only, and let the other one join with an invite of its own",
}

// link is the connection to one edge, kept up for as long as run runs.
//
//	connecting ──→ up ──→ degraded ──→ up
//	    └──→ down ──↗         └──→ down ──↗
type link struct {
	edge    keys.Edge
	name    string // in events
	key     keys.Private
	self    tunnel.NodeID
	overlay tunnel.Overlay
	set     *set
	log     *slog.Logger
	process string // see control.Presence
	version string // of this program
	again   bool   // there has been a session; used by session only

	// hold is waited for before anything is published; see owner.
	hold    <-chan struct{}
	reports chan report

	clock     *handshakeClock
	callAfter time.Duration // see callAfter
	call      atomic.Bool   // the edge is to begin the next handshake

	how          Reach
	pulse        pulse
	streaming    atomic.Bool  // packets go over TLS
	latency      atomic.Int64 // of the last heartbeat that was answered, in ns; 0: none yet
	prompt       atomic.Int32 // see answered
	sizing       sizing
	watchNetwork watcher // netwatch.Watch; tests have their own
	ends         *tlsEnd // nil in tests that need none
}

// transport is how packets go to the edge, or are to go.
func (l *link) transport() string {
	if l.streaming.Load() {
		return TransportTLS
	}
	return TransportUDP
}

// report is an event on its way to the edge.
type report struct {
	event control.AgentEvent
	sent  chan struct{} // closed when it is on its way
}

func newLink(edge keys.Edge, key keys.Private, state edgesState, process string, set *set, clock *handshakeClock, hold <-chan struct{}, log *slog.Logger) *link {
	name := edgeName(edge)
	l := &link{
		edge: edge, name: name, key: key, self: state.Node, overlay: state.Overlay,
		process: process, set: set, hold: hold, reports: make(chan report, maxDials), log: log.With("edge", name),
		watchNetwork: netwatch.Watch, clock: clock, callAfter: callAfter,
	}
	set.join(l)
	return l
}

// run keeps the link up until ctx ends, when it returns nil. The error is a
// *control.Error when the edge wants this agent no more.
func (l *link) run(ctx context.Context) error {
	n, err := openNode(l.key, l.overlay.NodeAddr(l.self), l.how, l.log)
	if err != nil {
		return fmt.Errorf("link to %s: %w", l.name, err)
	}
	defer n.close()
	f := &forwarder{overlay: l.overlay, node: l.self, set: l.set, link: l, edge: l.name, ends: l.ends, log: l.log}
	n.stack.ForwardTCP(f.handle)
	defer func() {
		// The stack's end breaks what the drain left.
		done := f.open.shut()
		n.close()
		<-done
	}()

	watching, unwatch := context.WithCancel(ctx)
	var monitors sync.WaitGroup
	defer monitors.Wait()
	defer unwatch()
	m := &monitor{node: n, edge: l.edge.Key, watch: l.watchNetwork, pulse: l.pulse, source: sourceFor}
	n.found = m.found
	monitors.Go(func() { m.run(watching) })

	l.streaming.Store(l.how.Transport == TransportTLS)
	l.set.linkState(l, LinkConnecting, "")
	fresh := false // the next session is to have a socket of its own
	for attempts := 0; ; attempts++ {
		up, err := l.session(ctx, n, fresh)
		if ctx.Err() != nil {
			l.set.linkState(l, LinkDown, "the command that held the link has ended")
			return nil
		}
		if control.CodeOf(err) != "" {
			l.set.linkState(l, LinkDown, err.Error())
			return err
		}
		if up {
			l.log.Info("link lost, reconnecting", "err", err)
			l.set.linkState(l, LinkDegraded, err.Error())
			attempts = 0
			// After a restart, the edge calls the socket that it knows.
			var path *pathError
			fresh = errors.As(err, &path) && l.clock.behind() == 0
			if path != nil && path.reason == reasonNetwork {
				n.trial = trial{} // it was about another network
			}
			continue // at once
		}
		l.log.Debug("no link", "attempt", attempts, "err", err)
		var none *unreachableError
		if wrong := l.clock.check(); wrong != nil && errors.As(err, &none) {
			// The edge may call, at the address that it knows.
			fresh = false
			l.set.linkState(l, LinkDegraded, wrong.Error())
		} else {
			fresh = true
			l.set.linkState(l, LinkDown, err.Error())
		}
		pause := min(time.Duration(attempts)*500*time.Millisecond, retryPause)
		select {
		case <-time.After(pause/2 + rand.N(pause/2+100*time.Millisecond)):
		case <-n.nudges:
			attempts = 0
		case <-ctx.Done():
		}
	}
}

// session connects once, with fresh on a new socket, and stays until the
// session ends. up tells whether it ever began. A *control.Error means that
// trying again is of no use, and a *pathError that the socket may be of none.
func (l *link) session(ctx context.Context, n *node, fresh bool) (up bool, err error) {
	if fresh {
		if err := n.dev.Rebind(); err != nil {
			return false, err
		}
	}
	if err := n.reach(ctx, l.edge, connectTimeout); err != nil {
		return false, err
	}
	edgeAddr := l.overlay.NodeAddr(tunnel.NodeID(l.edge.Node))
	if n.heeded {
		if err := l.clock.good(); err != nil {
			l.log.Warn("a clock that is set back will not be noticed after a restart", "err", err)
		}
	}
	client := control.NewClient(func(ctx context.Context) (net.Conn, error) {
		return n.stack.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(edgeAddr, tunnel.ControlPort))
	})
	defer client.Close()

	// The stream outlives ctx for a moment, to say goodbye.
	life, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(byeWait, cut)
	})
	defer stop()
	late := time.AfterFunc(connectTimeout, cut)
	defer late.Stop()
	listening, heardHello := context.WithCancel(life)
	var listener sync.WaitGroup
	defer listener.Wait()
	defer heardHello()
	var deaf atomic.Bool
	listener.Go(func() {
		if !l.hears(listening, n) {
			deaf.Store(true)
			cut()
		}
	})
	failed := func(err error) (bool, error) {
		if deaf.Load() {
			err = silentFor(silence)
		}
		return false, l.refusal(err)
	}

	stream, err := client.EventsOf(life, control.Presence{Process: l.process, Again: l.again, Version: l.version})
	if err != nil {
		return failed(err)
	}
	defer stream.Close()
	hello, err := stream.Recv()
	if err != nil {
		return failed(err)
	}
	heardHello()
	if listener.Wait(); deaf.Load() { // it was just giving up
		return failed(nil)
	}
	if hello.Type != control.EventHello {
		return false, fmt.Errorf("the edge began with %q instead of a hello", hello.Type)
	}
	if !late.Stop() {
		return false, errors.New("the edge's hello took too long")
	}
	l.again = true
	endSizing, err := l.sizing.begin(n, edgeAddr)
	if err != nil {
		return false, err
	}
	defer endSizing()
	l.streaming.Store(n.stream != nil)
	l.log.Info("link is up", "domain", hello.Domain, "version", hello.Version, "transport", l.transport())
	l.set.linkState(l, LinkUp, "")

	g, gctx := errgroup.WithContext(life)
	l.latency.Store(0)
	l.prompt.Store(0)
	pings := &pinger{start: time.Now()}
	g.Go(func() error { return l.receive(ctx, stream, pings) })
	ask := make(chan struct{}, 1)
	g.Go(func() error { return l.watch(gctx, n, pings, ask) })
	g.Go(func() error { return l.send(gctx, ctx, stream, pings, ask) })
	g.Go(func() error { return l.publish(gctx, client, hello.Session) })
	if n.stream != nil && n.transport == TransportAuto {
		g.Go(func() error { return l.upgrade(gctx, n, ask) })
	}
	g.Go(func() error {
		<-gctx.Done()
		stream.Close() // ends receive and send
		return nil
	})
	return true, l.refusal(g.Wait())
}

// hears returns false when nothing comes from the edge for too long, as when the
// two have other keys after a handshake, and true when ctx ends.
func (l *link) hears(ctx context.Context, n *node) bool {
	tick := time.NewTicker(silence / 10)
	defer tick.Stop()
	var rx uint64
	sign := time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return true
		}
		now, err := n.peer(l.edge.Key)
		if err != nil {
			return true // which the session finds out, too
		}
		if now.RxBytes != rx {
			rx, sign = now.RxBytes, time.Now()
		}
		if time.Since(sign) > silence {
			return false
		}
	}
}

// refusal keeps an edge's *control.Error only if it is final; anything else
// leads to the next attempt.
func (l *link) refusal(err error) error {
	switch control.CodeOf(err) {
	case control.CodeUnavailable, control.CodeInternal, control.CodeNotFound:
		return errors.New(err.Error())
	case control.CodeSuperseded:
		return errSuperseded
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return errors.New("the edge's machine answers, but the edge is just stopping or starting")
	}
	return err
}

// publish shows the set to the edge, again at each change, and after a while
// when a tunnel was refused.
func (l *link) publish(ctx context.Context, client *control.Client, session string) error {
	select {
	case <-l.hold:
	case <-ctx.Done():
		return nil
	}
	published := uint64(0) // versions begin at 1
	for {
		version, specs, changed := l.set.snapshot()
		var again <-chan time.Time
		if version != published {
			reply, err := client.Publish(ctx, control.PublishRequest{Session: session, Tunnels: specs})
			switch code := control.CodeOf(err); {
			case err == nil:
				published = version
				l.set.answered(l, version, reply)
			case ctx.Err() != nil:
				return nil
			case code == control.CodeSuperseded:
				return errSessionOver // a takeover would have been told on the stream
			case code == control.CodeUnavailable || code == control.CodeInternal:
				l.log.Warn("publish", "err", err)
			default:
				return err
			}
		}
		switch {
		case published != version:
			again = time.After(time.Second + rand.N(time.Second))
		default:
			if after := l.set.retry(l); after != 0 {
				again = time.After(after + rand.N(after))
			}
		}
		select {
		case <-changed:
		case <-again:
			published = 0
		case <-ctx.Done():
			return nil
		}
	}
}
