package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/wg"
)

const (
	// handshakePause keeps handshakes apart: an edge drops one that comes
	// within 20 ms of the one before as a flood (wireguard-go,
	// device/constants.go, HandshakeInitationRate).
	handshakePause = 50 * time.Millisecond
	// timeWait is short because an agent mostly closes second, and a visitor's
	// port that comes again must not be swallowed.
	timeWait = time.Millisecond
	// keepalive keeps the way from the edge open through NATs while no event
	// stream does it, such as when an edge restarts and calls its agents.
	// RFC 4787 lets a NAT forget UDP after 2 minutes; many do after 30 s.
	keepalive = 25 * time.Second
)

// node is one WireGuard device and one netstack on it.
type node struct {
	stack     *netstack.Stack
	dev       *wg.Device
	keepalive time.Duration  // of the peer; see try
	good      netip.AddrPort // the endpoint that answered last
	once      sync.Once      // of close
}

// openNode opens the overlay node with the given key and address, on a UDP
// socket of its own.
func openNode(key keys.Private, addr netip.Addr, log *slog.Logger) (*node, error) {
	stack, err := netstack.Open(netstack.Config{Addr: addr, TimeWait: timeWait, Logger: log})
	if err != nil {
		return nil, err
	}
	dev, err := wg.Open(wg.Config{
		Key:    key,
		Tun:    stack.Device(),
		Bind:   wg.UDP(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)),
		Logger: log,
		Sent:   stack.Sent,
	})
	if err != nil {
		stack.Close()
		return nil, err
	}
	return &node{stack: stack, dev: dev}, nil
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

// unreachableError says that no endpoint of an edge answered.
type unreachableError struct {
	tried []string // HOST:PORT
	err   error    // of the name resolution, or nil
}

func (e *unreachableError) Error() string {
	switch {
	case len(e.tried) == 0 && e.err != nil:
		return e.err.Error()
	case len(e.tried) == 0:
		return "there was no time to reach the edge"
	}
	msg := fmt.Sprintf("the edge does not answer at %s: it may be stopped, or something on the way blocks UDP", strings.Join(e.tried, ", "))
	if e.err != nil {
		msg += fmt.Sprintf(" (%v)", e.err)
	}
	return msg
}

func (e *unreachableError) Unwrap() error { return e.err }

// reach makes edge the node's peer and does a WireGuard handshake with it,
// through one of its endpoints after the other, until timeout. Names are
// resolved anew each time. The handshake is done even where there is a session:
// an edge that was restarted does not know it.
func (n *node) reach(ctx context.Context, edge keys.Edge, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	fail := &unreachableError{}
	before, err := n.handshake(edge.Key)
	if err != nil {
		return err
	}
	select {
	case <-time.After(handshakePause - time.Since(before)):
	case <-ctx.Done():
	}
	// An answer may take longer than the patience with one endpoint, which
	// therefore grows.
	for patience := time.Second; ctx.Err() == nil; patience += time.Second {
		addrs, err := resolve(ctx, edge)
		// Of a resolution that was cut short, only that it was is known.
		if err != nil && (fail.err == nil || ctx.Err() == nil) {
			fail.err = err
		}
		if i := slices.Index(addrs, n.good); i > 0 {
			addrs[0], addrs[i] = addrs[i], addrs[0]
		}
		for _, addr := range addrs {
			fail.note(addr)
			done, err := n.try(ctx, edge.Key, addr, patience, before)
			if err != nil || done {
				return err
			}
		}
		if len(addrs) == 0 {
			select {
			case <-time.After(patience):
			case <-ctx.Done():
			}
		}
	}
	return fail
}

func (e *unreachableError) note(addr netip.AddrPort) {
	if s := addr.String(); !slices.Contains(e.tried, s) {
		e.tried = append(e.tried, s)
	}
}

// try asks for a handshake at addr and waits for one that is newer than
// before.
func (n *node) try(ctx context.Context, key keys.Public, addr netip.AddrPort, patience time.Duration, before time.Time) (bool, error) {
	peer := wg.Peer{
		Key: key, Endpoint: addr, Keepalive: n.keepalive,
		// Visitors' packets come with their own source addresses.
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.IPv6Unspecified(), 0)},
	}
	if err := n.dev.SetPeer(peer); err != nil {
		return false, err
	}
	if err := n.dev.Restart(key); err != nil {
		return false, err
	}
	end := time.NewTimer(patience)
	defer end.Stop()
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		last, err := n.handshake(key)
		if err != nil {
			return false, err
		}
		if !last.Equal(before) {
			// Not before: turning it on begins a handshake of its own, and the
			// edge takes the second of two that come together for a flood.
			n.good = addr
			n.keepalive, peer.Keepalive, peer.Endpoint = keepalive, keepalive, netip.AddrPort{}
			return true, n.dev.SetPeer(peer)
		}
		select {
		case <-time.After(wait):
		case <-end.C:
			return false, nil
		case <-ctx.Done():
			return false, nil
		}
	}
}

// handshake is when the last one with the peer was; zero for none.
func (n *node) handshake(key keys.Public) (time.Time, error) {
	p, _, err := n.dev.Peer(key)
	return p.LastHandshake, err
}

// resolve lists the UDP addresses of an edge.
func resolve(ctx context.Context, edge keys.Edge) ([]netip.AddrPort, error) {
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
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			errs = append(errs, fmt.Errorf("the edge's host name %s cannot be resolved: %w", host, err))
			continue
		}
		for _, ip := range ips {
			addrs = append(addrs, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
		}
	}
	if len(addrs) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("the edge has no UDP endpoint"))
	}
	return addrs, errors.Join(errs...)
}
