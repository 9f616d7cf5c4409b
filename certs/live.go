package certs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/wgexpose/wgexpose/statedir"
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
	own     *own
	storage *storage
	cache   *certmagic.Cache
	config  *certmagic.Config       // for names that visitors' listeners prove, or the internal authority signs
	dns     *certmagic.Config       // for the domain and names below it, with DNS-01; nil without
	acmes   []*certmagic.ACMEIssuer // those of config; none with Internal
	plug    *plug                   // nil with Internal

	orders  chan *order   // to run's loop, which starts them
	closing chan struct{} // closed when run's loop takes no more

	mu           sync.Mutex        // guards all below, and err, at and again of names' orders
	names        map[string]*order // by subject: all that is wanted
	accountsLook time.Time         // when the accounts were last asked about
	obtained     uint64            // attempts that brought a certificate
	failed       uint64            // that did not
}

// open makes everything. It leaves running only certmagic's cache, which run
// stops.
func open(cfg Config, domain string, log *slog.Logger) (_ *live, err error) {
	if err := os.MkdirAll(cfg.Storage, 0o700); err != nil {
		return nil, statedir.Explain("make the directory for certificates", cfg.Storage, err)
	}
	l := &live{
		cfg: cfg, domain: domain, log: log,
		own:     newOwn(cfg, log),
		storage: newStorage(cfg.Storage, cmp.Or(cfg.roomEvery, defaultRoomEvery), log),
		orders:  make(chan *order),
		closing: make(chan struct{}),
		names:   make(map[string]*order),
	}
	if err := l.own.open(); err != nil {
		return nil, err
	}
	var ca *authority
	var templates []certmagic.ACMEIssuer
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
		for _, issuer := range cfg.issuers() {
			t, err := acmeTemplate(cfg, issuer, l.plug, log)
			if err != nil {
				return nil, errors.Join(err, l.plug.close())
			}
			templates = append(templates, t)
		}
	}
	l.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(c certmagic.Certificate) (*certmagic.Config, error) {
			if len(c.Names) == 0 {
				return l.config, nil
			}
			return l.configFor(c.Names[0]), nil
		},
		RenewCheckInterval: cfg.checkEvery,
		Logger:             zapLogger(log),
	})
	l.config = l.newConfig(ca != nil)
	if ca != nil {
		l.config.Issuers = []certmagic.Issuer{ca}
		return l, nil
	}
	if cfg.DNS != nil {
		l.dns = l.newConfig(false)
	}
	for _, t := range templates {
		issuer := certmagic.NewACMEIssuer(l.config, t)
		l.acmes = append(l.acmes, issuer)
		l.config.Issuers = append(l.config.Issuers, issuer)
		if l.dns != nil {
			l.dns.Issuers = append(l.dns.Issuers, certmagic.NewACMEIssuer(l.dns, overDNS(t, cfg.DNS, log)))
		}
	}
	return l, nil
}

// newConfig makes a certmagic.Config without issuers. What is left out here
// certmagic would take from its globals: Issuers too, so that it is empty and
// not nil until there are some.
func (l *live) newConfig(internal bool) *certmagic.Config {
	return certmagic.New(l.cache, certmagic.Config{
		RenewalWindowRatio:  certmagic.DefaultRenewalWindowRatio,
		DefaultServerName:   l.domain,
		KeySource:           certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		Storage:             l.storage,
		DisableStorageCheck: true, // see event
		OnEvent:             l.event,
		ShouldEmitFunc:      wantsEvent,
		Issuers:             []certmagic.Issuer{},
		Logger:              zapLogger(l.log),
		DisableARI:          internal,
	})
}

// subject is the name that the certificate for host is ordered for: with DNS-01
// the wildcard for all that is directly below the domain, so that new names need
// no new certificate.
func (l *live) subject(host string) string {
	if l.dns != nil {
		if _, parent, _ := strings.Cut(host, "."); parent == l.domain {
			return "*." + l.domain
		}
	}
	return host
}

// configFor is the configuration that subject's certificate is ordered with.
func (l *live) configFor(subject string) *certmagic.Config {
	if l.dns != nil && within(strings.TrimPrefix(subject, "*."), l.domain) {
		return l.dns
	}
	return l.config
}

// run serves orders until ctx ends. It calls opened when handshakes can be
// served, and returns when all that it started has ended.
func (l *live) run(ctx context.Context, opened func()) error {
	var saving sync.WaitGroup
	saved, end := context.WithCancel(context.WithoutCancel(ctx))
	saving.Go(func() { l.storage.save(saved) })
	defer func() { end(); saving.Wait() }() // after all that stores

	defer l.stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	if l.plug != nil {
		wg.Go(l.plug.serve)
		defer l.plug.close()
	}
	defer close(l.closing)

	if l.ca() && !l.cfg.Apart && !l.own.covers(l.domain) {
		o := l.add(l.domain)
		if l.keep(ctx, o); o.err != nil && ctx.Err() == nil {
			return fmt.Errorf("certificate for %s: %w", l.domain, o.err)
		}
	}
	wg.Go(func() { l.own.run(ctx, cmp.Or(l.cfg.lookEvery, defaultLookEvery)) })
	wg.Go(func() { l.clean(ctx) })
	wg.Go(func() { l.remind(ctx) })
	for _, o := range l.addDomain() {
		wg.Go(func() { l.keep(ctx, o) })
	}
	opened()

	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case o := <-l.orders:
			wg.Go(func() { l.keep(ctx, o) })
		case <-sweep.C:
			l.sweep()
			for _, o := range l.addDomain() {
				wg.Go(func() { l.keep(ctx, o) })
			}
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

// ca reports whether certificates are the internal authority's.
func (l *live) ca() bool { return l.cfg.Mode == Internal }

// allowed reports whether a certificate may be ordered for subject, canonical.
func (l *live) allowed(subject string) bool {
	switch subject {
	case "":
		return false
	case l.domain:
		if !l.cfg.Apart {
			return true
		}
	case "*." + l.domain:
		return l.dns != nil
	}
	return l.cfg.Allowed != nil && l.cfg.Allowed(subject)
}

// covers reports whether a certificate in memory is good for host.
func (l *live) covers(host string) bool {
	if l.own.covers(host) {
		return true
	}
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
func (l *live) event(ctx context.Context, event string, data map[string]any) error {
	subject, _ := data["identifier"].(string)
	switch event {
	case "cert_obtaining":
		if !l.allowed(subject) {
			return certmagic.ErrNoRetry{Err: ErrNotAllowed}
		}
		if l.ca() {
			break // it costs nothing, and is served from memory
		}
		// Authorities sign the same names a few times a week only: what they sign
		// should be on disk, whatever becomes of this process.
		if err := l.storage.room(ctx); err != nil {
			l.warnUnrenewed(subject, data, err)
			l.missed(subject, err)
			return certmagic.ErrNoRetry{Err: err}
		}
	case "cert_obtained":
		l.log.Info("certificate obtained", "host", subject, "issuer", data["issuer"], "renewal", data["renewal"])
		l.attempted(subject, nil)
	case "cert_failed":
		err, ok := data["error"].(error)
		if !ok {
			err = errors.New("the authority gave no reason")
		}
		l.warnUnrenewed(subject, data, err)
		if l.mayBeAccount(err) && l.forgetDeadAccounts(ctx) {
			l.again(subject)
			return nil
		}
		l.missed(subject, err)
	}
	return nil
}

// warnUnrenewed logs that a renewal failed, if that is what data, an event's, are of.
func (l *live) warnUnrenewed(subject string, data map[string]any, err error) {
	if left, ok := data["remaining"].(time.Duration); ok {
		l.log.Error("certificate not renewed; it is tried again until it expires", "host", subject, "expires_in", left.Round(time.Minute), "err", err)
	}
}

// missed notes that an attempt brought nothing.
func (l *live) missed(subject string, err error) {
	l.attempted(subject, err)
	if !l.covers(strings.Replace(subject, "*", "any", 1)) { // a renewal that failed leaves the one that there is
		l.tell(subject, err)
	}
}

// obtain puts the certificate for o into the cache: from storage, or else from
// the issuers. With ACME it returns only with success, the end of ctx, or an
// error that certmagic does not try again.
func (l *live) obtain(ctx context.Context, o *order) error {
	config := l.configFor(o.subject)
	cert, err := config.CacheManagedCertificate(ctx, o.subject)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if l.ca() {
			err = config.ObtainCertSync(ctx, o.subject)
		} else {
			err = config.ObtainCertAsync(ctx, o.subject) // "async": not interactive; it blocks
		}
	case err != nil:
		// A process that was killed while it wrote leaves a key beside the
		// certificate of another.
		l.log.Warn("a stored certificate is damaged; getting a new one", "host", o.subject, "err", err)
		err = l.renew(ctx, o.subject, true)
	case !cert.NeedsRenewal(config):
		return nil
	default:
		if !l.ca() {
			l.settle(o, nil) // this one is served meanwhile
		}
		err = l.renew(ctx, o.subject, false)
	}
	if err != nil {
		return err
	}
	renewed, err := config.CacheManagedCertificate(ctx, o.subject)
	if err != nil {
		return err
	}
	if old := cert.Hash(); old != "" && old != renewed.Hash() {
		l.cache.Remove([]string{old})
	}
	return nil
}

func (l *live) renew(ctx context.Context, subject string, force bool) error {
	config := l.configFor(subject)
	if l.ca() {
		return config.RenewCertSync(ctx, subject, force)
	}
	return config.RenewCertAsync(ctx, subject, force)
}
