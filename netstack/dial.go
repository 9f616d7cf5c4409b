package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// DialTCP connects to an address of the overlay.
//
// With a zero from, the connection comes from the node's own address and a
// free port. Otherwise it comes from that address and port; when they are
// taken (the port may serve a connection to another tunnel, be in TIME_WAIT,
// or be that of a connection to the same place which was reset within the last
// second), from a free port of that address.
//
// The error satisfies errors.Is with syscall.ECONNREFUSED when the other end
// refused, and with ctx's error when ctx ended the dial.
func (s *Stack) DialTCP(ctx context.Context, from, to netip.AddrPort) (*Conn, error) {
	c, err := s.dial(ctx, from, to)
	if err != nil && from.Port() != 0 && (errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)) {
		c, err = s.dial(ctx, netip.AddrPortFrom(from.Addr(), 0), to)
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	return c, nil
}

func (s *Stack) dial(ctx context.Context, from, to netip.AddrPort) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !to.Addr().Is6() || to.Addr().Is4In6() {
		return nil, fmt.Errorf("%v is no address of the overlay", to.Addr())
	}
	var wq waiter.Queue
	ep, err := s.bound(&wq, from, to)
	if err != nil {
		return nil, err
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	terr := ep.Connect(fullAddress(to))
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ready:
			terr = ep.LastError()
		case <-ctx.Done():
			ep.Close()
			return nil, ctx.Err()
		}
	}
	if terr != nil {
		ep.Close()
		return nil, translate(terr)
	}
	local, terr := ep.GetLocalAddress()
	if terr != nil {
		ep.Close()
		return nil, translate(terr)
	}
	return s.newConn(ep, &wq, addrPort(local), to), nil
}

// bindDraws is how often a free port is drawn: one that was reset just now
// comes up rarely, and several times in a row hardly ever.
const bindDraws = 8

// bound makes an endpoint for a connection from from to to; port 0 is a free
// one.
func (s *Stack) bound(wq *waiter.Queue, from, to netip.AddrPort) (tcpip.Endpoint, error) {
	if !from.Addr().IsValid() {
		// Left to choose, gVisor may take any address that the link has at
		// the moment, a visitor's for instance.
		from = netip.AddrPortFrom(s.addr, from.Port())
	}
	for draw := 1; ; draw++ {
		ep, terr := s.stack.NewEndpoint(tcp.ProtocolNumber, ipv6.ProtocolNumber, wq)
		if terr != nil {
			return nil, translate(terr)
		}
		if err := s.prepare(ep); err != nil {
			ep.Close()
			return nil, err
		}
		if terr := ep.Bind(fullAddress(from)); terr != nil {
			ep.Close()
			return nil, fmt.Errorf("bind %v: %w", from, translate(terr))
		}
		local, terr := ep.GetLocalAddress()
		if terr != nil {
			ep.Close()
			return nil, translate(terr)
		}
		if !s.link.resets.recent(pair{addrPort(local), to}, time.Now()) {
			return ep, nil
		}
		ep.Close()
		if from.Port() != 0 || draw == bindDraws {
			return nil, fmt.Errorf("bind %v: a connection to %v was reset from there just now: %w", addrPort(local), to, syscall.EADDRINUSE)
		}
	}
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom16(a.Addr().As16()), Port: a.Port()}
}

func addrPort(a tcpip.FullAddress) netip.AddrPort {
	if a.Addr.Len() != 16 {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr.As16()), a.Port)
}
