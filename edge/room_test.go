package edge

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/internal/logbuf"
)

// Visitors that say nothing do not keep others out.
func TestSilentVisitorsDoNotFillTheEdge(t *testing.T) {
	r := newRig(t, func(r *rig) { r.limits.hello, r.limits.greeted = patience, 4 })
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	first := r.dialHTTPS()
	for range 20 {
		r.dialHTTPS()
	}
	if _, body := r.get(r.client(nil), "https://app.edge.test/"); body != "hello from app.edge.test" {
		t.Errorf("%q", body)
	}
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the first silent visitor is still there: %v", err)
	}
}

func TestOneAddressIsBounded(t *testing.T) {
	r := newRig(t, func(r *rig) { r.limits.hello, r.limits.greetedPer = patience, 1 })
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	c := r.client(nil)
	// Its place is free again once the handshake is over: an open connection does
	// not count.
	for range 3 {
		if _, body := r.get(r.client(nil), "https://app.edge.test/"); body != "hello from app.edge.test" {
			t.Errorf("%q", body)
		}
	}
	first := r.dialHTTPS()
	second, err := net.Dial("tcp", r.cfg.HTTPS.Addr().String())
	if err == nil { // the reset may come first
		second.SetDeadline(time.Now().Add(patience))
		_, err = io.ReadAll(second)
		second.Close()
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a second one: %v; want a reset", err)
	}
	first.Close()
	for deadline := time.Now().Add(patience); ; {
		res, err := c.Get("https://app.edge.test/")
		if err == nil {
			res.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A resumed session costs little and does not count; whoever begins others faster
// than it may is reset before anything is computed, and comes in again later.
func TestHandshakesOfOneAddressArePaced(t *testing.T) {
	const perSecond, atOnce = 1, 10
	var log logbuf.Buffer
	r := newRig(t, func(r *rig) {
		r.cfg.Handshakes, r.front.log = perSecond, slog.New(slog.NewTextHandler(&log, nil))
	})
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	cache := tls.NewLRUClientSessionCache(1)
	shake := func(cache tls.ClientSessionCache) (resumed bool, err error) {
		c, err := net.Dial("tcp", r.cfg.HTTPS.Addr().String())
		if err != nil {
			return false, err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		conn := tls.Client(c, &tls.Config{ServerName: "app.edge.test", RootCAs: r.certs.Roots, ClientSessionCache: cache, NextProtos: []string{"http/1.1"}})
		// The ticket comes with the answer.
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: app.edge.test\r\nConnection: close\r\n\r\n"); err != nil {
			return false, err
		}
		if _, err := io.ReadAll(conn); err != nil {
			return false, err
		}
		return conn.ConnectionState().DidResume, nil
	}
	if _, err := shake(cache); err != nil {
		t.Fatal(err)
	}
	for range 3 * atOnce {
		resumed, err := shake(cache)
		if err != nil || !resumed {
			t.Fatalf("resumed: %v, %v", resumed, err)
		}
	}
	refused := func() bool {
		_, err := shake(nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return err != nil
	}
	// A machine may be so slow that it never is too fast; it is not for ever.
	for deadline := time.Now().Add(patience); !refused(); {
		if time.Now().After(deadline) {
			t.Fatal("nobody is turned away")
		}
	}
	if !strings.Contains(log.String(), "--handshake-rate") {
		t.Errorf("the owner is not told: %s", log.String())
	}
	for deadline := time.Now().Add(patience); refused(); {
		if time.Now().After(deadline) {
			t.Fatal("the address is shut out for good")
		}
	}
}
