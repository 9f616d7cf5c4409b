// Package pebble runs Pebble, the test authority of Let's Encrypt.
package pebble

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/process"
	"github.com/wgexpose/wgexpose/internal/ports"
	"github.com/wgexpose/wgexpose/internal/zone"
)

// Authority is an ACME authority that runs until the test ends.
type Authority struct {
	Directory string         // URL
	Root      string         // file with the root to trust for the directory
	Issuers   *x509.CertPool // roots of what it issues
}

// Options say where an authority looks for proofs. Zero fields are nowhere.
type Options struct {
	TLSPort  int    // of 127.0.0.1, for TLS-ALPN-01
	HTTPPort int    // of 127.0.0.1, for HTTP-01
	DNS      string // HOST:PORT to ask, for DNS-01; "" leads every name to this machine
}

// nowhere is a port on which nobody answers.
const nowhere = 1

// Start starts an authority. It rejects some nonces, as it does by itself. The test
// is skipped without Pebble.
func Start(t testing.TB, o Options) Authority {
	t.Helper()
	if o.DNS == "" {
		o.DNS = zone.New(t, "").Addr
	}
	program := process.Need(t, "pebble")
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	// Pebble does not tell which ports it got.
	b := ports.Reserve(t)
	listen, manage := b.Addr().String(), b.Addr().String()
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": manage,
		"certificate": filepath.Join(dir, "tls.crt"), "privateKey": filepath.Join(dir, "tls.key"),
		"tlsPort": cmp.Or(o.TLSPort, nowhere), "httpPort": cmp.Or(o.HTTPPort, nowhere),
	}})
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, content := range map[string][]byte{
		"tls.crt": certPEM, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), "config.json": config,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := process.Start(t, process.Config{
		Name: "pebble", Path: program, Env: []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0"},
		Args: []string{"-config", filepath.Join(dir, "config.json"), "-dnsserver", o.DNS},
	})
	p.Poll("pebble listens", func() bool { return reachable(listen) && reachable(manage) })
	a := Authority{Directory: "https://" + listen + "/dir", Root: filepath.Join(dir, "tls.crt"), Issuers: x509.NewCertPool()}
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(certPEM)
	for _, path := range []string{"/roots/0", "/intermediates/0"} {
		if !a.Issuers.AppendCertsFromPEM(get(t, trust, "https://"+manage+path)) {
			t.Fatalf("pebble has no certificate at %s", path)
		}
	}
	return a
}

func reachable(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func get(t testing.TB, trust *x509.CertPool, url string) []byte {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust}, DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
