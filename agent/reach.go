package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/wg"
)

const (
	// handshakePause keeps handshakes apart: an edge drops one that comes
	// within 20 ms of the one before as a flood (wireguard-go,
	// device/constants.go, HandshakeInitationRate).
	handshakePause = 50 * time.Millisecond
	// lookupPatience is how long addresses that were good before wait for the
	// resolver, which may hang on a network that has just changed.
	lookupPatience = 100 * time.Millisecond
	// maxTargets bounds the addresses that one handshake is sent to.
	maxTargets = 16
)

// roundWaits is how long each round of a reach waits for an answer. An answer may
// take longer than the first, and each round makes the answer to the one before
// worthless; so they grow.
var roundWaits = []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second}

// unreachableError says that no endpoint of an edge answered.
type unreachableError struct {
	tried   []string // HOST:PORT
	joining bool     // with an invite, and no agent yet
	err     error    // of the name resolution, or nil
	// stream is why TLS does not help, or nil: it was not tried.
	stream error
}

func (e *unreachableError) Error() string {
	switch {
	case len(e.tried) == 0 && e.err == nil && e.stream != nil:
		return fmt.Sprintf("the edge cannot be reached over TLS: %v", e.stream)
	case len(e.tried) == 0 && e.err != nil:
		return e.err.Error()
	case len(e.tried) == 0:
		return "there was no time to reach the edge"
	}
	whom := "this agent"
	if e.joining {
		whom = "the invite"
	}
	msg := fmt.Sprintf("the edge does not answer at %s: it may be stopped, it may have revoked %s, or something on the way blocks UDP", strings.Join(e.tried, ", "), whom)
	if e.err != nil {
		msg += fmt.Sprintf(" (%v)", e.err)
	}
	if e.stream != nil {
		msg += fmt.Sprintf("; nor over TLS: %v", e.stream)
	}
	return msg
}

func (e *unreachableError) Unwrap() error { return e.err }

func (e *unreachableError) note(addr netip.AddrPort) {
	if s := addr.String(); !slices.Contains(e.tried, s) {
		e.tried = append(e.tried, s)
	}
}

// reach makes edge the node's peer and does a WireGuard handshake with it, over
// whichever of its addresses answers first, until timeout. Names are looked up
// anew in each round. The handshake is done even where there is a session: an
// edge that was restarted does not know it.
func (n *node) reach(ctx context.Context, edge keys.Edge, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	names := lookup{node: n, edge: edge, found: make(chan found, 1)}
	dial := attempt{node: n, edge: edge, result: make(chan dialled, 1)}
	defer names.wait()
	defer dial.end()
	defer cancel()
	defer n.paths.Aim()
	n.paths.Pin(nil)
	n.dropStream() // whatever it was, it is not trusted any more
	fail := &unreachableError{}
	answers := n.paths.Answers()
	before, err := n.handshake(edge.Key)
	if err != nil {
		return err
	}
	select {
	case <-time.After(handshakePause - time.Since(before)):
	case <-ctx.Done():
	}
	for round := 0; ctx.Err() == nil; round++ {
		wait := roundWaits[min(round, len(roundWaits)-1)]
		wait += rand.N(wait / 4)
		var addrs []netip.AddrPort
		if n.transport != TransportTLS {
			var err error
			addrs, err = names.addrs(ctx, wait)
			// Of a resolution that was cut short, only that it was is known.
			if err != nil && (fail.err == nil || ctx.Err() == nil) {
				fail.err = err
			}
			for _, addr := range addrs {
				fail.note(addr)
			}
		}
		// UDP has the first word, unless it cannot be said.
		if n.stream == nil && n.streamsTo(edge) && (round > 0 || len(addrs) == 0) {
			dial.begin(ctx)
		}
		targets, until := n.targets(addrs, round), time.Now().Add(wait)
		news, err := n.try(ctx, edge.Key, targets, until, before, dial.result)
		if err == nil && news.dialled != nil && news.dialled.err != nil {
			// The rest of the round belongs to what was called.
			dial.busy, fail.stream = false, news.dialled.err
			news, err = n.try(ctx, edge.Key, nil, until, before, nil)
		}
		switch {
		case err != nil:
			return err
		case news.done:
			n.heeded = n.paths.Answers() != answers
			return n.settle(edge.Key)
		case news.nudged:
			// Another network: what was tried so far counts for nothing.
			if err := n.dev.Rebind(); err != nil {
				return err
			}
			round, n.trial = -1, trial{}
		case news.dialled != nil:
			dial.busy, fail.stream = false, nil
			if err := n.useStream(*news.dialled); err != nil {
				return err
			}
			round = 1 // the next one is for all
		}
	}
	return fail
}

// settle makes the way that the answer came the one that is used.
func (n *node) settle(key keys.Public) error {
	switch ep := n.paths.Answer().(type) {
	case *wg.StreamEndpoint:
		n.paths.Pin(ep)
	case *wg.Endpoint:
		// Not the endpoint itself, which insists on the local address that the
		// answer came to: the system chooses, and may choose otherwise later.
		to, err := n.paths.At(ep.AddrPort())
		if err != nil {
			return err
		}
		n.paths.Pin(to)
		n.dropStream()
	}
	// Not before: turning it on begins a handshake of its own, and the edge takes
	// the second of two that come together for a flood.
	n.keepalive = keepalive
	if err := n.dev.SetPeer(edgePeer(key, netip.AddrPort{}, n.keepalive)); err != nil {
		return err
	}
	if n.found != nil {
		n.found()
	}
	return nil
}

// targets are what to call in a round: all addresses and the stream, or, in
// every other round, one alone. An edge answers the copy of a handshake that
// comes first; if its answer cannot come back that way, the other ways would
// never be used.
func (n *node) targets(addrs []netip.AddrPort, round int) []conn.Endpoint {
	var all []conn.Endpoint
	for _, addr := range addrs {
		ep, err := n.paths.At(addr)
		if err != nil {
			continue // its zone is gone, with its interface
		}
		all = append(all, ep)
	}
	if n.stream != nil {
		all = append(all, n.stream.Endpoint())
	}
	if round%2 == 0 || len(all) < 2 {
		return all
	}
	i := round / 2 % len(all)
	return all[i : i+1]
}

// tried is how a try went; the zero value is that time has passed in vain.
type tried struct {
	done    bool
	nudged  bool     // the network changed
	dialled *dialled // a dial of a stream has ended
}

// try calls targets, if there are any, and waits until then for a handshake that
// is newer than before.
func (n *node) try(ctx context.Context, key keys.Public, targets []conn.Endpoint, until, before time.Time, stream <-chan dialled) (tried, error) {
	end := time.NewTimer(time.Until(until))
	defer end.Stop()
	if len(targets) > 0 {
		n.paths.Aim(targets...)
		// The endpoint is one that packets never go to: without an answer there is
		// no session, and handshakes go to the targets.
		first := targets[0].(interface{ AddrPort() netip.AddrPort }).AddrPort()
		if err := n.dev.SetPeer(edgePeer(key, first, n.keepalive)); err != nil {
			return tried{}, err
		}
		if err := n.dev.Restart(key); err != nil {
			n.log.Debug("call the edge", "err", err) // there may be no network
		}
	}
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		last, err := n.handshake(key)
		if err != nil {
			return tried{}, err
		}
		if !last.Equal(before) {
			return tried{done: true}, nil
		}
		select {
		case <-time.After(pause):
		case <-n.nudges:
			return tried{nudged: true}, nil
		case d := <-stream:
			return tried{dialled: &d}, nil
		case <-end.C:
			return tried{}, nil
		case <-ctx.Done():
			return tried{}, nil
		}
	}
}

// edgePeer is an edge as the only peer of a device.
func edgePeer(key keys.Public, endpoint netip.AddrPort, keepalive time.Duration) wg.Peer {
	return wg.Peer{
		Key: key, Endpoint: endpoint, Keepalive: keepalive,
		// Visitors' packets come with their own source addresses.
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.IPv6Unspecified(), 0)},
	}
}

// handshake is when the last one with the peer was; zero for none.
func (n *node) handshake(key keys.Public) (time.Time, error) {
	p, _, err := n.dev.Peer(key)
	return p.LastHandshake, err
}

// lookup finds an edge's addresses. A resolver that hangs does not hold up
// addresses that were found before.
type lookup struct {
	node  *node
	edge  keys.Edge
	busy  bool
	found chan found
}

type found struct {
	addrs []netip.AddrPort
	err   error
}

// addrs are the edge's addresses as far as they are known within wait.
func (l *lookup) addrs(ctx context.Context, wait time.Duration) ([]netip.AddrPort, error) {
	if !l.busy {
		l.busy = true
		go func() {
			addrs, err := resolve(ctx, l.node.resolver, l.edge)
			l.found <- found{addrs, err}
		}()
	}
	if len(l.node.known) > 0 {
		wait = min(wait, lookupPatience)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case f := <-l.found:
		l.busy = false
		if len(f.addrs) > 0 {
			l.node.known = f.addrs[:min(len(f.addrs), maxTargets)]
		}
		return l.node.known, f.err
	case <-timer.C:
		if len(l.node.known) == 0 {
			return nil, l.late()
		}
		return l.node.known, nil
	case <-ctx.Done():
		return l.node.known, fmt.Errorf("%w: %w", l.late(), ctx.Err())
	}
}

// late says whose name servers did not answer.
func (l *lookup) late() error {
	var names []string
	for _, ep := range l.edge.Endpoints {
		if ep.Kind == keys.EndpointUDP {
			names = append(names, ep.Addr)
		}
	}
	return fmt.Errorf("the edge's host name could not be looked up in time (%s)", strings.Join(names, ", "))
}

// wait lets the resolution that is under way end. Its context must have ended.
func (l *lookup) wait() {
	if l.busy {
		<-l.found
	}
}

// resolver finds the addresses of a host, as net.Resolver.LookupNetIP does.
type resolver func(ctx context.Context, network, host string) ([]netip.Addr, error)

// resolve lists the UDP addresses of an edge, of both families.
func resolve(ctx context.Context, find resolver, edge keys.Edge) ([]netip.AddrPort, error) {
	var addrs []netip.AddrPort
	var errs []error
	for _, ep := range edge.Endpoints {
		if ep.Kind != keys.EndpointUDP {
			continue
		}
		host, portText, err := net.SplitHostPort(ep.Addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("the edge's endpoint %q is not HOST:PORT: %w", ep.Addr, err))
			continue
		}
		port, err := strconv.ParseUint(portText, 10, 16)
		if err != nil {
			errs = append(errs, fmt.Errorf("the edge's endpoint %q has no port number: %w", ep.Addr, err))
			continue
		}
		ips, err := find(ctx, "ip", host)
		if err != nil {
			errs = append(errs, fmt.Errorf("the edge's host name %s cannot be resolved: %w", host, err))
			continue
		}
		for _, ip := range ips {
			if addr := netip.AddrPortFrom(ip.Unmap(), uint16(port)); !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	if len(addrs) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("the edge has no UDP endpoint"))
	}
	return addrs, errors.Join(errs...)
}
