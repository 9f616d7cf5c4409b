package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// sign has r sign a certificate, as somebody would who stole the key.
func (r *root) sign(t *testing.T, tmpl *x509.Certificate) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl.SerialNumber = big.NewInt(time.Now().UnixNano())
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, r.cert, key.Public(), r.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestRootIsLimitedToTheDomain(t *testing.T) {
	r, err := newRoot("example.com", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if !r.cert.PermittedDNSDomainsCritical || !r.cert.IsCA || !r.cert.MaxPathLenZero {
		t.Error("the root lacks a critical constraint, IsCA or MaxPathLenZero")
	}
	pool := x509.NewCertPool()
	pool.AddCert(r.cert)
	tests := []struct {
		name string
		cert *x509.Certificate
		host string
		good bool
	}{
		{"the domain", &x509.Certificate{DNSNames: []string{"example.com"}}, "example.com", true},
		{"below", &x509.Certificate{DNSNames: []string{"a.b.example.com"}}, "a.b.example.com", true},
		{"wildcard", &x509.Certificate{DNSNames: []string{"*.example.com"}}, "a.example.com", true},
		{"another domain", &x509.Certificate{DNSNames: []string{"bank.test"}}, "bank.test", false},
		{"another domain beside", &x509.Certificate{DNSNames: []string{"example.com", "bank.test"}}, "example.com", false},
		{"same ending", &x509.Certificate{DNSNames: []string{"notexample.com"}}, "notexample.com", false},
		{"above", &x509.Certificate{DNSNames: []string{"com"}}, "com", false},
		{"IPv4 address", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}, "192.0.2.1", false},
		{"IPv6 address", &x509.Certificate{IPAddresses: []net.IP{net.ParseIP("2001:db8::1")}}, "2001:db8::1", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.sign(t, tt.cert).Verify(x509.VerifyOptions{Roots: pool, DNSName: tt.host})
			if tt.good && err != nil {
				t.Errorf("refused: %v", err)
			}
			var invalid x509.CertificateInvalidError
			if !tt.good && (!errors.As(err, &invalid) || invalid.Reason != x509.CANotAuthorizedForThisName) {
				t.Errorf("error %v, want CANotAuthorizedForThisName", err)
			}
		})
	}
}

func TestRootSignsNoAuthorities(t *testing.T) {
	r, err := newRoot("example.com", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, r.cert, key.Public(), r.key)
	if err != nil {
		t.Fatal(err)
	}
	mid, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	leaf := (&root{cert: mid, key: key}).sign(t, &x509.Certificate{DNSNames: []string{"example.com"}})
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: "example.com"}
	opts.Roots.AddCert(r.cert)
	opts.Intermediates.AddCert(mid)
	if _, err := leaf.Verify(opts); err == nil {
		t.Error("a certificate of an authority below the root is accepted")
	}
}

func TestRootFiles(t *testing.T) {
	dir := t.TempDir()
	log, _ := logger(t)
	if _, err := InternalRootPEM(dir); !errors.Is(err, ErrNoRoot) {
		t.Errorf("InternalRootPEM of nothing: %v, want ErrNoRoot", err)
	}
	// What a killed process left.
	if err := os.MkdirAll(filepath.Join(dir, ".ca-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := openRoot(dir, "example.com", time.Now(), log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, ".ca-1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unfinished authority is still there (%v)", err)
	}
	b, err := InternalRootPEM(dir)
	if err != nil {
		t.Fatal(err)
	}
	if block, rest := pem.Decode(b); block == nil || len(rest) != 0 || string(block.Bytes) != string(first.cert.Raw) {
		t.Error("InternalRootPEM is not the root's certificate alone")
	}
	again, err := openRoot(dir, "example.com", time.Now(), log)
	if err != nil || !again.cert.Equal(first.cert) || !again.key.Equal(first.key) {
		t.Errorf("opened again, the root is another (%v)", err)
	}

	if runtime.GOOS == "windows" {
		return
	}
	key := filepath.Join(dir, rootDir, rootKey)
	if fi, err := os.Stat(key); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v; want mode 0600", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Dir(key)); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v; want mode 0700", fi.Mode(), err)
	}
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = openRoot(dir, "example.com", time.Now(), log)
	if !errors.Is(err, ErrPermissions) || !strings.Contains(err.Error(), "chmod 600 "+key) {
		t.Errorf("key that others can read: %v, want ErrPermissions and what to run", err)
	}
}

func TestIncompleteRootIsAnError(t *testing.T) {
	log, _ := logger(t)
	other, err := newRoot("example.com", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other.key)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		damage func(key string) error
	}{
		{"no key", os.Remove},
		{"empty key", func(key string) error { return os.WriteFile(key, nil, 0o600) }},
		{"another key", func(key string) error {
			return os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
		}},
		{"no certificate", func(key string) error { return os.Remove(filepath.Join(filepath.Dir(key), rootCert)) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := openRoot(dir, "example.com", time.Now(), log); err != nil {
				t.Fatal(err)
			}
			if err := tt.damage(filepath.Join(dir, rootDir, rootKey)); err != nil {
				t.Fatal(err)
			}
			if _, err := openRoot(dir, "example.com", time.Now(), log); err == nil || !strings.Contains(err.Error(), "move the directory away") {
				t.Errorf("error %v, want one that says what to do", err)
			}
		})
	}
}

func TestDomainChange(t *testing.T) {
	dir := t.TempDir()
	log, text := logger(t)
	open := func(domain string, now time.Time) *root {
		t.Helper()
		r, err := openRoot(dir, domain, now, log)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	now := time.Now()
	first := open("example.com", now)
	second := open("example.org", now)
	if second.cert.Equal(first.cert) || second.unfit("example.org", now) != "" {
		t.Error("after a change of the domain the root is the old one or does not fit")
	}
	if !strings.Contains(text.String(), "level=WARN") || !strings.Contains(text.String(), "limited to example.com") {
		t.Error("the log does not warn")
	}
	aside, err := loadRoot(filepath.Join(dir, "ca-example.com"))
	if err != nil || aside == nil || !aside.cert.Equal(first.cert) {
		t.Errorf("the former root is not kept aside (%v)", err)
	}
	if third := open("example.com", now); !third.cert.Equal(first.cert) {
		t.Error("the domain changed back, and its root is not used again")
	}
	// Ten years later it is replaced, and kept.
	later := first.cert.NotAfter.Add(-rootMinimum + time.Hour)
	fourth := open("example.com", later)
	if fourth.cert.Equal(first.cert) || !fourth.cert.NotAfter.After(first.cert.NotAfter) {
		t.Error("a root about to expire is still used")
	}
	if aside, err := loadRoot(filepath.Join(dir, "ca-example.com")); err != nil || aside == nil || !aside.cert.Equal(first.cert) {
		t.Errorf("the expiring root is not kept aside (%v)", err)
	}
}

// Certificates of the former root must not be served under the new one.
func TestDomainChangeOfAnEdge(t *testing.T) {
	dir := t.TempDir()
	for _, domain := range []string{"one.test", "two.test", "one.test"} {
		m, stop := start(t, Config{Mode: Internal, Domain: domain, Storage: dir})
		if err := m.Manage(t.Context(), domain); err != nil {
			t.Fatal(err)
		}
		leaf(t, m, dir, "app."+domain)
		stop()
	}
}

func TestLeafEndsWithTheRoot(t *testing.T) {
	dir := t.TempDir()
	m, _ := start(t, Config{
		Mode: Internal, Domain: "example.com", Storage: dir,
		leafLifetime: func() time.Duration { return 2 * rootLifetime },
	})
	if err := m.Manage(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	if got, end := leaf(t, m, dir, "example.com").NotAfter, m.live.Load().config.Issuers[0].(*authority).root.cert.NotAfter; got.After(end) {
		t.Errorf("the certificate ends on %v, after its root on %v", got, end)
	}
}
