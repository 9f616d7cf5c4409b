package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/relay"
	"github.com/wgexpose/wgexpose/tunnel"
)

// certSource finishes TLS, as certs.Manager does.
type certSource interface {
	TLSConfig() *tls.Config
	Certificate(context.Context, *tls.ClientHelloInfo) (*tls.Certificate, error)
	Covers(host string) bool
	HTTPChallenge(http.Handler) http.Handler
}

// unrecognizedName is the alert of that name as it goes over the wire: fatal,
// 112 (RFC 6066, section 3), before any version is agreed on.
var unrecognizedName = []byte{21, 3, 3, 0, 2, 2, 112}

const (
	// farewell bounds the last words to a visitor, and the wait until it has read
	// them.
	farewell = time.Second

	// maxFarewell bounds what is read from it meanwhile, in bytes.
	maxFarewell = 64 << 10
)

// greeter is the HTTPS listener as http.Server sees it: Accept returns visitors
// that named a host which is served here and with whom TLS is agreed on.
type greeter struct {
	front    *front
	listener net.Listener
	hearing  *tls.Config
	config   *tls.Config
	bare     *tls.Config // of tls tunnels that end here: agrees to nothing by ALPN
	greeted  chan net.Conn
	room     *relay.WaitingRoom
	pace     *relay.Pace // of sessions that are not resumed

	ctx  context.Context // ends with the listener; its cause is Accept's error
	stop context.CancelCauseFunc
}

func newGreeter(f *front, l net.Listener) *greeter {
	g := &greeter{front: f, listener: l, hearing: newHearing(), greeted: make(chan net.Conn),
		room: relay.NewWaitingRoom(f.limits.greeted, f.limits.greetedPer), pace: relay.NewPace(f.cfg.Handshakes)}
	g.ctx, g.stop = context.WithCancelCause(context.Background())
	g.config = f.certs.TLSConfig().Clone()
	g.config.GetCertificate = f.shown.remember(func(info *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return f.certs.Certificate(g.ctx, info)
	}, f.keepsLeaf)
	if f.cfg.Streams != nil {
		g.config.GetCertificate = f.cfg.Streams.orSelfSigned(g.config.GetCertificate, f.cfg.Streams.isHost)
	}
	// Of what visitors offer by ALPN nothing is agreed to: the edge does not know what
	// the upstream speaks, and a server that names none takes what comes.
	g.bare = g.config.Clone()
	g.bare.NextProtos = nil
	return g
}

// run accepts and greets until the listener closes, and returns when nobody is
// being greeted any more.
func (g *greeter) run() {
	var greeting sync.WaitGroup
	defer greeting.Wait()
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			g.stop(err)
			return
		}
		place, ok := g.room.Enter(conn)
		if !ok {
			g.front.tally.refused[refusedFull].Add(1)
			g.front.log.Debug("visitor turned away", "visitor", conn.RemoteAddr(), "err", "too many connections of this address are being greeted")
			relay.Abort(conn)
			continue
		}
		greeting.Go(func() { g.greet(conn, place) })
	}
}

func (g *greeter) Accept() (net.Conn, error) {
	select {
	case conn := <-g.greeted:
		return conn, nil
	case <-g.ctx.Done():
		return nil, context.Cause(g.ctx)
	}
}

func (g *greeter) Addr() net.Addr { return g.listener.Addr() }

func (g *greeter) Close() error {
	g.stop(net.ErrClosed)
	return g.listener.Close()
}

// greet reads what a visitor wants and finishes TLS with it, or turns it away. It
// owns conn.
func (g *greeter) greet(conn net.Conn, place *relay.Place) {
	greeted := g.welcome(conn)
	if place.Leave(); greeted == nil {
		return
	}
	select {
	case g.greeted <- greeted:
	case <-g.ctx.Done():
		conn.Close()
	}
}

// welcome is greet while the visitor counts as being greeted. The result has
// nothing left to shake hands about; nil: conn is closed.
func (g *greeter) welcome(conn net.Conn) net.Conn {
	release := context.AfterFunc(g.ctx, func() { conn.Close() })
	defer release()
	turnAway := func(kind string, reason any, words []byte, attrs ...any) {
		g.front.tally.refused[kind].Add(1)
		g.front.log.Debug("visitor turned away", append(attrs, "visitor", conn.RemoteAddr(), "err", reason)...)
		if len(words) > 0 {
			sayAndClose(conn, words)
		}
		conn.Close()
	}
	conn.SetReadDeadline(time.Now().Add(g.front.limits.hello))
	var rt *route // of those whose connections are carried
	hasty, origin := false, relay.Origin(conn.RemoteAddr())
	t := &tap{Conn: conn, choose: func(h *hello) (config *tls.Config) {
		conn.SetDeadline(time.Now().Add(g.front.limits.header))
		config, rt = g.configFor(h)
		if config != nil && !g.pace.Begin(origin) {
			hasty = true
			return nil
		}
		return config
	}}
	secure, err := hear(t, g.hearing) // release ends it with g
	var bad *helloError
	switch {
	case errors.As(err, &bad):
		turnAway(refusedHello, err, bad.Answer)
		return nil
	case err != nil:
		turnAway(refusedFailed, err, nil, "sni", t.hello.ServerName)
		return nil
	case hasty:
		g.front.tally.refused[refusedHasty].Add(1)
		g.front.hasty.turnedAway(g.front.log, conn.RemoteAddr())
		relay.Abort(conn)
		return nil
	}
	if secure != nil && secure.ConnectionState().DidResume {
		g.pace.Forget(origin)
	}
	streams, untouched := g.front.cfg.Streams, &replayed{Conn: conn, first: t.hello.Bytes}
	if streams != nil && isStream(t.hello) {
		if err := streams.tls(conn, t.hello.Bytes, g.front.certs.TLSConfig().GetCertificate); err != nil {
			turnAway(refusedFailed, err, nil)
		}
		return nil // it is no visitor
	}
	conn.SetDeadline(time.Time{})
	if rt != nil {
		stream := net.Conn(untouched)
		if secure != nil {
			stream = secure
		}
		if release() {
			g.front.carryApart(stream, rt)
		}
		return nil // it is carried, or closed
	}
	if secure == nil {
		turnAway(refusedUnknown, "no such host", unrecognizedName, "sni", t.hello.ServerName)
		return nil
	}
	if !release() {
		return nil // closed
	}
	if served := proxy.Secured(secure); served != nil {
		return served
	}
	secure.Close() // an authority's probe, which has seen its certificate
	return nil
}

// configFor is what a handshake goes on with; nil where TLS does not end here, or
// where there is no such name. rt is the tunnel, if its connections are carried.
func (g *greeter) configFor(h *hello) (config *tls.Config, rt *route) {
	if g.front.cfg.Streams != nil && isStream(h) {
		return nil, nil
	}
	if rt := g.front.streamFor(h); rt != nil {
		if rt.entry.EndsTLSAtEdge() {
			return g.bare, rt
		}
		return nil, rt
	}
	if !g.front.serves(h) {
		return nil, nil
	}
	return g.config, nil
}

// serves reports whether a handshake for h makes sense: its name has a tunnel,
// or a certificate covers it, and the visitor then gets a page. Without a name
// certs shows the domain's certificate.
func (f *front) serves(h *hello) bool {
	if h.ServerName == "" || h.isChallenge() {
		return true
	}
	host, err := tunnel.CanonicalHost(h.ServerName)
	if err != nil {
		return false
	}
	return f.routes.Load().hosts[host] != nil || f.certs.Covers(host) || f.cfg.Streams != nil && f.cfg.Streams.isHost(host)
}

// keepsLeaf bounds what f.shown holds: hosts with a tunnel, and the domain. A
// wildcard would make it endless.
func (f *front) keepsLeaf(host string) bool {
	return f.routes.Load().hosts[host] != nil || host == f.cfg.Domain
}

// leafs remembers which certificate visitors see for a host. A handshake that
// resumes a session shows none, so it is kept by host and not by connection.
type leafs struct{ byHost sync.Map } // canonical host (string) → *x509.Certificate

// remember wraps tls.Config.GetCertificate. Only hosts that keep accepts are
// remembered.
func (ls *leafs) remember(get func(*tls.ClientHelloInfo) (*tls.Certificate, error), keep func(host string) bool) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(info *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := get(info)
		if err != nil || cert == nil || cert.Leaf == nil {
			return cert, err
		}
		host, err := tunnel.CanonicalHost(info.ServerName)
		if err != nil {
			return cert, nil
		}
		if last, _ := ls.byHost.Load(host); last != any(cert.Leaf) && keep(host) {
			ls.byHost.Store(host, cert.Leaf)
		}
		return cert, nil
	}
}

// covers reports whether the certificate last shown for sni is good for host.
func (ls *leafs) covers(sni, host string) bool {
	leaf, ok := ls.byHost.Load(sni)
	return ok && leaf.(*x509.Certificate).VerifyHostname(host) == nil
}

// prune forgets the hosts that keep does not accept any more.
func (ls *leafs) prune(keep func(host string) bool) {
	for host := range ls.byHost.Range {
		if !keep(host.(string)) {
			ls.byHost.Delete(host)
		}
	}
}

// sayAndClose sends the last words and closes. It waits until the visitor has
// closed too, within bounds: closing with unread data in the buffer sends a RST,
// which throws away what the visitor has not read yet.
func sayAndClose(conn net.Conn, words []byte) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(farewell))
	if _, err := conn.Write(words); err != nil {
		return
	}
	if closeWrite(conn) == nil {
		// Errors do not matter any more: it ends here either way.
		_, _ = io.CopyN(io.Discard, conn, maxFarewell)
	}
}
