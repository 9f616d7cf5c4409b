package certs

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serveHTTPS serves h with m's certificates until the test ends.
func serveHTTPS(t *testing.T, m *Manager) (port string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s\n", r.Host, r.Proto)
		}),
		TLSConfig: m.TLSConfig(),
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
	_, port, err = net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// The root as curl and OpenSSL see it: users paste such lines.
func TestCurl(t *testing.T) {
	curl := need(t, "curl")
	for _, tt := range []struct {
		domain string
		hosts  []string
	}{
		{"example.com", []string{"example.com", "app.example.com", "a.b.example.com"}},
		{"localhost", []string{"localhost", "demo.localhost"}},
	} {
		dir := t.TempDir()
		m, _ := start(t, Config{Mode: Internal, Domain: tt.domain, Storage: dir, Allowed: tableOf(tt.hosts...).has})
		if err := m.Manage(t.Context(), tt.hosts...); err != nil {
			t.Fatal(err)
		}
		port := serveHTTPS(t, m)
		for _, host := range tt.hosts {
			for _, version := range []string{"--http1.1", "--http2"} {
				out, err := exec.CommandContext(t.Context(), curl, "-sS", version, "--max-time", "30",
					"--cacert", filepath.Join(dir, rootDir, rootCert), "--resolve", host+":"+port+":127.0.0.1",
					"https://"+host+":"+port+"/").CombinedOutput()
				proto := map[string]string{"--http1.1": "HTTP/1.1", "--http2": "HTTP/2.0"}[version]
				if want := host + ":" + port + " " + proto + "\n"; err != nil || string(out) != want {
					t.Errorf("curl %s https://%s: %v, %q; want %q", version, host, err, out, want)
				}
			}
		}
		out, err := exec.CommandContext(t.Context(), curl, "-sS", "--max-time", "30",
			"--cacert", filepath.Join(dir, rootDir, rootCert), "--resolve", "other.test:"+port+":127.0.0.1",
			"https://other.test:"+port+"/").CombinedOutput()
		if err == nil {
			t.Errorf("curl https://other.test succeeded: %s", out)
		}
	}
}

func TestOpenSSL(t *testing.T) {
	openssl := need(t, "openssl")
	dir := t.TempDir()
	log, _ := logger(t)
	r, err := openRoot(dir, "example.com", time.Now(), log)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{root: r, domain: "example.com", lifetime: func() time.Duration { return defaultLeafLifetime }}
	ca := filepath.Join(dir, rootDir, rootCert)
	verify := func(cert *x509.Certificate, host string) (string, error) {
		t.Helper()
		file := filepath.Join(dir, "leaf.pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), openssl, "verify", "-x509_strict", "-purpose", "sslserver",
			"-CAfile", ca, "-verify_hostname", host, file).CombinedOutput()
		return string(out), err
	}
	for host, asked := range map[string]string{
		"example.com":     "example.com",
		"app.example.com": "example.com",
		"a.b.example.com": "a.b.example.com",
	} {
		if out, err := verify(issue(t, a, asked), host); err != nil {
			t.Errorf("openssl verify for %s: %v\n%s", host, err, out)
		}
	}
	for _, tmpl := range []*x509.Certificate{
		{DNSNames: []string{"bank.test"}, AuthorityKeyId: r.cert.SubjectKeyId},
		{DNSNames: []string{"bank.test", "example.com"}, AuthorityKeyId: r.cert.SubjectKeyId},
	} {
		out, err := verify(r.sign(t, tmpl), "bank.test")
		if err == nil || !strings.Contains(out, "permitted subtree violation") {
			t.Errorf("openssl verify for bank.test: %v, want a permitted subtree violation\n%s", err, out)
		}
	}
}

// issue has a sign a certificate for host.
func issue(t *testing.T, a *authority, host string) *x509.Certificate {
	t.Helper()
	csr, err := x509.ParseCertificateRequest(request(t, &x509.CertificateRequest{DNSNames: []string{host}}))
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.Issue(t.Context(), csr)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(issued.Certificate)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
