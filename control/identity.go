package control

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/wgexpose/wgexpose/tunnel"
)

// maxConns is how many connections a node may hold. An agent needs one; the
// rest is room for those that a crashed process left behind.
const maxConns = 16

// nodeListener hands out connections of nodes only, as *nodeConn.
type nodeListener struct {
	net.Listener
	overlay tunnel.Overlay
	log     *slog.Logger

	mu    sync.Mutex                    // guards conns
	conns map[tunnel.NodeID][]*nodeConn // open ones, oldest first
}

// nodeConn is a connection whose caller is known.
type nodeConn struct {
	net.Conn
	id tunnel.NodeID
	l  *nodeListener
}

func newNodeListener(l net.Listener, overlay tunnel.Overlay, log *slog.Logger) *nodeListener {
	return &nodeListener{Listener: l, overlay: overlay, log: log, conns: map[tunnel.NodeID][]*nodeConn{}}
}

// Accept closes connections that do not come from a node's own address: a
// tunnel's or a visitor's address is no caller.
func (l *nodeListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		id, ok := caller(l.overlay, c.RemoteAddr())
		if !ok {
			l.log.Warn("refused a control connection from an address that is no node's own", "from", c.RemoteAddr().String())
			c.Close()
			continue
		}
		n := &nodeConn{Conn: c, id: id, l: l}
		if old := l.add(n); old != nil {
			l.log.Debug("closed a node's oldest control connection: it has too many", "node", id)
			old.Close()
		}
		return n, nil
	}
}

// caller is the node whose own address a is.
func caller(overlay tunnel.Overlay, a net.Addr) (tunnel.NodeID, bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return 0, false
	}
	addr, ok := netip.AddrFromSlice(tcp.IP)
	if !ok {
		return 0, false
	}
	id, _, _, ok := overlay.Parse(addr)
	// Exactly the one address: kind 0 has a single value.
	if !ok || addr != overlay.NodeAddr(id) {
		return 0, false
	}
	return id, true
}

// add counts c in, and returns the node's oldest connection when it has too
// many. The newest wins, so that leftovers never lock an agent out.
func (l *nodeListener) add(c *nodeConn) (old *nodeConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conns := append(l.conns[c.id], c)
	if len(conns) > maxConns {
		old, conns = conns[0], conns[1:]
	}
	l.conns[c.id] = conns
	return old
}

func (l *nodeListener) remove(c *nodeConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conns := l.conns[c.id]
	for i, o := range conns {
		if o == c {
			conns = append(conns[:i:i], conns[i+1:]...)
			break
		}
	}
	if len(conns) == 0 {
		delete(l.conns, c.id)
		return
	}
	l.conns[c.id] = conns
}

func (c *nodeConn) Close() error {
	c.l.remove(c)
	return c.Conn.Close()
}
