// Package pebble runs Pebble, the test authority of Let's Encrypt, for tests:
//
//	ca := pebble.Start(t, pebble.Options{TLSPort: port})
//	// order from ca.Directory, trusting ca.Root
package pebble

import (
	"bytes"
	"cmp"
	"context"
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
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/internal/ports"
	"github.com/wgexpose/wgexpose/internal/zone"
)

// Options say where an authority looks for proofs, and whom it serves. Zero ports
// are nowhere.
type Options struct {
	TLSPort  int               // of 127.0.0.1, for TLS-ALPN-01
	HTTPPort int               // of 127.0.0.1, for HTTP-01
	DNS      string            // HOST:PORT to ask, for DNS-01; "" leads every name to this machine
	EAB      map[string]string // keys by id (base64url) that accounts must be bound to; nil: none
}

// Authority is an ACME authority that runs until the test ends.
type Authority struct {
	Directory string // URL
	Root      string // file with the root to trust for the directory
	Stop      func() // ends it before

	t      testing.TB
	manage string // HOST:PORT of its management interface
	trust  *x509.CertPool
}

const (
	// nowhere is a port on which nobody answers.
	nowhere = 1
	// patience bounds a start that hangs.
	patience = time.Minute
)

// Start starts an authority. It rejects some nonces as it does by itself, and never
// reuses a validation. Without Pebble the test is skipped, or fails when
// WGEXPOSE_REQUIRE_TOOLS is 1.
func Start(t testing.TB, o Options) *Authority {
	t.Helper()
	program, err := exec.LookPath("pebble")
	switch {
	case err == nil:
	case os.Getenv("WGEXPOSE_REQUIRE_TOOLS") == "1":
		t.Fatal("pebble is required (WGEXPOSE_REQUIRE_TOOLS=1) and not installed")
	default:
		t.Skip("pebble is not installed")
	}
	// Pebble does not tell which ports it got.
	b := ports.Reserve(t)
	listen, manage := b.Addr().String(), b.Addr().String()
	dir := t.TempDir()
	a := &Authority{
		Directory: "https://" + listen + "/dir", Root: filepath.Join(dir, "tls.crt"),
		t: t, manage: manage, trust: x509.NewCertPool(),
	}
	config := map[string]any{
		"listenAddress": listen, "managementListenAddress": manage,
		"certificate": a.Root, "privateKey": filepath.Join(dir, "tls.key"),
		"tlsPort": cmp.Or(o.TLSPort, nowhere), "httpPort": cmp.Or(o.HTTPPort, nowhere),
	}
	if o.EAB != nil {
		config["externalAccountBindingRequired"] = true
		config["externalAccountMACKeys"] = o.EAB
	}
	files := make(map[string][]byte)
	if files["config.json"], err = json.Marshal(map[string]any{"pebble": config}); err != nil {
		t.Fatal(err)
	}
	files["tls.crt"], files["tls.key"] = certificate(t)
	a.trust.AppendCertsFromPEM(files["tls.crt"])
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if o.DNS == "" {
		o.DNS = zone.New(t, "").Addr
	}
	a.run(program, "-config", filepath.Join(dir, "config.json"), "-dnsserver", o.DNS)
	return a
}

// run starts the program and waits until it listens.
func (a *Authority) run(program string, args ...string) {
	a.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0")
	var out bytes.Buffer // read when the process has ended
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		cancel()
		a.t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // killed
	}()
	a.Stop = sync.OnceFunc(func() {
		cancel()
		<-exited
		if a.t.Failed() {
			a.t.Logf("pebble:\n%s", out.Bytes())
		}
	})
	a.t.Cleanup(a.Stop)
	listen := a.Directory[len("https://") : len(a.Directory)-len("/dir")]
	for deadline := time.Now().Add(patience); !reachable(listen) || !reachable(a.manage); {
		select {
		case <-exited:
			a.t.Fatalf("pebble ended:\n%s", out.Bytes())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("pebble does not listen within %v", patience)
		}
	}
}

// certificate makes one for the authority's own HTTPS, and its key.
func certificate(t testing.TB) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func reachable(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// Issuers are the roots of what it issues.
func (a *Authority) Issuers() *x509.CertPool {
	a.t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.trust}, DisableKeepAlives: true}}
	pool := x509.NewCertPool()
	for _, path := range []string{"/roots/0", "/intermediates/0"} {
		res, err := client.Get("https://" + a.manage + path)
		if err != nil {
			a.t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !pool.AppendCertsFromPEM(b) {
			a.t.Fatalf("pebble has no certificate at %s (%v)", path, err)
		}
	}
	return pool
}
