package netstack

import (
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const backlog = 1024

// listener is a net.Listener on the node's own address.
type listener struct {
	stack     *Stack
	ep        tcpip.Endpoint
	queue     *waiter.Queue
	entry     waiter.Entry
	ready     chan struct{}
	addr      netip.AddrPort
	closed    chan struct{}
	closeOnce sync.Once
}

// ListenTCP listens on a port of the node's own address; zero takes a free
// one. The listener's connections are *Conn.
func (s *Stack) ListenTCP(port uint16) (net.Listener, error) {
	var wq waiter.Queue
	addr := netip.AddrPortFrom(s.addr, port)
	fail := func(terr tcpip.Error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: translate(terr)}
	}
	ep, terr := s.stack.NewEndpoint(tcp.ProtocolNumber, ipv6.ProtocolNumber, &wq)
	if terr != nil {
		return fail(terr)
	}
	if terr := ep.Bind(fullAddress(addr)); terr != nil {
		ep.Close()
		return fail(terr)
	}
	if terr := ep.Listen(backlog); terr != nil {
		ep.Close()
		return fail(terr)
	}
	local, terr := ep.GetLocalAddress()
	if terr != nil {
		ep.Close()
		return fail(terr)
	}
	l := &listener{
		stack: s, ep: ep, queue: &wq, addr: addrPort(local),
		ready:  make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	l.entry.Init(waiter.ChannelNotifier(l.ready), waiter.ReadableEvents|waiter.EventErr|waiter.EventHUp)
	wq.EventRegister(&l.entry)
	return l, nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		if isClosed(l.closed) {
			return nil, l.opError(net.ErrClosed)
		}
		var peer tcpip.FullAddress
		ep, wq, terr := l.ep.Accept(&peer)
		if terr == nil {
			if err := l.stack.prepare(ep); err != nil {
				// An error would end whoever serves the listener.
				l.stack.link.logger.Error("connection dropped", "visitor", addrPort(peer), "err", err)
				ep.Abort()
				continue
			}
			// More may be waiting than one token can tell.
			select {
			case l.ready <- struct{}{}:
			default:
			}
			return l.stack.newConn(ep, wq, l.addr, addrPort(peer)), nil
		}
		if _, wait := terr.(*tcpip.ErrWouldBlock); !wait {
			if isClosed(l.closed) {
				return nil, l.opError(net.ErrClosed)
			}
			return nil, l.opError(translate(terr))
		}
		select {
		case <-l.ready:
		case <-l.closed:
		}
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	err := l.opError(net.ErrClosed)
	l.closeOnce.Do(func() {
		err = nil
		close(l.closed)
		l.queue.EventUnregister(&l.entry)
		l.ep.Close()
	})
	return err
}

// Addr implements net.Listener; it is a *net.TCPAddr.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

func (l *listener) opError(err error) error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: err}
}
