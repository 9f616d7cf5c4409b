package agent

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/tunnel"
)

// site serves the requests of one http tunnel whose TLS ends at this agent, as an
// edge does for the others.
type site struct {
	tunnel *served
	proxy  *proxy.Proxy
	server *http.Server
}

// newSite opens nothing and starts nothing.
func newSite(t *served) *site {
	log := t.set.log.With("tunnel", t.Name, "upstream", t.Spec.Upstream)
	s := &site{tunnel: t, proxy: proxy.New(proxy.Config{
		Dial:        func(ctx context.Context) (net.Conn, error) { return t.dialForRequests(ctx, log) },
		HostHeader:  t.HostHeader,
		HTTP2:       t.UpstreamProtocol == tunnel.HTTP2,
		Compression: t.Compression,
		HSTS:        t.HSTS,
		Logger:      log,
	})}
	s.server = proxy.NewServer(s, log)
	s.server.BaseContext = func(net.Listener) context.Context { return t.ctx }
	return s
}

// dialForRequests is connect in the words of package proxy.
func (t *served) dialForRequests(ctx context.Context, log *slog.Logger) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.dial, cancel)()
	up, failure, _ := t.connect(ctx, log)
	switch {
	case failure != nil && failure.Code == codeBusy:
		return nil, proxy.UpstreamBusy
	case failure != nil:
		return nil, proxy.UpstreamFailed(failure.Code, failure.Message)
	case up == nil && t.dial.Err() != nil:
		return nil, withdrawn
	case up == nil:
		return nil, ctx.Err()
	}
	return t.tap(up, netip.AddrPort{}), nil
}

// withdrawn is what visitors read who come at the very end.
var withdrawn = &proxy.Problem{
	Status: http.StatusServiceUnavailable,
	Code:   "agent_away",
	Title:  "The service is offline",
	Detail: "The machine behind this address is just ending its service. If it is yours, start wgexpose on it again; else try again later.",
}

// serve answers the requests of one connection until it is closed.
func (s *site) serve(secure *tls.Conn, c *visitorConn) {
	conn := proxy.Secured(secure)
	if conn == nil { // cannot be: no other protocol is offered
		return
	}
	// The error says that the connection is gone, or the tunnel is withdrawn: then
	// what runs on it goes on.
	l := &single{conn: conn, gone: c.gone, closed: make(chan struct{})}
	_ = s.server.Serve(l)
	if l.conn == nil {
		<-c.gone
	}
}

// ServeHTTP holds requests to the name that the connection was opened for.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, err := tunnel.CanonicalHost(proxy.HostOnly(r.Host))
	if err != nil {
		proxy.WriteProblem(w, r, proxy.BadHost)
		return
	}
	if sni, err := tunnel.CanonicalHost(r.TLS.ServerName); err != nil || sni != host {
		proxy.WriteProblem(w, r, proxy.Misdirected)
		return
	}
	s.proxy.ServeHTTP(w, r)
}

// drain lets no new requests in and waits for those under way until ctx ends.
func (s *site) drain(ctx context.Context) {
	// The error says that ctx ended first: what is left is cut off then.
	_ = s.server.Shutdown(ctx)
	s.proxy.Close() // never fails
}

// single is a listener for one connection that was accepted before.
type single struct {
	conn   net.Conn // nil once it was handed out
	gone   chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept gives the connection, and then waits for its end.
func (l *single) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	select {
	case <-l.gone:
	case <-l.closed:
	}
	return nil, net.ErrClosed
}

func (l *single) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *single) Addr() net.Addr { return &net.TCPAddr{} } // for nobody to read
