package certs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

const (
	// How long an order that certmagic has given up rests before the next.
	orderPause = 10 * time.Minute
	// How often names that left the table are looked for.
	sweepEvery = time.Minute
	// How long certificates stay on disk after their expiry.
	keepExpired = 14 * 24 * time.Hour
	// How long Run waits for certmagic's maintenance, which may be in the
	// middle of a request to an authority that does not answer.
	stopWait = 5 * time.Second
)

// live is what Run opens: certmagic's parts, and the names that are wanted.
type live struct {
	cfg     Config
	domain  string
	log     *slog.Logger
	storage *certmagic.FileStorage
	cache   *certmagic.Cache
	config  *certmagic.Config
	acme    *certmagic.ACMEIssuer // nil with Internal
	plug    *plug                 // nil with Internal

	orders  chan *order   // to run's loop, which starts them
	closing chan struct{} // closed when run's loop takes no more

	mu    sync.Mutex        // guards names, and err of its orders
	names map[string]*order // by host: all that is wanted
}

// open makes everything. It leaves running only certmagic's cache, which run
// stops.
func open(cfg Config, domain string, log *slog.Logger) (_ *live, err error) {
	if err := os.MkdirAll(cfg.Storage, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for certificates: %w", err)
	}
	// Locks of a process that was killed would hold orders up until certmagic
	// takes them for stale, 10 s later. The directory is one Manager's alone.
	if err := os.RemoveAll(filepath.Join(cfg.Storage, "locks")); err != nil {
		return nil, fmt.Errorf("remove locks of a former run: %w", err)
	}
	l := &live{
		cfg: cfg, domain: domain, log: log,
		storage: &certmagic.FileStorage{Path: cfg.Storage},
		orders:  make(chan *order),
		closing: make(chan struct{}),
		names:   make(map[string]*order),
	}
	var ca *authority
	var acme certmagic.ACMEIssuer
	if cfg.Mode == Internal {
		r, err := openRoot(cfg.Storage, domain, time.Now(), log)
		if err != nil {
			return nil, err
		}
		ca = &authority{root: r, domain: domain, lifetime: cfg.lifetime}
	} else {
		if l.plug, err = openPlug(); err != nil {
			return nil, err
		}
		if acme, err = acmeTemplate(cfg, l.plug, log); err != nil {
			return nil, errors.Join(err, l.plug.close())
		}
	}
	l.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return l.config, nil },
		RenewCheckInterval: cfg.checkEvery,
		Logger:             zapLogger(log),
	})
	// What is left out here certmagic would take from its globals: Issuers too,
	// so that it is empty and not nil until there is one.
	l.config = certmagic.New(l.cache, certmagic.Config{
		RenewalWindowRatio: certmagic.DefaultRenewalWindowRatio,
		DefaultServerName:  domain,
		KeySource:          certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		Storage:            l.storage,
		OnEvent:            l.event,
		ShouldEmitFunc:     wantsEvent,
		Issuers:            []certmagic.Issuer{},
		Logger:             zapLogger(log),
		DisableARI:         ca != nil,
	})
	if ca != nil {
		l.config.Issuers = []certmagic.Issuer{ca}
	} else {
		l.acme = certmagic.NewACMEIssuer(l.config, acme)
		l.config.Issuers = []certmagic.Issuer{l.acme}
	}
	return l, nil
}

// run serves orders until ctx ends. It calls opened when handshakes can be
// served, and returns when all that it started has ended.
func (l *live) run(ctx context.Context, opened func()) error {
	defer l.stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	if l.plug != nil {
		wg.Go(l.plug.serve)
		defer l.plug.close()
	}
	defer close(l.closing)

	if l.domain != "" && !l.cfg.Apart {
		o := l.add(l.domain)
		if l.acme == nil {
			if l.keep(ctx, o); o.err != nil && ctx.Err() == nil {
				return fmt.Errorf("certificate for %s: %w", l.domain, o.err)
			}
		} else {
			wg.Go(func() { l.keep(ctx, o) })
		}
	}
	wg.Go(func() { l.clean(ctx) })
	opened()

	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case o := <-l.orders:
			wg.Go(func() { l.keep(ctx, o) })
		case <-sweep.C:
			l.sweep()
		case <-ctx.Done():
			return nil
		}
	}
}

// stop ends certmagic's maintenance.
func (l *live) stop() {
	stopped := make(chan struct{})
	go func() { l.cache.Stop(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(stopWait):
		l.log.Warn("certificate maintenance is still waiting for an authority; not waiting for it")
	}
}

// clean removes certificates from disk that expired long ago, once a day.
func (l *live) clean(ctx context.Context) {
	t := time.NewTicker(24 * time.Hour)
	defer t.Stop()
	for {
		err := certmagic.CleanStorage(ctx, l.storage, certmagic.CleanStorageOptions{
			Logger: zapLogger(l.log), OCSPStaples: true, ExpiredCerts: true, ExpiredCertGracePeriod: keepExpired,
		})
		if err != nil && ctx.Err() == nil {
			l.log.Warn("removing expired certificates", "err", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// allowed reports whether host, canonical, may have a certificate.
func (l *live) allowed(host string) bool {
	return host != "" && (host == l.domain && !l.cfg.Apart || l.cfg.Allowed != nil && l.cfg.Allowed(host))
}

// covers reports whether a certificate in memory is good for host.
func (l *live) covers(host string) bool {
	for _, c := range l.cache.AllMatchingCertificates(host) {
		if c.Leaf != nil && c.Leaf.VerifyHostname(host) == nil {
			return true
		}
	}
	return false
}

// wantsEvent keeps certmagic from preparing an event for each handshake.
func wantsEvent(event string) bool {
	return event == "cert_obtaining" || event == "cert_obtained" || event == "cert_failed"
}

// event is certmagic's callback. Each attempt to get a certificate, a renewal
// too, begins with cert_obtaining, and an error ends it before any issuer is
// asked.
func (l *live) event(_ context.Context, event string, data map[string]any) error {
	host, _ := data["identifier"].(string)
	switch event {
	case "cert_obtaining":
		if !l.allowed(host) {
			return certmagic.ErrNoRetry{Err: ErrNotAllowed}
		}
	case "cert_obtained":
		l.log.Info("certificate obtained", "host", host, "issuer", data["issuer"], "renewal", data["renewal"])
		l.attempted(host, nil)
	case "cert_failed":
		err, ok := data["error"].(error)
		if !ok {
			err = errors.New("the authority gave no reason")
		}
		l.attempted(host, err)
		if !l.covers(host) { // a renewal that failed leaves the one that there is
			l.tell(host, err)
		}
	}
	return nil
}

// obtain puts the certificate for o into the cache: from storage, or else from
// the issuer. With ACME it returns only with success, the end of ctx, or an
// error that certmagic does not try again.
func (l *live) obtain(ctx context.Context, o *order) error {
	host := o.host
	cert, err := l.config.CacheManagedCertificate(ctx, host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if l.acme != nil {
			err = l.config.ObtainCertAsync(ctx, host) // "async": not interactive; it blocks
		} else {
			err = l.config.ObtainCertSync(ctx, host)
		}
	case err != nil:
		// A process that was killed while it wrote leaves a key beside the
		// certificate of another.
		l.log.Warn("a stored certificate is damaged; getting a new one", "host", host, "err", err)
		err = l.renew(ctx, host, true)
	case !cert.NeedsRenewal(l.config):
		return nil
	default:
		if l.acme != nil {
			l.settle(o, nil) // this one is served meanwhile
		}
		err = l.renew(ctx, host, false)
	}
	if err != nil {
		return err
	}
	renewed, err := l.config.CacheManagedCertificate(ctx, host)
	if err != nil {
		return err
	}
	if old := cert.Hash(); old != "" && old != renewed.Hash() {
		l.cache.Remove([]string{old})
	}
	return nil
}

func (l *live) renew(ctx context.Context, host string, force bool) error {
	if l.acme != nil {
		return l.config.RenewCertAsync(ctx, host, force)
	}
	return l.config.RenewCertSync(ctx, host, force)
}
