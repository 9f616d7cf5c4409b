package certs

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

const (
	accountTimeout = 30 * time.Second // for one question about an account
	accountPause   = time.Minute      // between two looks at the accounts
)

// mayBeAccount reports whether err, a failed order's, may come from an account
// that the authority does not accept any more. With several authorities only the
// last one's error is known.
func (l *live) mayBeAccount(err error) bool {
	var problem acme.Problem
	return len(l.acmes) > 1 || errors.As(err, &problem) && problem.Type == acme.ProblemTypeUnauthorized
}

// forgetDeadAccounts removes the accounts that the authorities have deactivated
// or revoked, and tells whether there was one: the next order then makes a new
// one. certmagic (v0.25.6, acmeissuer.go, doIssue) does so for accounts that the
// authority does not know, and orders with these for ever.
func (l *live) forgetDeadAccounts(ctx context.Context) (forgotten bool) {
	l.mu.Lock()
	early := time.Since(l.accountsLook) < accountPause
	if !early {
		l.accountsLook = time.Now()
	}
	l.mu.Unlock()
	if early {
		return false
	}
	for _, a := range l.acmes {
		dead, err := l.forgetDeadAccount(ctx, a)
		if err != nil {
			l.log.Warn("is the ACME account still good?", "ca", a.CA, "err", err)
		}
		forgotten = forgotten || dead
	}
	return forgotten
}

func (l *live) forgetDeadAccount(ctx context.Context, a *certmagic.ACMEIssuer) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, accountTimeout)
	defer cancel()
	users := path.Join("acme", certmagic.StorageKeys.Safe(a.IssuerKey()), "users")
	if !l.storage.Exists(ctx, users) {
		return false, nil
	}
	files, err := l.storage.List(ctx, users, true)
	if err != nil {
		return false, err
	}
	forgotten := false
	for _, file := range files {
		if !strings.HasSuffix(file, ".key") {
			continue
		}
		pem, err := l.storage.Load(ctx, file)
		if err != nil {
			return forgotten, err
		}
		key, err := certmagic.PEMDecodePrivateKey(pem)
		if err != nil {
			return forgotten, fmt.Errorf("key of the ACME account: %w", err)
		}
		why, err := accountRefused(ctx, a, key)
		if err != nil {
			return forgotten, err
		}
		if why == "" {
			continue
		}
		l.log.Warn("the ACME authority does not accept our account any more; making a new one", "ca", a.CA, "err", why)
		for _, gone := range []string{strings.TrimSuffix(file, ".key") + ".json", file, path.Dir(file)} {
			if err := l.storage.Delete(ctx, gone); err != nil {
				return forgotten, err
			}
		}
		forgotten = true
	}
	return forgotten, nil
}

// accountRefused asks the authority for the account of key (RFC 8555 section
// 7.3.1), and returns in its words why that is not valid, or "".
func accountRefused(ctx context.Context, a *certmagic.ACMEIssuer, key crypto.Signer) (why string, err error) {
	transport := &http.Transport{Proxy: a.HTTPProxy, ForceAttemptHTTP2: true}
	if a.TrustedRoots != nil {
		transport.TLSClientConfig = &tls.Config{RootCAs: a.TrustedRoots}
	}
	defer transport.CloseIdleConnections()
	client := acme.Client{Directory: a.CA, HTTPClient: &http.Client{Transport: transport, Timeout: accountTimeout}}
	account, err := client.GetAccount(ctx, acme.Account{PrivateKey: key})
	var problem acme.Problem
	switch {
	case errors.As(err, &problem) && (problem.Type == acme.ProblemTypeUnauthorized || problem.Type == acme.ProblemTypeAccountDoesNotExist):
		return problem.Error(), nil
	case err != nil:
		return "", err
	case account.Status == acme.StatusDeactivated || account.Status == acme.StatusRevoked:
		return "its status is " + account.Status, nil
	}
	return "", nil
}
