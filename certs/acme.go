package certs

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// serves reports whether the visitors' listeners can answer ch.
func (c Config) serves(ch Challenge) bool {
	return len(c.Challenges) == 0 || slices.Contains(c.Challenges, ch)
}

// acmeTemplate is what certmagic.NewACMEIssuer makes an issuer from. Every
// field that it would else take from DefaultACME is set.
func acmeTemplate(cfg Config, issuer Issuer, p *plug, log *slog.Logger) (certmagic.ACMEIssuer, error) {
	t := certmagic.ACMEIssuer{
		CA:                      issuer.directory(),
		Email:                   cmp.Or(issuer.Email, noEmail),
		NewAccountFunc:          withoutNoEmail,
		Agreed:                  true, // choosing the mode is the agreement
		DisableHTTPChallenge:    !cfg.serves(HTTP01),
		DisableTLSALPNChallenge: !cfg.serves(TLSALPN01),
		ListenHost:              p.host,
		AltHTTPPort:             p.port,
		AltTLSALPNPort:          p.port,
		HTTPProxy:               http.ProxyFromEnvironment,
		Logger:                  zapLogger(log),
	}
	if issuer.EAB.KeyID != "" {
		t.ExternalAccount = &acme.EAB{KeyID: issuer.EAB.KeyID, MACKey: string(issuer.EAB.Key)}
	}
	if t.CA == certmagic.LetsEncryptProductionCA {
		t.TestCA = certmagic.LetsEncryptStagingCA // for repeated attempts: its limits are wide
	}
	if issuer.Root != "" {
		pem, err := os.ReadFile(issuer.Root)
		if err != nil {
			return t, &FileError{fmt.Errorf("read the root certificate of the ACME authority: %w", err)}
		}
		if t.TrustedRoots, err = x509.SystemCertPool(); err != nil {
			t.TrustedRoots = x509.NewCertPool()
		}
		if !t.TrustedRoots.AppendCertsFromPEM(pem) {
			return t, &FileError{fmt.Errorf("%s holds no certificate: the root of the ACME authority is expected there, in PEM", issuer.Root)}
		}
	}
	return t, nil
}

// noEmail stands for no address. certmagic (v0.25.6, account.go) files such an
// account under this word. Given an empty address it would look for one first: in
// what another user in this process has, and then in the name of that folder,
// which it gives to the authority as an address.
const noEmail = "default"

// withoutNoEmail is certmagic.ACMEIssuer.NewAccountFunc.
func withoutNoEmail(_ context.Context, _ *certmagic.ACMEIssuer, account acme.Account) (acme.Account, error) {
	if slices.Equal(account.Contact, []string{"mailto:" + noEmail}) {
		account.Contact = nil
	}
	return account, nil
}

// overDNS gives a template DNS-01, which is then its only challenge.
func overDNS(t certmagic.ACMEIssuer, d *DNS, log *slog.Logger) certmagic.ACMEIssuer {
	t.DNS01Solver = &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
		DNSProvider: d.open(), Resolvers: d.Resolvers, Logger: zapLogger(log),
	}}
	return t
}

// A plug keeps certmagic from listening. For HTTP-01 and TLS-ALPN-01 certmagic
// (v0.25, solvers.go, httpSolver.Present and tlsALPNSolver.Present) listens on
// ListenHost and the challenge's port itself, unless something else has that
// very address and accepts connections: then robustTryListen takes it that this
// one answers. The edge's own listeners do answer, through
// Manager.HTTPChallenge and Manager.TLSConfig, which find the challenge in the
// process's memory or in the storage, wherever they listen. But they may listen
// on any address and port, behind any forwarding, so that pointing certmagic at
// them would be a guess, and a wrong one would have it bind a public port. It is
// pointed at this address of the loopback interface, which is taken as long as
// Run runs. Also certmagic counts challenges by that address for the whole
// process, and so no two Managers share one.
type plug struct {
	ln   net.Listener
	host string
	port int
}

func openPlug() (*plug, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		var err6 error
		if ln, err6 = net.Listen("tcp", "[::1]:0"); err6 != nil {
			return nil, fmt.Errorf("listen on the loopback interface: %w", errors.Join(err, err6))
		}
	}
	addr := ln.Addr().(*net.TCPAddr)
	return &plug{ln: ln, host: addr.IP.String(), port: addr.Port}, nil
}

// serve accepts and closes connections until close.
func (p *plug) serve() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // the one connection failed
		}
		c.Close()
	}
}

func (p *plug) close() error { return p.ln.Close() }
