package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// selfSigned writes an own certificate and returns it. Each write has a time of
// its own, so that two in one tick of the file system differ.
func selfSigned(t *testing.T, p Pair, until time.Time, hosts ...string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return selfSignedBy(t, p, key, key.Public(), until, hosts...)
}

func selfSignedBy(t *testing.T, p Pair, key, public any, until time.Time, hosts ...string) *x509.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: hosts, Subject: pkix.Name{CommonName: "own"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeOwn(t, p.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	writeOwn(t, p.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

var writes int // of own files

func writeOwn(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	writes++
	at := time.Now().Add(time.Duration(writes) * time.Second)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func in(dir, name string) Pair {
	return Pair{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
}

// Own certificates win for their names, and the authority is not asked for
// these; what they do not cover comes from where it always does.
func TestOwnCertificatesTakePrecedence(t *testing.T) {
	dir, storage := t.TempDir(), t.TempDir()
	year := time.Now().Add(365 * 24 * time.Hour)
	named := selfSigned(t, in(dir, "named"), year, "shop.customer.test", "www.customer.test")
	wild := selfSigned(t, in(filepath.Join(dir, "sub"), "wild"), year, "*.b.example.com")
	exact := selfSigned(t, in(dir, "exact"), year.Add(-24*time.Hour), "x.b.example.com")
	hosts := []string{"shop.customer.test", "www.customer.test", "a.b.example.com", "x.b.example.com", "c.d.example.com"}
	m, _ := start(t, Config{Mode: Internal, Domain: "example.com", Storage: storage, Folder: dir, Allowed: tableOf(hosts...).has})
	if err := m.Manage(t.Context(), hosts...); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]*x509.Certificate{
		"shop.customer.test": named, "www.customer.test": named, "a.b.example.com": wild, "x.b.example.com": exact,
		"other.b.example.com": wild, // as with any wildcard, the table is not asked
	} {
		state, err := handshake(t, m, &tls.Config{ServerName: host, InsecureSkipVerify: true})
		if err != nil || !state.PeerCertificates[0].Equal(want) {
			t.Errorf("%s: %v, or another certificate than the own one", host, err)
		}
		if !m.Covers(host) {
			t.Errorf("Covers(%s) is false", host)
		}
	}
	leaf(t, m, storage, "c.d.example.com")
	leaf(t, m, storage, "example.com")
	if got := stored(t, storage); !slices.Equal(got, []string{"c.d.example.com", "example.com"}) {
		t.Errorf("the authority signed for %q", got)
	}
}

// An own certificate for the domain itself: no other is made at the start.
func TestOwnCertificateOfTheDomain(t *testing.T) {
	dir, storage := t.TempDir(), t.TempDir()
	p := in(dir, "domain")
	own := selfSigned(t, p, time.Now().Add(time.Hour), "example.com", "*.example.com")
	ca, asked := brokenAuthority(t)
	m, _ := start(t, Config{Mode: ACME, Domain: "example.com", Storage: storage, Files: []Pair{p}, Issuers: []Issuer{{CA: ca}}, Allowed: tableOf("app.example.com").has})
	if err := m.Manage(t.Context(), "example.com", "app.example.com"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"example.com", "app.example.com", ""} {
		state, err := handshake(t, m, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil || !state.PeerCertificates[0].Equal(own) {
			t.Errorf("%q: %v, or another certificate than the own one", name, err)
		}
	}
	m.live.Load().sweep()
	if n := asked.Load(); n != 0 || len(m.live.Load().addDomain()) != 0 {
		t.Errorf("the authority was asked %d times, or would be", n)
	}
}

// A client that cannot use one kind of key gets the other.
func TestOwnCertificatesOfTwoKinds(t *testing.T) {
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	selfSigned(t, in(dir, "ecdsa"), time.Now().Add(2*time.Hour), "example.com")
	old := selfSignedBy(t, in(dir, "rsa"), key, key.Public(), time.Now().Add(time.Hour), "example.com")
	m, _ := start(t, Config{Mode: Internal, Domain: "example.com", Storage: t.TempDir(), Folder: dir})
	state, err := handshake(t, m, &tls.Config{
		ServerName: "example.com", InsecureSkipVerify: true,
		MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	})
	if err != nil || !state.PeerCertificates[0].Equal(old) {
		t.Errorf("%v, or another certificate than the RSA one", err)
	}
}

func TestOwnCertificatesAreLoadedAgain(t *testing.T) {
	dir := t.TempDir()
	p := in(dir, "a")
	hour := time.Now().Add(time.Hour)
	first := selfSigned(t, p, hour, "a.test")
	log, text := logger(t)
	o := newOwn(Config{Folder: dir}, log)
	if err := o.open(); err != nil {
		t.Fatal(err)
	}
	serves := func(want *x509.Certificate, what string) {
		t.Helper()
		got := o.find("a.test", nil, time.Now())
		switch {
		case want == nil && got != nil:
			t.Errorf("%s: there is a certificate", what)
		case want != nil && (got == nil || !got.Leaf.Equal(want)):
			t.Errorf("%s: another certificate than the right one", what)
		}
	}
	settle := func() { o.look(); o.look() }
	serves(first, "at the start")

	second := selfSigned(t, p, hour, "a.test")
	o.look() // it may still be being written
	serves(first, "while it is written")
	o.look()
	serves(second, "changed")

	damage := []struct {
		name string
		do   func()
		says string
	}{
		{"garbage", func() { writeOwn(t, p.Cert, []byte("garbage")) }, "holds no certificate"},
		{"empty key", func() { selfSigned(t, p, hour, "a.test"); writeOwn(t, p.Key, nil) }, "holds no private key"},
		{"key of another", func() {
			selfSigned(t, p, hour, "a.test")
			key, err := os.ReadFile(p.Key)
			if err != nil {
				t.Fatal(err)
			}
			selfSigned(t, p, hour, "a.test")
			writeOwn(t, p.Key, key)
		}, "does not match"},
		{"no names", func() { selfSigned(t, p, hour) }, "names no host"},
		{"huge", func() { writeOwn(t, p.Cert, make([]byte, maxOwnFile+1)) }, "larger than"},
		{"no key", func() { selfSigned(t, p, hour, "a.test"); os.Remove(p.Key) }, p.Key},
	}
	for _, d := range damage {
		d.do()
		settle()
		serves(second, d.name)
		if !strings.Contains(text.String(), d.says) {
			t.Errorf("%s: the log does not say %q", d.name, d.says)
		}
		st := (*o.set.Load())[0]
		if st.err == nil || !strings.Contains(st.err.Error(), d.says) {
			t.Errorf("%s: %v, want %q in it", d.name, st.err, d.says)
		}
	}
	lines := strings.Count(text.String(), "level=ERROR")
	settle()
	if n := strings.Count(text.String(), "level=ERROR"); n != lines {
		t.Error("the same damage is told again and again")
	}

	third := selfSigned(t, p, hour, "a.test")
	settle()
	serves(third, "mended")
	other := selfSigned(t, in(dir, "b"), hour.Add(time.Hour), "a.test")
	settle()
	serves(other, "a second one that lasts longer")
	for _, f := range []string{in(dir, "b").Cert, in(dir, "b").Key} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	settle()
	serves(third, "the second one removed")
	if got := o.find("a.test", nil, hour.Add(time.Second)); got != nil {
		t.Error("an expired certificate is served")
	}
	os.Remove(p.Cert)
	os.Remove(p.Key)
	settle()
	serves(nil, "all removed")
}

// A link that is turned to another target is a change: certbot and Kubernetes
// replace certificates so.
func TestOwnCertificateBehindLinks(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege on Windows")
	}
	root := t.TempDir()
	archive := filepath.Join(root, "archive")
	live := filepath.Join(root, "live", "example.com")
	if err := os.MkdirAll(live, 0o700); err != nil {
		t.Fatal(err)
	}
	turn := func(n string, want *x509.Certificate) {
		t.Helper()
		for _, f := range []string{"fullchain", "privkey"} {
			link := filepath.Join(live, f+".pem")
			os.Remove(link)
			if err := os.Symlink(filepath.Join(archive, f+n+".pem"), link); err != nil {
				t.Fatal(err)
			}
		}
	}
	old := selfSigned(t, Pair{filepath.Join(archive, "fullchain1.pem"), filepath.Join(archive, "privkey1.pem")}, time.Now().Add(time.Hour), "example.com")
	renewed := selfSigned(t, Pair{filepath.Join(archive, "fullchain2.pem"), filepath.Join(archive, "privkey2.pem")}, time.Now().Add(time.Hour), "example.com")
	turn("1", old)
	log, _ := logger(t)
	o := newOwn(Config{Folder: filepath.Join(root, "live")}, log)
	if err := o.open(); err != nil {
		t.Fatal(err)
	}
	if got := o.find("example.com", nil, time.Now()); got == nil || !got.Leaf.Equal(old) {
		t.Fatal("certbot's folder is not understood")
	}
	turn("2", renewed)
	o.look()
	o.look()
	if got := o.find("example.com", nil, time.Now()); got == nil || !got.Leaf.Equal(renewed) {
		t.Error("the renewed certificate is not served")
	}
}

// The running Manager looks by itself.
func TestOwnCertificateChangesUnderARunningManager(t *testing.T) {
	dir := t.TempDir()
	p := in(dir, "a")
	selfSigned(t, p, time.Now().Add(time.Hour), "a.test")
	m, _ := start(t, Config{Mode: Internal, Domain: "example.com", Storage: t.TempDir(), Files: []Pair{p}, lookEvery: time.Millisecond})
	if err := m.Manage(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	second := selfSigned(t, p, time.Now().Add(time.Hour), "a.test")
	eventually(t, "the changed certificate is served", func() bool {
		state, err := handshake(t, m, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
		return err == nil && state.PeerCertificates[0].Equal(second)
	})
}

func TestOwnCertificatesThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	broken := in(dir, "broken")
	writeOwn(t, broken.Cert, []byte("x"))
	writeOwn(t, broken.Key, []byte("x"))
	for _, cfg := range []Config{
		{Files: []Pair{broken}},
		{Files: []Pair{in(dir, "missing")}},
		{Folder: filepath.Join(dir, "missing")},
	} {
		cfg.Mode, cfg.Domain, cfg.Storage = Internal, "example.com", t.TempDir()
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("Run: %v, want an error that names the file", err)
		}
	}
	// One of many in a folder does not keep the edge from starting.
	good := selfSigned(t, in(dir, "good"), time.Now().Add(time.Hour), "good.test")
	m, _ := start(t, Config{Mode: Internal, Domain: "example.com", Storage: t.TempDir(), Folder: dir})
	if err := m.Manage(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	state, err := handshake(t, m, &tls.Config{ServerName: "good.test", InsecureSkipVerify: true})
	if err != nil || !state.PeerCertificates[0].Equal(good) {
		t.Errorf("the good one: %v", err)
	}
	var told bool
	for _, s := range m.Status() {
		told = told || s.File == broken.Cert && s.State == StateBroken && strings.Contains(s.Error, "holds no certificate")
	}
	if !told {
		t.Errorf("Status does not tell of the broken one: %+v", m.Status())
	}
}
