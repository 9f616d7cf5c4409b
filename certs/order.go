package certs

import (
	"context"
	"errors"
	"time"

	"github.com/caddyserver/certmagic"
)

// An order is one name that is wanted, for as long as it is wanted.
//
//	want ──▶ keep ──▶ ready, err == nil     the certificate is in the cache
//	            │──▶ ready, err != nil      ACME: tried again; waiters need not wait
//	            └──▶ forgotten              refused, Internal failed, or Run ends
type order struct {
	host  string
	ready chan struct{} // closed at the first outcome

	l   *live
	err error // last outcome; guarded by l.mu
}

// wait returns the last outcome, once there is one.
func (o *order) wait(ctx context.Context) error {
	select {
	case <-o.ready:
		o.l.mu.Lock()
		defer o.l.mu.Unlock()
		return o.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settleLocked notes an outcome. The caller must hold l.mu.
func (o *order) settleLocked(err error) {
	o.err = err
	select {
	case <-o.ready:
	default:
		close(o.ready)
	}
}

// add notes that host is wanted. The caller must start keep.
func (l *live) add(host string) *order {
	o := &order{host: host, ready: make(chan struct{}), l: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names[host] = o
	return o
}

// want makes sure that host is being kept. It returns nil when a certificate
// already covers it, and an error when it may not have one.
func (l *live) want(host string) (*order, error) {
	if l.covers(host) {
		return nil, nil
	}
	if l.acme == nil && !within(host, l.domain) {
		return nil, &OutsideError{Host: host, Domain: l.domain}
	}
	if !l.allowed(host) {
		return nil, ErrNotAllowed
	}
	l.mu.Lock()
	o, known := l.names[host]
	if !known {
		o = &order{host: host, ready: make(chan struct{}), l: l}
		l.names[host] = o
	}
	l.mu.Unlock()
	if !known {
		select {
		case l.orders <- o:
		case <-l.closing:
			l.forget(o, ErrClosed)
		}
	}
	return o, nil
}

// keep works on o until its certificate is in the cache, from where on
// certmagic's maintenance renews it.
func (l *live) keep(ctx context.Context, o *order) {
	for {
		err := l.obtain(ctx, o)
		switch {
		case err == nil:
			l.settle(o, nil)
			return
		case ctx.Err() != nil:
			l.forget(o, ErrClosed)
			return
		case l.acme == nil || errors.Is(err, ErrNotAllowed):
			l.forget(o, err)
			return
		}
		l.log.Error("no certificate yet; visitors of this name see an error", "host", o.host, "again_in", orderPause, "err", err)
		l.settle(o, err)
		pause := time.NewTimer(orderPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

func (l *live) settle(o *order, err error) {
	l.mu.Lock()
	o.settleLocked(err)
	l.mu.Unlock()
	l.tell(o.host, err)
}

func (l *live) tell(host string, err error) {
	if l.cfg.Outcome != nil {
		l.cfg.Outcome(host, err)
	}
}

// forget ends o: the next want begins anew.
func (l *live) forget(o *order, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names[o.host] == o {
		delete(l.names, o.host)
	}
	o.settleLocked(err)
}

// attempted notes the outcome of one attempt among several. A first success is
// not yet in the cache, so that waiters are left to keep.
func (l *live) attempted(host string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, ok := l.names[host]
	if !ok {
		return
	}
	if err != nil {
		o.settleLocked(err)
	} else {
		o.err = nil
	}
}

// sweep drops names that left the table, so that nobody renews them. Their
// files stay until they expire: a name that comes back has its certificate.
func (l *live) sweep() {
	l.mu.Lock()
	hosts := make([]string, 0, len(l.names))
	for h := range l.names {
		hosts = append(hosts, h)
	}
	l.mu.Unlock()
	var gone []certmagic.SubjectIssuer
	for _, h := range hosts {
		if !l.allowed(h) {
			gone = append(gone, certmagic.SubjectIssuer{Subject: h})
		}
	}
	if len(gone) == 0 {
		return
	}
	l.cache.RemoveManaged(gone)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range gone {
		if o := l.names[g.Subject]; o != nil {
			select {
			case <-o.ready: // keep has come to an end, or will with ErrNotAllowed
				delete(l.names, g.Subject)
			default:
			}
		}
	}
}
