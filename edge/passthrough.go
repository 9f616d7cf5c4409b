package edge

import (
	"net"

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

// carryApart carries a connection on a goroutine of its own, which the end of the
// front waits for.
func (f *front) carryApart(conn net.Conn, rt *route) {
	done := f.active.add()
	go func() {
		defer done()
		f.carry(conn, rt, f.tally.ways[wayTLS])
	}()
}
