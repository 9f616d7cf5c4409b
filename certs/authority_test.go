package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"
)

// request makes a certificate request with a key of its own.
func request(t *testing.T, tmpl *x509.CertificateRequest) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestAuthorityRefuses(t *testing.T) {
	r, err := newRoot("example.com", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{root: r, domain: "example.com", lifetime: func() time.Duration { return time.Hour }}
	for name, tmpl := range map[string]*x509.CertificateRequest{
		"no name":        {},
		"two names":      {DNSNames: []string{"a.example.com", "b.example.com"}},
		"an address too": {DNSNames: []string{"a.example.com"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}},
		"outside":        {DNSNames: []string{"example.org"}},
	} {
		csr, err := x509.ParseCertificateRequest(request(t, tmpl))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Issue(t.Context(), csr); err == nil {
			t.Errorf("%s: the authority signed", name)
		} else if outside := (*OutsideError)(nil); errors.As(err, &outside) != (name == "outside") {
			t.Errorf("%s: %v", name, err)
		}
	}
	csr, err := x509.ParseCertificateRequest(request(t, &x509.CertificateRequest{DNSNames: []string{"a.b.example.com"}}))
	if err != nil {
		t.Fatal(err)
	}
	csr.Signature[len(csr.Signature)-1] ^= 1
	if _, err := a.Issue(t.Context(), csr); err == nil {
		t.Error("the authority signed for somebody who has not the key")
	}
}

func TestIssuerKeyNamesTheRoot(t *testing.T) {
	keys := make(map[string]bool)
	for range 2 {
		r, err := newRoot("example.com", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		keys[(&authority{root: r}).IssuerKey()] = true
	}
	if len(keys) != 2 {
		t.Error("two roots have one issuer key, so that certificates of the former would be served")
	}
}
