package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
)

// handshakeWait is how long a handshake waits for a certificate that is being
// obtained. A visitor's browser has given up by then.
const handshakeWait = 30 * time.Second

// A Manager obtains, keeps, renews and serves certificates. All methods may be
// called from any goroutine, before, while and after Run runs.
type Manager struct {
	cfg    Config
	domain string // canonical; may be ""
	log    *slog.Logger

	started atomic.Bool
	live    atomic.Pointer[live] // what Run opened; set before opened is closed
	opened  chan struct{}        // closed once Run has opened everything

	endOnce sync.Once
	ended   chan struct{} // closed when Run is over
	endErr  error         // why; written before ended is closed
}

// New checks cfg. It does no I/O and starts nothing.
func New(cfg Config) (*Manager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, log: cfg.Logger, opened: make(chan struct{}), ended: make(chan struct{})}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Domain != "" {
		m.domain, _ = canonical(cfg.Domain) // checked by Validate
	}
	return m, nil
}

// Run opens the storage, loads or makes the internal authority, and keeps the
// domain's and all wanted certificates fresh until ctx ends, when it returns
// nil. It returns early only when it cannot open. Run may be called once.
//
// An ACME authority that cannot be reached is no reason to fail: what the
// storage has is served, and the rest is tried again.
func (m *Manager) Run(ctx context.Context) (err error) {
	if m.started.Swap(true) {
		return errors.New("certificates: Run was called twice")
	}
	defer func() { m.end(err) }()
	if m.cfg.Mode == Off {
		<-ctx.Done()
		return nil
	}
	l, err := open(m.cfg, m.domain, m.log)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("certificates: %w", err)
	}
	return l.run(ctx, func() {
		m.live.Store(l)
		close(m.opened)
	})
}

func (m *Manager) end(err error) {
	m.endOnce.Do(func() {
		if err == nil {
			err = ErrClosed
		}
		m.endErr = err
		close(m.ended)
	})
}

// running waits until Run has opened everything. It returns Run's error, or
// ErrClosed, when Run is over.
func (m *Manager) running(ctx context.Context) (*live, error) {
	select {
	case <-m.ended:
		return nil, m.endErr
	default:
	}
	select {
	case <-m.opened:
		return m.live.Load(), nil
	case <-m.ended:
		return nil, m.endErr
	case <-ctx.Done():
		return nil, fmt.Errorf("certificates: waiting for Run: %w", context.Cause(ctx))
	}
}

// Manage makes sure that there are certificates for hosts, before a visitor
// asks for them. Call it when the hosts are in the table: names for which
// Config.Allowed is false are refused with ErrNotAllowed. Names that have a
// certificate, or that are being worked on, cost nothing.
//
// Before Run it waits for Run. With Internal the certificates are there when it
// returns. With ACME it returns once the orders are under way, because an
// authority may take minutes; they are repeated until they succeed, handshakes
// wait for them, and failures are logged.
//
// The error joins those of the single hosts; the other hosts are not affected.
func (m *Manager) Manage(ctx context.Context, hosts ...string) error {
	if m.cfg.Mode == Off || len(hosts) == 0 {
		return nil
	}
	l, err := m.running(ctx)
	if err != nil {
		return err
	}
	var errs []error
	wanted := make([]*order, 0, len(hosts))
	for _, h := range hosts {
		host, err := canonical(h)
		if err != nil {
			errs = append(errs, fmt.Errorf("certificate for %s: %w", h, err))
			continue
		}
		o, err := l.want(host)
		if err != nil {
			errs = append(errs, fmt.Errorf("certificate for %s: %w", host, err))
		} else if o != nil {
			wanted = append(wanted, o)
		}
	}
	if m.cfg.Mode == Internal {
		for _, o := range wanted {
			if err := o.wait(ctx); err != nil {
				errs = append(errs, fmt.Errorf("certificate for %s: %w", o.subject, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Outside says that no certificate for host can be had: an *OutsideError where
// the internal authority cannot vouch for it and no own certificate covers it.
// Before Run it waits for Run.
func (m *Manager) Outside(ctx context.Context, host string) error {
	if m.cfg.Mode != Internal {
		return nil
	}
	l, err := m.running(ctx)
	if err != nil {
		return err
	}
	if host, err = canonical(host); err != nil {
		return err
	}
	if l.covers(host) || within(host, l.domain) {
		return nil
	}
	return &OutsideError{Host: host, Domain: l.domain}
}

// Covers reports whether a certificate in memory, a wildcard too, is good for
// host.
func (m *Manager) Covers(host string) bool {
	l := m.live.Load()
	if l == nil {
		return false
	}
	host, err := canonical(host)
	return err == nil && l.covers(host)
}

// authenticated are the cipher suites of TLS 1.2 with forward secrecy and
// authenticated encryption. crypto/tls adds CBC with SHA-1, which no browser of the
// last ten years needs and scanners warn of (Lucky 13). TLS 1.3 has its own.
var authenticated = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// TLSConfig returns a configuration for the visitors' listeners: TLS 1.2 and
// later, HTTP/2, HTTP/1.1 and HTTP/1.0, and with ACME the protocol of TLS-ALPN-01.
// It is nil when the mode is Off. It may be taken before Run; handshakes wait for it.
//
// A name that is not in the table and that no certificate covers gets the alert
// unrecognized_name (RFC 6066 section 3). A client that sends no name gets the
// domain's certificate.
func (m *Manager) TLSConfig() *tls.Config {
	if m.cfg.Mode == Off {
		return nil
	}
	// http/1.0 is all that curl --http1.0 offers, and who offers nothing that is here
	// gets an alert (RFC 7301 section 3.2). nginx agrees to it, too.
	protos := []string{"h2", "http/1.1", "http/1.0"}
	if m.cfg.Mode == ACME && m.cfg.serves(TLSALPN01) {
		protos = append(protos, acmez.ACMETLS1Protocol)
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		CipherSuites:   authenticated,
		NextProtos:     protos,
		GetCertificate: m.certificate,
	}
}

func (m *Manager) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return m.Certificate(hello.Context(), hello)
}

// Certificate is the GetCertificate of [Manager.TLSConfig] for a server that has a
// context of its own: it may shake hands without one, which spares crypto/tls a
// goroutine for each handshake. Without a certificate and without an error crypto/tls
// sends unrecognized_name; with an error, internal_error.
func (m *Manager) Certificate(ctx context.Context, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !m.Covers(hello.ServerName) { // else there is nothing to wait for
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, handshakeWait)
		defer cancel()
	}
	l, err := m.running(ctx)
	if err != nil {
		return nil, err
	}
	name := hello.ServerName
	if name == "" {
		name = m.domain
	}
	host, err := canonical(name)
	if err != nil {
		return nil, nil
	}
	if !l.ca() && IsChallenge(hello) {
		if !l.allowed(host) {
			return nil, nil
		}
		return only(l.config.GetCertificateWithContext(ctx, hello))
	}
	if c := l.own.find(host, hello, time.Now()); c != nil {
		return c, nil
	}
	if !l.covers(host) {
		o, err := l.want(host)
		if errors.Is(err, ErrNotAllowed) || isOutside(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if o != nil {
			if err := o.wait(ctx); err != nil {
				return nil, fmt.Errorf("certificate for %s: %w", host, err)
			}
		}
	}
	return only(l.config.GetCertificateWithContext(ctx, hello))
}

// only drops the empty certificate that certmagic returns beside an error.
func only(c *tls.Certificate, err error) (*tls.Certificate, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

func isOutside(err error) bool {
	var o *OutsideError
	return errors.As(err, &o)
}

// HTTPChallenge wraps the handler of the plain HTTP listener: it answers an
// ACME authority's HTTP-01 probes for challenges that are under way, and hands
// everything else to next, also other requests below
// /.well-known/acme-challenge/.
func (m *Manager) HTTPChallenge(next http.Handler) http.Handler {
	if m.cfg.Mode != ACME || !m.cfg.serves(HTTP01) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if certmagic.LooksLikeHTTPChallenge(r) {
			// Any issuer finds the challenges of all.
			if l := m.live.Load(); l != nil && l.acmes[0].HandleHTTPChallenge(w, r) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
