package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestInternalHandshakes(t *testing.T) {
	tests := []struct {
		domain, name string
		names        []string // on the certificate
	}{
		{"example.com", "example.com", []string{"example.com", "*.example.com"}},
		{"example.com", "app.example.com", []string{"example.com", "*.example.com"}},
		{"example.com", "a.b.example.com", []string{"a.b.example.com"}},
		{"localhost", "localhost", []string{"localhost"}},
		{"localhost", "demo.localhost", []string{"demo.localhost"}},
		{"localhost", "a.demo.localhost", []string{"a.demo.localhost"}},
	}
	for _, tt := range tests {
		t.Run(tt.domain+"/"+tt.name, func(t *testing.T) {
			dir := t.TempDir()
			m, _ := start(t, Config{Mode: Internal, Domain: tt.domain, Storage: dir, Allowed: tableOf(tt.name).has})
			if err := m.Manage(t.Context(), tt.name); err != nil {
				t.Fatal(err)
			}
			if !m.Covers(tt.name) {
				t.Errorf("Covers(%s) is false after Manage", tt.name)
			}
			state, err := handshake(t, m, &tls.Config{
				RootCAs: roots(t, dir), ServerName: tt.name, NextProtos: []string{"h2", "http/1.1"},
			})
			if err != nil {
				t.Fatal(err)
			}
			if state.NegotiatedProtocol != "h2" {
				t.Errorf("protocol %q, want h2", state.NegotiatedProtocol)
			}
			if got := strings.Join(state.PeerCertificates[0].DNSNames, " "); got != strings.Join(tt.names, " ") {
				t.Errorf("certificate is for %q, want %q", got, tt.names)
			}
		})
	}
}

// A name that Manage was not told of gets its certificate in the handshake.
func TestInternalOnDemand(t *testing.T) {
	dir := t.TempDir()
	m, _ := start(t, Config{Mode: Internal, Domain: "localhost", Storage: dir, Allowed: tableOf("demo.localhost").has})
	if err := m.Manage(t.Context(), "localhost"); err != nil { // until it runs
		t.Fatal(err)
	}
	if m.Covers("demo.localhost") {
		t.Fatal("there is a certificate for demo.localhost already")
	}
	leaf(t, m, dir, "demo.localhost")
}

func TestNameOutsideTheTable(t *testing.T) {
	dir := t.TempDir()
	tb := tableOf("a.b.example.com", "shop.customer.org")
	m, _ := start(t, Config{Mode: Internal, Domain: "example.com", Storage: dir, Allowed: tb.has})
	if err := m.Manage(t.Context(), "c.b.example.com"); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("Manage of a name outside the table: %v, want ErrNotAllowed", err)
	}
	var outside *OutsideError
	if err := m.Manage(t.Context(), "shop.customer.org"); !errors.As(err, &outside) {
		t.Errorf("Manage of a name outside the domain: %v, want an OutsideError", err)
	}
	for _, name := range []string{"c.b.example.com", "other.test", "shop.customer.org", "example.com.evil.test"} {
		if _, err := handshake(t, m, &tls.Config{RootCAs: roots(t, dir), ServerName: name}); !isUnrecognizedName(err) {
			t.Errorf("handshake for %s: %v, want the alert unrecognized_name", name, err)
		}
		if m.Covers(name) {
			t.Errorf("Covers(%s)", name)
		}
	}
	// The one certificate is the domain's: the authority was not asked.
	if got := stored(t, dir); len(got) != 1 || got[0] != "example.com" {
		t.Errorf("certificates of %q are stored, want example.com only", got)
	}
	// One bad name does not keep the others from their certificates.
	err := m.Manage(t.Context(), "c.b.example.com", "A.b.example.com.")
	if !errors.Is(err, ErrNotAllowed) || !m.Covers("a.b.example.com") {
		t.Errorf("Manage of a good and a bad name: %v, covers the good one: %v", err, m.Covers("a.b.example.com"))
	}
}

// stored returns the names that have files in the internal authority's storage.
func stored(t *testing.T, dir string) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(dir, "certificates", "internal-*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range dirs {
		dirs[i] = filepath.Base(dirs[i])
	}
	return dirs
}

func TestNoServerName(t *testing.T) {
	dir := t.TempDir()
	m, _ := start(t, Config{Mode: Internal, Domain: "example.com", Storage: dir})
	var seen []string
	_, err := handshake(t, m, &tls.Config{
		ServerName: "127.0.0.1", // sends none (RFC 6066: no addresses)
		VerifyConnection: func(s tls.ConnectionState) error {
			seen = s.PeerCertificates[0].DNSNames
			return nil
		},
		InsecureSkipVerify: true,
	})
	if err != nil || len(seen) == 0 || seen[0] != "example.com" {
		t.Errorf("without a server name: certificate for %q, error %v; want the domain's", seen, err)
	}
}

func TestOldProtocolsAreRefused(t *testing.T) {
	dir := t.TempDir()
	m, _ := start(t, Config{Mode: Internal, Domain: "example.com", Storage: dir})
	if err := m.Manage(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: roots(t, dir), ServerName: "example.com", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if _, err := handshake(t, m, cfg); err == nil {
		t.Error("a handshake with TLS 1.1 succeeded")
	}
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := handshake(t, m, cfg); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
}

func TestRestartKeepsCertificates(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Mode: Internal, Domain: "example.com", Storage: dir, Allowed: tableOf("a.b.example.com").has}
	serials := func() (serials [2]*big.Int) {
		m, stop := start(t, cfg)
		defer stop()
		if err := m.Manage(t.Context(), "a.b.example.com"); err != nil {
			t.Fatal(err)
		}
		serials[0] = leaf(t, m, dir, "app.example.com").SerialNumber
		serials[1] = leaf(t, m, dir, "a.b.example.com").SerialNumber
		return serials
	}
	first, rootBefore := serials(), read(t, filepath.Join(dir, rootDir, rootCert))
	second, rootAfter := serials(), read(t, filepath.Join(dir, rootDir, rootCert))
	for i := range first {
		if first[i].Cmp(second[i]) != 0 {
			t.Errorf("certificate %d has serial number %v after a restart, %v before", i, second[i], first[i])
		}
	}
	if rootBefore != rootAfter {
		t.Error("a restart made another root")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The first certificate is short-lived, so that certmagic's timer finds it due.
func TestRenewalWhileRunning(t *testing.T) {
	dir := t.TempDir()
	lifetimes := make(chan time.Duration, 1)
	lifetimes <- 20 * time.Minute // with the hour before it: less than a third is left
	m, _ := start(t, Config{
		Mode: Internal, Domain: "example.com", Storage: dir,
		checkEvery: 20 * time.Millisecond,
		leafLifetime: func() time.Duration {
			select {
			case d := <-lifetimes:
				return d
			default:
				return defaultLeafLifetime
			}
		},
	})
	if err := m.Manage(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the certificate is renewed", func() bool {
		return time.Until(leaf(t, m, dir, "example.com").NotAfter) > defaultLeafLifetime-time.Hour
	})
	if !m.Covers("app.example.com") {
		t.Error("the renewed certificate has lost its wildcard")
	}
}

// An edge that was off for long must not greet with an expired certificate.
func TestExpiredCertificateAtStart(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Mode: Internal, Domain: "example.com", Storage: dir, leafLifetime: func() time.Duration { return -time.Minute }}
	m, stop := start(t, cfg)
	if err := m.Manage(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(t, m, &tls.Config{RootCAs: roots(t, dir), ServerName: "example.com"}); err == nil {
		t.Fatal("the certificate is not expired")
	}
	stop()
	cfg.leafLifetime = nil
	m, _ = start(t, cfg)
	leaf(t, m, dir, "example.com")
}

// A process that was killed while it stored a renewal leaves the new key beside
// the old certificate, and its lock.
func TestDamagedCertificateIsReplaced(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Mode: Internal, Domain: "example.com", Storage: dir, Allowed: tableOf("a.b.example.com").has}
	m, stop := start(t, cfg)
	if err := m.Manage(t.Context(), "a.b.example.com"); err != nil {
		t.Fatal(err)
	}
	before := leaf(t, m, dir, "example.com").SerialNumber
	stop()
	keys, err := filepath.Glob(filepath.Join(dir, "certificates", "internal-*", "*", "*.key"))
	if err != nil || len(keys) != 2 {
		t.Fatalf("keys %q, %v; want two", keys, err)
	}
	if err := os.Rename(keys[0], keys[1]); err != nil { // one is missing, one is wrong
		t.Fatal(err)
	}
	m, _ = start(t, cfg)
	if err := m.Manage(t.Context(), "a.b.example.com"); err != nil {
		t.Fatal(err)
	}
	if leaf(t, m, dir, "example.com").SerialNumber.Cmp(before) == 0 {
		t.Error("the damaged certificate is still served")
	}
	leaf(t, m, dir, "a.b.example.com")
}

func TestNamesThatLeftTheTableAreDropped(t *testing.T) {
	dir := t.TempDir()
	tb := tableOf("demo.localhost")
	m, _ := start(t, Config{Mode: Internal, Domain: "localhost", Storage: dir, Allowed: tb.has})
	if err := m.Manage(t.Context(), "demo.localhost"); err != nil {
		t.Fatal(err)
	}
	serial := leaf(t, m, dir, "demo.localhost").SerialNumber
	tb.remove("demo.localhost")
	m.live.Load().sweep()
	if m.Covers("demo.localhost") {
		t.Error("the certificate is still in memory")
	}
	if !m.Covers("localhost") {
		t.Error("the domain's certificate was dropped too")
	}
	if _, err := handshake(t, m, &tls.Config{RootCAs: roots(t, dir), ServerName: "demo.localhost"}); !isUnrecognizedName(err) {
		t.Errorf("handshake: %v, want the alert unrecognized_name", err)
	}
	// Published again, it has its certificate again.
	tb.mu.Lock()
	tb.hosts["demo.localhost"] = true
	tb.mu.Unlock()
	if err := m.Manage(t.Context(), "demo.localhost"); err != nil {
		t.Fatal(err)
	}
	if leaf(t, m, dir, "demo.localhost").SerialNumber.Cmp(serial) != 0 {
		t.Error("a name that came back got another certificate")
	}
}

// Renewals of a name that left the table are refused where all orders pass.
func TestRenewalOutsideTheTableIsRefused(t *testing.T) {
	dir := t.TempDir()
	tb := tableOf("demo.localhost")
	m, _ := start(t, Config{Mode: Internal, Domain: "localhost", Storage: dir, Allowed: tb.has})
	if err := m.Manage(t.Context(), "demo.localhost"); err != nil {
		t.Fatal(err)
	}
	tb.remove("demo.localhost")
	if err := m.live.Load().config.RenewCertSync(t.Context(), "demo.localhost", true); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("renewal: %v, want ErrNotAllowed", err)
	}
}

func TestTwoManagers(t *testing.T) {
	domains := []string{"one.test", "two.test"}
	dirs := []string{t.TempDir(), t.TempDir()}
	var ms []*Manager
	var stops []func()
	for i, d := range domains {
		m, stop := start(t, Config{Mode: Internal, Domain: d, Storage: dirs[i], Allowed: func(string) bool { return true }})
		ms, stops = append(ms, m), append(stops, stop)
	}
	for i, m := range ms {
		if err := m.Manage(t.Context(), "a.b."+domains[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range ms {
		leaf(t, m, dirs[i], "app."+domains[i])
		if other := "app." + domains[1-i]; m.Covers(other) {
			t.Errorf("the Manager of %s covers %s", domains[i], other)
		}
		if _, err := handshake(t, m, &tls.Config{RootCAs: roots(t, dirs[1-i]), ServerName: "app." + domains[i]}); err == nil {
			t.Errorf("the root of %s vouches for %s", domains[1-i], domains[i])
		}
	}
	stops[0]()
	leaf(t, ms[1], dirs[1], "a.b."+domains[1])
	if err := ms[1].Manage(t.Context(), "c.d."+domains[1]); err != nil {
		t.Errorf("Manage after the other has ended: %v", err)
	}
}

// Many visitors of a new name at once lead to one certificate.
func TestConcurrentHandshakes(t *testing.T) {
	dir := t.TempDir()
	m, _ := start(t, Config{Mode: Internal, Domain: "localhost", Storage: dir, Allowed: tableOf("demo.localhost").has})
	if err := m.Manage(t.Context(), "localhost"); err != nil {
		t.Fatal(err)
	}
	pool := roots(t, dir)
	type result struct {
		serial *big.Int
		err    error
	}
	results := make(chan result)
	const n = 20
	for range n {
		go func() {
			client, server := net.Pipe()
			defer client.Close()
			go func() {
				defer server.Close()
				_ = tls.Server(server, m.TLSConfig()).HandshakeContext(context.Background()) // the client tells
			}()
			c := tls.Client(client, &tls.Config{RootCAs: pool, ServerName: "demo.localhost"})
			if err := c.Handshake(); err != nil {
				results <- result{err: err}
				return
			}
			results <- result{serial: c.ConnectionState().PeerCertificates[0].SerialNumber}
		}()
	}
	var first *big.Int
	for range n {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
		} else if first == nil {
			first = r.serial
		} else if first.Cmp(r.serial) != 0 {
			t.Error("two certificates were made")
		}
	}
}
