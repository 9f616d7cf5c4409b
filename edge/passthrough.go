package edge

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/wgexpose/wgexpose/tunnel"
)

// streamFor returns the tunnel that a ClientHello names if its connections are
// carried as they are, or nil. An authority that checks a name by TLS-ALPN-01 is
// the visitor of whoever ends TLS: the upstream, the agent, or the edge.
func (f *front) streamFor(h *hello) *route {
	host, err := tunnel.CanonicalHost(h.ServerName)
	if err != nil {
		return nil
	}
	rt := f.routes.Load().hosts[host]
	if rt == nil || !rt.entry.PassesTLS() || h.isChallenge() && rt.entry.EndsTLSAtEdge() {
		return nil
	}
	return rt
}

// openStream makes a visitor's connection ready to be carried: the bytes as they
// came, or what is inside of TLS where that ends here. With an error conn is the
// caller's to close.
func (g *greeter) openStream(conn net.Conn, h *hello, rt *route) (net.Conn, error) {
	untouched := &replayed{Conn: conn, first: h.Bytes}
	if !rt.entry.EndsTLSAtEdge() {
		conn.SetDeadline(time.Time{})
		return untouched, nil
	}
	conn.SetDeadline(time.Now().Add(g.front.limits.header))
	secure := tls.Server(untouched, g.bare)
	if err := secure.HandshakeContext(g.ctx); err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return secure, nil
}

// carryApart carries a connection on a goroutine of its own, which the end of the
// front waits for.
func (f *front) carryApart(conn net.Conn, rt *route) {
	done := f.active.add()
	go func() {
		defer done()
		f.carry(conn, rt)
	}()
}
