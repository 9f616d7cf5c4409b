package certs

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// errAgain ends an attempt that can succeed now, after what was done meanwhile.
var errAgain = errors.New("again")

// An order is one certificate that is wanted, for as long as it is wanted.
//
//	want ──▶ keep ──▶ ready, err == nil     the certificate is in the cache
//	            │──▶ ready, err != nil      ACME: tried again; waiters need not wait
//	            └──▶ forgotten              refused, Internal failed, or Run ends
type order struct {
	subject string        // a host name, or a wildcard
	ready   chan struct{} // closed at the first outcome

	l     *live
	err   error                   // last outcome; guarded by l.mu
	at    time.Time               // when err happened; guarded by l.mu
	again context.CancelCauseFunc // cuts the attempt under way short; guarded by l.mu
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
	o.err, o.at = err, time.Now()
	select {
	case <-o.ready:
	default:
		close(o.ready)
	}
}

// add notes that subject is wanted. The caller must start keep.
func (l *live) add(subject string) *order {
	o := &order{subject: subject, ready: make(chan struct{}), l: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names[subject] = o
	return o
}

// addDomain notes that the domain is wanted, and the wildcard with DNS-01, where
// neither are being kept nor own certificates cover them. The caller must start
// keep for each.
func (l *live) addDomain() (orders []*order) {
	if l.domain == "" || l.cfg.Apart {
		return nil
	}
	hosts := []string{l.domain}
	if l.dns != nil {
		hosts = append(hosts, "*."+l.domain)
	}
	for _, h := range hosts {
		// An own wildcard is good for any name below.
		if l.own.covers(strings.Replace(h, "*", "any", 1)) {
			continue
		}
		l.mu.Lock()
		known := l.names[h] != nil
		l.mu.Unlock()
		if !known {
			orders = append(orders, l.add(h))
		}
	}
	return orders
}

// want makes sure that a certificate for host is being kept. It returns nil when
// one already covers it, and an error when it may not have one.
func (l *live) want(host string) (*order, error) {
	if l.covers(host) {
		return nil, nil
	}
	if l.ca() && !within(host, l.domain) {
		return nil, &OutsideError{Host: host, Domain: l.domain}
	}
	if !l.allowed(host) {
		return nil, ErrNotAllowed
	}
	subject := l.subject(host)
	l.mu.Lock()
	o, known := l.names[subject]
	if !known {
		o = &order{subject: subject, ready: make(chan struct{}), l: l}
		l.names[subject] = o
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
	full := false // the last attempt found that nothing can be stored
	for {
		attempt, cut := context.WithCancelCause(ctx)
		l.mu.Lock()
		o.again = cut
		l.mu.Unlock()
		err := l.obtain(attempt, o)
		cause := context.Cause(attempt)
		cut(nil)
		switch {
		case err == nil:
			l.settle(o, nil)
			return
		case ctx.Err() != nil:
			l.forget(o, ErrClosed)
			return
		case l.ca() || errors.Is(err, ErrNotAllowed):
			l.forget(o, err)
			return
		case cause == errAgain:
			continue
		}
		rest, told := orderPause, false
		if unstorable, ok := errors.AsType[*storageError](err); ok {
			err, rest = unstorable, l.storage.every
			told, full = full, true
		} else {
			full = false
		}
		if !told { // there may be many names, and the log on the same disk
			l.log.Error("no certificate yet; visitors of this name see an error", "host", o.subject, "again_in", rest, "err", err)
		}
		l.settle(o, err)
		pause := time.NewTimer(rest)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// again has keep make another attempt at subject at once.
func (l *live) again(subject string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.names[subject]; o != nil && o.again != nil {
		o.again(errAgain)
	}
}

func (l *live) settle(o *order, err error) {
	l.mu.Lock()
	o.settleLocked(err)
	l.mu.Unlock()
	l.tell(o.subject, err)
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
	if l.names[o.subject] == o {
		delete(l.names, o.subject)
	}
	o.settleLocked(err)
}

// attempted notes the outcome of one attempt among several. A first success is
// not yet in the cache, so that waiters are left to keep.
func (l *live) attempted(subject string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed++
	} else {
		l.obtained++
	}
	o, ok := l.names[subject]
	if !ok {
		return
	}
	if err != nil {
		o.settleLocked(err)
	} else {
		o.err, o.at = nil, time.Now()
	}
}

// sweep drops names that left the table, or that own certificates cover by now,
// so that nobody renews them. Their files stay until they expire: a name that
// comes back has its certificate.
func (l *live) sweep() {
	l.mu.Lock()
	subjects := make([]string, 0, len(l.names))
	for s := range l.names {
		subjects = append(subjects, s)
	}
	l.mu.Unlock()
	var gone []certmagic.SubjectIssuer
	for _, s := range subjects {
		if !l.allowed(s) || l.own.covers(strings.Replace(s, "*", "any", 1)) {
			gone = append(gone, certmagic.SubjectIssuer{Subject: s})
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
