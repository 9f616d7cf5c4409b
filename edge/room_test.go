package edge

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
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
