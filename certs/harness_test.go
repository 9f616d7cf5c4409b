package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/internal/logbuf"
)

// limit is how long a test waits for what must happen.
const limit = 60 * time.Second

// need returns the path of a program, or ends the test: skipped, or failed when
// programs are required.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("WGEXPOSE_REQUIRE_TOOLS") == "1" {
		t.Fatalf("%s is required (WGEXPOSE_REQUIRE_TOOLS=1) and not installed", program)
	}
	t.Skipf("%s is not installed", program)
	return ""
}

// table is a set of hosts to use as Config.Allowed.
type table struct {
	mu    sync.Mutex // guards hosts
	hosts map[string]bool
}

func tableOf(hosts ...string) *table {
	tb := &table{hosts: make(map[string]bool)}
	for _, h := range hosts {
		tb.hosts[h] = true
	}
	return tb
}

func (tb *table) has(host string) bool {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.hosts[host]
}

func (tb *table) remove(host string) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	delete(tb.hosts, host)
}

// logger writes to a buffer that is shown when the test fails.
func logger(t *testing.T) (*slog.Logger, *logbuf.Buffer) {
	b := new(logbuf.Buffer)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", b)
		}
	})
	return slog.New(slog.NewTextHandler(b, nil)), b
}

// start runs a Manager. stop, which may be called before the test ends, waits
// for Run to return.
func start(t *testing.T, cfg Config) (m *Manager, stop func()) {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger, _ = logger(t)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(limit):
			t.Errorf("Run does not return")
		}
	})
	t.Cleanup(stop)
	return m, stop
}

// eventually waits for cond, looking often.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond) // between looks
	}
}

// roots returns a pool with the internal authority's root.
func roots(t *testing.T, storage string) *x509.CertPool {
	t.Helper()
	pem, err := InternalRootPEM(storage)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("InternalRootPEM returned no certificate")
	}
	return pool
}

// handshake connects to m through a real socket, as cfg says, and returns what
// the client saw.
func handshake(t *testing.T, m *Manager, cfg *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		c := tls.Server(conn, m.TLSConfig())
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if c.HandshakeContext(ctx) == nil {
			c.Close()
		}
	}()
	defer func() { <-served }()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState(), nil
}

// leaf returns the certificate that m shows for name to a visitor who trusts
// the internal root.
func leaf(t *testing.T, m *Manager, storage, name string) *x509.Certificate {
	t.Helper()
	state, err := handshake(t, m, &tls.Config{RootCAs: roots(t, storage), ServerName: name})
	if err != nil {
		t.Fatalf("handshake for %s: %v", name, err)
	}
	return state.PeerCertificates[0]
}

// isUnrecognizedName reports whether err is the alert of that name (112).
func isUnrecognizedName(err error) bool {
	var alert tls.AlertError
	return errors.As(err, &alert) && alert == 112 || err != nil && strings.Contains(err.Error(), "unrecognized name")
}
