package certs

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/certmagic"
)

// Certificates begin this long before they are made, for visitors whose clock
// is behind.
const backdate = time.Hour

// authority is the internal issuer. It implements certmagic.Issuer.
type authority struct {
	root     *root
	domain   string
	lifetime func() time.Duration
}

var _ certmagic.Issuer = (*authority)(nil)

// IssuerKey names the root, so that certificates of a former root are not
// found in the storage.
func (a *authority) IssuerKey() string {
	sum := sha256.Sum256(a.root.cert.Raw)
	return "internal-" + hex.EncodeToString(sum[:8])
}

// Issue signs a certificate for the one name of csr; for the domain itself it
// also covers the names directly below (see subjects). certmagic keeps one name
// per certificate and files it under the request's.
func (a *authority) Issue(_ context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if len(csr.DNSNames) != 1 || len(csr.IPAddresses)+len(csr.EmailAddresses)+len(csr.URIs) != 0 {
		return nil, errors.New("certificate request: exactly one host name is expected")
	}
	host := csr.DNSNames[0]
	if !within(host, a.domain) {
		return nil, &OutsideError{Host: host, Domain: a.domain}
	}
	now := time.Now()
	until := now.Add(a.lifetime())
	if end := a.root.cert.NotAfter; until.After(end) {
		until = end
	}
	// The serial number, nil here, is drawn by CreateCertificate.
	leaf := &x509.Certificate{
		DNSNames:              subjects(host, a.domain),
		NotBefore:             now.Add(-backdate),
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.root.cert, csr.PublicKey, a.root.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return &certmagic.IssuedCertificate{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}, nil
}
