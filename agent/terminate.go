package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/relay"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

const (
	// certsDir is below the state directory.
	certsDir = "certs"

	// maxGreeted visitors may be before the end of their TLS handshake with this
	// agent, and so many of them from one address; see package relay.
	maxGreeted    = 1024
	maxGreetedPer = 512
)

// Certificates say where an agent gets its own ones, for tunnels whose TLS it
// ends. The zero value is Let's Encrypt.
type Certificates struct {
	Mode   certs.Mode // certs.ACME (also ""), or certs.Internal
	Email  string     // where the authority may write to
	CA     string     // ACME directory; "" = certmagic's default
	CARoot string     // PEM file of roots to trust for CA, besides the system's
}

// with is c with its defaults filled in, as far as they are chosen here.
func (c Certificates) with() Certificates {
	if c.Mode == "" {
		c.Mode = certs.ACME
	}
	return c
}

// CA is the root certificate of the agent's internal authority, in PEM. It wraps
// certs.ErrNoRoot when there is none.
func CA(dir *statedir.Dir) ([]byte, error) { return certs.InternalRootPEM(dir.Path(certsDir)) }

// tlsEnd ends TLS for those tunnels that ask for it, with certificates that this
// agent gets by itself: the edge passes an authority's probes on like any visitor.
type tlsEnd struct {
	set     *set
	manager *certs.Manager
	http    *tls.Config // of http tunnels
	stream  *tls.Config // of tls tunnels: nothing is agreed to by ALPN
	room    *relay.WaitingRoom
	pace    *relay.Pace // of sessions that are not resumed
	log     *slog.Logger
}

func newTLSEnd(c Certificates, dir *statedir.Dir, domain string, set *set, log *slog.Logger) (*tlsEnd, error) {
	e := &tlsEnd{set: set, room: relay.NewWaitingRoom(maxGreeted, maxGreetedPer), pace: relay.NewPace(relay.Handshakes), log: log}
	cfg := certs.Config{
		Mode: certs.ACME, Storage: dir.Path(certsDir), Issuers: []certs.Issuer{{CA: c.CA, Root: c.CARoot, Email: c.Email}},
		Challenges: []certs.Challenge{certs.TLSALPN01}, // what comes to port 80 ends at the edge
		Allowed:    set.endsTLSFor, Outcome: set.certified, Logger: log,
	}
	if c.Mode == certs.Internal {
		cfg.Mode, cfg.Domain, cfg.Apart = certs.Internal, domain, true
	}
	var err error
	if e.manager, err = certs.New(cfg); err != nil {
		return nil, err
	}
	e.http = e.manager.TLSConfig()
	e.stream = e.http.Clone()
	e.stream.NextProtos = nil
	// What the upstream of a tls tunnel speaks is not known here.
	bare := e.stream.Clone()
	e.stream.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if certs.IsChallenge(hello) {
			return e.http, nil
		}
		return bare, nil
	}
	return e, nil
}

// run gets and keeps certificates until ctx ends. It touches nothing before a
// tunnel needs one.
func (e *tlsEnd) run(ctx context.Context) {
	if e.set.wait(ctx, func() bool { return len(e.set.endsTLSLocked()) > 0 }) != nil {
		return
	}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		if err := e.manager.Run(ctx); err != nil {
			e.log.Error("certificates", "err", err)
		}
	})
	for {
		e.set.mu.Lock()
		hosts, changed := e.set.endsTLSLocked(), e.set.changed
		e.set.mu.Unlock()
		for _, host := range hosts {
			if err := e.manager.Manage(ctx, host); err != nil && ctx.Err() == nil {
				e.set.certified(host, err)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// endsTLSLocked are the hosts that edges serve for tunnels whose TLS ends here.
func (s *set) endsTLSLocked() []string {
	var hosts []string
	for _, t := range s.wanted {
		if !t.EndsTLSAtAgent() {
			continue
		}
		for _, p := range t.answers {
			if host := hostIn(p.PublicURL); host != "" && !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

// endsTLSFor reports whether host is one of them.
func (s *set) endsTLSFor(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.endsTLSLocked(), host)
}

// hostIn is the host name of a public address.
func hostIn(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// certified takes note of whether host has a certificate.
func (s *set) certified(host string, err error) {
	var why *control.Error
	if err != nil {
		why = &control.Error{Code: control.CodeCertificatePending, Message: fmt.Sprintf("there is no certificate for %s yet: %v", host, err)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certs[host] = why
	for _, t := range s.wanted {
		if t.EndsTLSAtAgent() {
			s.refreshLocked(t)
		}
	}
}

// certErrorLocked is why nobody can use a public address whose TLS ends here.
func (s *set) certErrorLocked(address string) *control.Error {
	host := hostIn(address)
	why, known := s.certs[host]
	if !known {
		why = &control.Error{Code: control.CodeCertificatePending, Message: fmt.Sprintf(
			"there is no certificate for %s yet: visitors are served as soon as the certificate authority has issued one to this agent", host)}
	}
	return why
}

// visitorConn is a connection through the overlay that says who the visitor is.
type visitorConn struct {
	*netstack.Conn
	from netip.AddrPort
	once sync.Once
	gone chan struct{} // closed with the connection
}

func (c *visitorConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.from) }

func (c *visitorConn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return c.Conn.Close()
}

func (c *visitorConn) Abort() {
	c.once.Do(func() { close(c.gone) })
	c.Conn.Abort()
}

// serveTLS ends a visitor's TLS, and then serves requests or carries what is
// inside. The upstream is not dialled before the handshake is over: an authority
// that looks whether the name is ours must be answered while the upstream is down,
// and scanners do not concern it.
func (f *forwarder) serveTLS(t *served, r *netstack.Request, visitor netip.AddrPort, log *slog.Logger) {
	accepted, err := r.Accept()
	if err != nil {
		log.Debug("accept", "err", err)
		return
	}
	c := &visitorConn{Conn: accepted, from: visitor, gone: make(chan struct{})}
	defer c.Close()
	defer context.AfterFunc(t.ctx, c.Abort)()
	secure, err := f.ends.greet(t, c)
	if err != nil {
		log.Debug("visitor turned away", "err", err)
		return
	}
	if secure.ConnectionState().NegotiatedProtocol == certs.ChallengeProtocol {
		secure.Close() // it has seen its certificate
		return
	}
	if t.site != nil {
		start := time.Now()
		t.passed.Begin(start)
		t.site.serve(secure, c)
		t.passed.End(time.Since(start))
		return
	}
	up, ok := f.connect(t, log)
	if !ok {
		c.Abort()
		return
	}
	f.relay(t, secure, up, visitor, log, slog.LevelInfo)
}

// Why a visitor is turned away before its handshake.
var (
	errCrowded = errors.New("too many connections of this address are before the end of their TLS handshake")
	errHasty   = errors.New("this address begins TLS too often")
)

// greet finishes TLS with a visitor. With an error c may be open still.
func (e *tlsEnd) greet(t *served, c *visitorConn) (*tls.Conn, error) {
	place, ok := e.room.Enter(c)
	if !ok {
		c.Abort()
		return nil, errCrowded
	}
	defer place.Leave()
	origin := relay.Origin(c.RemoteAddr())
	if !e.pace.Begin(origin) {
		c.Abort()
		return nil, errHasty
	}
	config := e.http
	if t.Kind == tunnel.TLS {
		config = e.stream
	}
	if err := c.SetDeadline(time.Now().Add(proxy.HeaderTime)); err != nil {
		return nil, err
	}
	secure := tls.Server(c, config)
	if err := secure.HandshakeContext(t.ctx); err != nil {
		return nil, err
	}
	if secure.ConnectionState().DidResume {
		e.pace.Forget(origin)
	}
	return secure, c.SetDeadline(time.Time{})
}
