package certs

import (
	"crypto/tls"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wgexpose/wgexpose/internal/pebble"
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

// authority starts Pebble, which looks for proofs at e and, where dns is not "",
// there.
func (e *fakeEdge) authority(t *testing.T, dns string, eab map[string]string) *pebble.Authority {
	t.Helper()
	return pebble.Start(t, pebble.Options{TLSPort: e.httpsPort, HTTPPort: e.httpPort, DNS: dns, EAB: eab})
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
	for _, ch := range []Challenge{HTTP01, TLSALPN01} {
		t.Run(string(ch), func(t *testing.T) {
			dir := t.TempDir()
			e := new(fakeEdge)
			httpLn, httpsLn := e.listen(t)
			ca := e.authority(t, "", nil)
			hosts := []string{"app.example.test", "late.example.test"}
			cfg := Config{
				Mode: ACME, Domain: "example.test", Storage: dir, Allowed: tableOf(hosts...).has,
				Issuers: []Issuer{{CA: ca.Directory, Root: ca.Root, Email: "admin@example.test"}}, Challenges: []Challenge{ch},
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
			ca.Stop()
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
