package edge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/wgexpose/wgexpose/relay"
)

// errPortsEnded says that a port was asked for after the end.
var errPortsEnded = errors.New("the edge is shutting down")

// tcpPort is one public TCP port. Which tunnel it serves is looked up for each
// visitor.
type tcpPort struct {
	port     uint16
	listener net.Listener
}

// openPortsLocked opens the ports that rs needs and closes the others. The
// result has those that could not be opened. The caller holds applyMu.
func (f *front) openPortsLocked(rs *routes) map[uint16]error {
	for port, p := range f.ports {
		if rs.ports[port] == nil {
			p.listener.Close() // it only listens: nothing can be lost
			delete(f.ports, port)
		}
	}
	failed := make(map[uint16]error)
	for port := range rs.ports {
		if f.ports[port] != nil {
			continue
		}
		p, err := f.openPortLocked(port)
		if err != nil {
			failed[port] = err
			continue
		}
		f.ports[port] = p
	}
	return failed
}

func (f *front) openPortLocked(port uint16) (*tcpPort, error) {
	if f.ended {
		return nil, errPortsEnded
	}
	l, err := f.listen(netip.AddrPortFrom(f.cfg.ListenTCP, port))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("port %d is in use by another program on the edge's machine: choose another port, or stop that program: %w", port, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("the edge may not open port %d: choose one above 1023, or give the edge the right to: %w", port, err)
	case err != nil:
		return nil, fmt.Errorf("open port %d: %w", port, err)
	}
	p := &tcpPort{port: port, listener: f.steady(l)}
	done := f.active.add()
	go func() {
		defer done()
		f.acceptTCP(p)
	}()
	return p, nil
}

// closePorts closes all public TCP ports for good.
func (f *front) closePorts() {
	f.applyMu.Lock()
	defer f.applyMu.Unlock()
	f.ended = true
	for port, p := range f.ports {
		p.listener.Close()
		delete(f.ports, port)
	}
}

// closeServices lets go of all idle connections.
func (f *front) closeServices() {
	f.applyMu.Lock()
	defer f.applyMu.Unlock()
	for _, s := range f.routes.Load().services {
		s.close()
	}
}

func (f *front) acceptTCP(p *tcpPort) {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // closed: a steadyListener has no other error
		}
		done := f.active.add()
		go func() {
			defer done()
			f.serveTCP(conn, p.port)
		}()
	}
}

// serveTCP carries one visitor's connection. It owns conn.
func (f *front) serveTCP(conn net.Conn, port uint16) {
	rt := f.routes.Load().ports[port]
	if rt == nil {
		relay.Abort(conn) // the port closes just now
		return
	}
	f.carry(conn, rt, f.tally.ways[wayTCP])
}

// carry brings a connection to the upstream of rt, and its bytes both ways. It
// owns conn.
func (f *front) carry(conn net.Conn, rt *route, way *wayTally) {
	way.opened()
	defer way.closed()
	s := rt.service
	log := s.log.With("visitor", conn.RemoteAddr())
	if !rt.entry.Policy.Admits(addrPort(conn.RemoteAddr()).Addr()) {
		relay.Abort(conn)
		log.Debug("visitor turned away", "err", "its network is not allowed")
		return
	}
	ctx, cancel := context.WithCancelCause(f.base)
	defer cancel(nil)
	life := s.node.life()
	defer context.AfterFunc(life, func() { cancel(context.Cause(life)) })()

	upstream, err := f.dialFor(ctx, s, conn)
	if err != nil {
		relay.Abort(conn)
		log.Warn("visitor turned away", "err", err)
		return
	}
	log.Debug("visitor connected")
	stats, err := relay.Copy(ctx, conn, upstream)
	f.tally.fromVisitor.Add(uint64(stats.AtoB))
	f.tally.toVisitor.Add(uint64(stats.BtoA))
	log.Debug("visitor gone", "sent", stats.AtoB, "received", stats.BtoA, "err", err)
}

// dialFor opens the upstream's connection for one visitor. It comes from the
// visitor's address and port, so that the agent sees who it is.
func (f *front) dialFor(ctx context.Context, s *service, visitor net.Conn) (net.Conn, error) {
	if problem := s.reachable(); problem != nil {
		return nil, problem
	}
	from := addrPort(visitor.RemoteAddr())
	return s.dial(ctx, netip.AddrPortFrom(f.cfg.Overlay.VisitorAddr(f.cfg.Edge, from.Addr()), from.Port()))
}

// addrPort is the address of a TCP connection's end.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return tcp.AddrPort()
}
