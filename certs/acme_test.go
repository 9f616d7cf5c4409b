package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// brokenAuthority is an ACME directory that fails, and counts who asks.
func brokenAuthority(t *testing.T) (url string, asked *atomic.Int64) {
	asked = new(atomic.Int64)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/directory", asked
}

// store puts a self-signed certificate for host where one from the ACME
// authority ca would be, and returns it.
func store(t *testing.T, dir, ca, host string, from, until time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{host}, NotBefore: from, NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	issuer := (&certmagic.ACMEIssuer{CA: ca}).IssuerKey()
	s := &certmagic.FileStorage{Path: dir}
	for name, b := range map[string][]byte{
		certmagic.StorageKeys.SiteCert(issuer, host):       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		certmagic.StorageKeys.SitePrivateKey(issuer, host): pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		certmagic.StorageKeys.SiteMeta(issuer, host):       []byte(`{"sans":["` + host + `"]}`),
	} {
		if err := s.Store(t.Context(), name, b); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// An authority that fails when the edge starts is no reason not to serve what
// is stored, even if it has expired: visitors are told what is wrong.
func TestACMEServesStorageWhileTheAuthorityFails(t *testing.T) {
	dir := t.TempDir()
	ca, asked := brokenAuthority(t)
	now := time.Now()
	good := store(t, dir, ca, "good.example.com", now.Add(-time.Hour), now.Add(80*24*time.Hour))
	expired := store(t, dir, ca, "old.example.com", now.Add(-90*24*time.Hour), now.Add(-time.Hour))
	hosts := []string{"good.example.com", "old.example.com", "none.example.com"}
	m, _ := start(t, Config{Mode: ACME, Domain: "example.com", Issuers: []Issuer{{CA: ca}}, Storage: dir, Allowed: tableOf(hosts...).has})
	if err := m.Manage(t.Context(), hosts...); err != nil {
		t.Fatal(err)
	}
	for _, want := range []*x509.Certificate{good, expired} {
		state, err := handshake(t, m, &tls.Config{ServerName: want.DNSNames[0], InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Errorf("%s: %v", want.DNSNames[0], err)
		} else if !state.PeerCertificates[0].Equal(want) {
			t.Errorf("%s: another certificate than the stored one", want.DNSNames[0])
		}
	}
	if !m.Covers("good.example.com") || m.Covers("none.example.com") {
		t.Error("Covers is wrong about what is stored")
	}

	// The visitor of a name without a certificate learns so once the first
	// attempt has failed, and later visitors do not cause further attempts.
	begun := time.Now()
	if _, err := handshake(t, m, &tls.Config{ServerName: "none.example.com"}); err == nil || isUnrecognizedName(err) {
		t.Errorf("handshake without a certificate: %v, want an internal error", err)
	}
	if d := time.Since(begun); d >= handshakeWait {
		t.Errorf("the visitor waited %v though the attempt had failed", d)
	}
	eventually(t, "the attempts for all names have failed", func() bool {
		return m.LastError("example.com") != nil && m.LastError("old.example.com") != nil && m.LastError("none.example.com") != nil
	})
	if err := m.LastError("good.example.com"); err != nil {
		t.Errorf("of a name that has its certificate: %v", err)
	}
	before := asked.Load()
	for range 10 {
		if _, err := handshake(t, m, &tls.Config{ServerName: "none.example.com"}); err == nil {
			t.Fatal("a handshake without a certificate succeeded")
		}
	}
	if n := asked.Load() - before; before == 0 || n != 0 {
		t.Errorf("the authority was asked %d times before and %d times by later visitors; want some and none", before, n)
	}
}

func TestACMENeverAsksForOtherNames(t *testing.T) {
	ca, asked := brokenAuthority(t)
	dir := t.TempDir()
	store(t, dir, ca, "stored.example.com", time.Now().Add(-time.Hour), time.Now().Add(time.Hour)) // left the table
	m, _ := start(t, Config{Mode: ACME, Issuers: []Issuer{{CA: ca}}, Storage: dir, Allowed: tableOf("app.example.com").has})
	for _, cfg := range []*tls.Config{
		{ServerName: "other.example.com"},
		{ServerName: "stored.example.com"},
		{ServerName: "other.example.com", NextProtos: []string{"acme-tls/1"}},
		{ServerName: "192.0.2.1"}, // no name, and no domain to fall back to
	} {
		if _, err := handshake(t, m, cfg); !isUnrecognizedName(err) {
			t.Errorf("%s %q: %v, want the alert unrecognized_name", cfg.ServerName, cfg.NextProtos, err)
		}
	}
	// A probe for a name of ours, while no challenge is under way.
	if _, err := handshake(t, m, &tls.Config{ServerName: "app.example.com", NextProtos: []string{"acme-tls/1"}}); err == nil {
		t.Error("a TLS-ALPN-01 probe out of the blue got a certificate")
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the authority was asked %d times", n)
	}
}

func TestACMERootFile(t *testing.T) {
	ca, _ := brokenAuthority(t)
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, filepath.Join(dir, "missing.pem")} {
		m, err := New(Config{Mode: ACME, Issuers: []Issuer{{CA: ca, Root: file}}, Storage: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("Run: %v, want an error that names %s", err, file)
		}
	}
}
