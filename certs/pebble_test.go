package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/internal/ports"
	"github.com/wgexpose/wgexpose/internal/zone"
)

// An edge with the two listeners of a Manager's challenges.
type fakeEdge struct {
	m                   *Manager
	httpPort, httpsPort int
	probed              atomic.Int64 // HTTP-01 probes answered
	onProbe             func()
}

// listen opens the sockets; serve needs the Manager, which needs the ports.
func (e *fakeEdge) listen(t *testing.T) (httpLn, httpsLn net.Listener) {
	t.Helper()
	for _, ln := range []*net.Listener{&httpLn, &httpsLn} {
		var err error
		if *ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	e.httpPort = httpLn.Addr().(*net.TCPAddr).Port
	e.httpsPort = httpsLn.Addr().(*net.TCPAddr).Port
	return httpLn, httpsLn
}

func (e *fakeEdge) serve(t *testing.T, m *Manager, httpLn, httpsLn net.Listener) {
	e.m = m
	if e.onProbe == nil {
		e.onProbe = func() {}
	}
	challenge := m.HTTPChallenge(http.NotFoundHandler())
	plain := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.probed.Add(1)
		e.onProbe()
		challenge.ServeHTTP(w, r)
	})}
	secure := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) }),
		TLSConfig: func() *tls.Config {
			c := m.TLSConfig()
			get := c.GetCertificate
			c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				if IsChallenge(hello) {
					e.onProbe()
				}
				return get(hello)
			}
			return c
		}(),
	}
	var wg sync.WaitGroup
	wg.Go(func() { plain.Serve(httpLn) })
	wg.Go(func() { secure.ServeTLS(httpsLn, "", "") })
	t.Cleanup(func() {
		plain.Close()
		secure.Close()
		wg.Wait()
	})
}

// pebble says how Let's Encrypt's test authority runs.
type pebble struct {
	edge *fakeEdge         // validates at its ports
	dns  string            // its resolver; "" answers 127.0.0.1 for all
	eab  map[string]string // keys by id (base64url) that accounts must be bound to; nil: none
}

// start runs the authority. It rejects some nonces as it does by itself, and never
// reuses a validation.
func (p pebble) start(t *testing.T) (directory, root string, stop func()) {
	t.Helper()
	program := need(t, "pebble")
	dir := t.TempDir()

	// The authority's own HTTPS, which Issuer.Root must make trusted.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(dir, "tls.crt")
	files := map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
	// Pebble does not tell which port it got, so that it needs free ones.
	b := ports.Reserve(t)
	listen, manage := b.Addr().String(), b.Addr().String()
	config := map[string]any{
		"listenAddress": listen, "managementListenAddress": manage,
		"certificate": root, "privateKey": filepath.Join(dir, "tls.key"),
		"httpPort": p.edge.httpPort, "tlsPort": p.edge.httpsPort,
	}
	if p.eab != nil {
		config["externalAccountBindingRequired"] = true
		config["externalAccountMACKeys"] = p.eab
	}
	if files["config.json"], err = json.Marshal(map[string]any{"pebble": config}); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p.dns == "" {
		p.dns = zone.New(t, "").Addr
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "-config", filepath.Join(dir, "config.json"), "-dnsserver", p.dns)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0")
	out := new(logBuffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // killed
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-exited
		if t.Failed() {
			t.Logf("pebble:\n%s", out)
		}
	})
	t.Cleanup(stop)
	eventually(t, "pebble listens", func() bool {
		select {
		case <-exited:
			t.Fatalf("pebble ended:\n%s", out)
		default:
		}
		c, err := net.Dial("tcp", listen)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return "https://" + listen + "/dir", root, stop
}

// listening returns the local addresses that this process listens on, as the
// kernel has them: /proc/net/tcp and tcp6 (state 0A) by the inodes of
// /proc/self/fd.
func listening(t *testing.T) []string {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil // not Linux
	}
	mine := make(map[string]bool)
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:[") {
			mine[strings.Trim(to, "socket:[]")] = true
		}
	}
	var addrs []string
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && mine[f[9]] {
				addrs = append(addrs, f[1])
			}
		}
	}
	slices.Sort(addrs)
	return addrs
}

func TestPebble(t *testing.T) {
	need(t, "pebble")
	for _, ch := range []Challenge{HTTP01, TLSALPN01} {
		t.Run(string(ch), func(t *testing.T) {
			dir := t.TempDir()
			e := new(fakeEdge)
			httpLn, httpsLn := e.listen(t)
			ca, caRoot, stopCA := pebble{edge: e}.start(t)
			hosts := []string{"app.example.test", "late.example.test"}
			cfg := Config{
				Mode: ACME, Domain: "example.test", Storage: dir, Allowed: tableOf(hosts...).has,
				Issuers: []Issuer{{CA: ca, Root: caRoot, Email: "admin@example.test"}}, Challenges: []Challenge{ch},
			}
			m, stop := start(t, cfg)
			var during [][]string
			var mu sync.Mutex // guards during
			e.onProbe = func() {
				mu.Lock()
				defer mu.Unlock()
				during = append(during, listening(t))
			}
			e.serve(t, m, httpLn, httpsLn)
			if err := m.Manage(t.Context(), hosts[0]); err != nil {
				t.Fatal(err)
			}
			before := listening(t)

			// The handshakes wait for the orders. The last name is one that
			// only a visitor asks for.
			serials := make(map[string]*big.Int)
			for _, host := range append([]string{cfg.Domain}, hosts...) {
				conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", e.httpsPort),
					&tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: []string{"h2"}})
				if err != nil {
					t.Fatalf("%s: %v", host, err)
				}
				leaf := conn.ConnectionState().PeerCertificates[0]
				conn.Close()
				if err := leaf.VerifyHostname(host); err != nil || !strings.Contains(leaf.Issuer.CommonName, "Pebble") {
					t.Errorf("%s: certificate by %q: %v", host, leaf.Issuer.CommonName, err)
				}
				serials[host] = leaf.SerialNumber
			}
			if n := e.probed.Load(); ch == HTTP01 && n < 3 || ch == TLSALPN01 && n != 0 {
				t.Errorf("%d probes over HTTP", n)
			}
			mu.Lock()
			if len(during) < 3 {
				t.Errorf("%d probes, want one at least for each name", len(during))
			}
			for _, got := range during {
				if !slices.Equal(got, before) {
					t.Errorf("while a challenge was under way the process listened on %q, and before it on %q", got, before)
				}
			}
			mu.Unlock()

			// Restarted, with the authority gone, it has them all.
			stop()
			stopCA()
			m, _ = start(t, cfg)
			if err := m.Manage(t.Context(), hosts...); err != nil {
				t.Fatal(err)
			}
			for host, serial := range serials {
				state, err := handshake(t, m, &tls.Config{ServerName: host, InsecureSkipVerify: true})
				if err != nil || state.PeerCertificates[0].SerialNumber.Cmp(serial) != 0 {
					t.Errorf("%s after a restart: %v", host, err)
				}
			}
		})
	}
}
