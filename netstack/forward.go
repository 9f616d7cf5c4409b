package netstack

import (
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// maxRequests bounds the requests that wait for an answer at the same time;
// SYNs beyond it are dropped and come again. Who answers requests bounds each
// tunnel's share well below this.
const maxRequests = 1 << 14

// ForwardTCP hands every connection that no listener takes to fn, on a
// goroutine of its own, before it is accepted: the other end waits with an
// unanswered SYN until fn has called the request's Accept or Reject. It may be
// called once. The connections come from everywhere; they, and those that are
// dialled afterwards, are taken to lead through one node, as an agent's do.
func (s *Stack) ForwardTCP(fn func(*Request)) {
	s.forwardOnce.Do(func() {
		s.peers.areOne()
		f := tcp.NewForwarder(s.stack, 2*windowFirst, maxRequests, func(r *tcp.ForwarderRequest) {
			id := r.ID()
			fn(&Request{
				stack: s,
				req:   r,
				from:  addrPort(tcpip.FullAddress{Addr: id.RemoteAddress, Port: id.RemotePort}),
				to:    addrPort(tcpip.FullAddress{Addr: id.LocalAddress, Port: id.LocalPort}),
			})
		})
		s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
			return f.HandlePacket(id, pkt)
		})
	})
}

// Request is a connection that somebody asks for. Exactly one of Accept and
// Reject must be called, once.
type Request struct {
	stack    *Stack
	req      *tcp.ForwarderRequest
	from, to netip.AddrPort
}

// From is who asks: in the overlay, the visitor.
func (r *Request) From() netip.AddrPort { return r.from }

// To is what they ask for: in the overlay, its address names the tunnel.
func (r *Request) To() netip.AddrPort { return r.to }

// Accept completes the handshake.
func (r *Request) Accept() (*Conn, error) {
	var wq waiter.Queue
	ep, terr := r.req.CreateEndpoint(&wq)
	if terr != nil {
		r.req.Complete(true)
		return nil, fmt.Errorf("accept %v from %v: %w", r.to, r.from, translate(terr))
	}
	r.req.Complete(false)
	if err := r.stack.prepare(ep); err != nil {
		ep.Close()
		return nil, fmt.Errorf("accept %v from %v: %w", r.to, r.from, err)
	}
	return r.stack.newConn(ep, &wq, r.to, r.from), nil
}

// Reject answers with a RST.
func (r *Request) Reject() { r.req.Complete(true) }
