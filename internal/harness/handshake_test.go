package harness_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/wgexpose/wgexpose/internal/harness"
)

// BenchmarkHandshake compares an edge's way to a finished handshake with that of a
// bare server of net/http.
func BenchmarkHandshake(b *testing.B) {
	shake := func(b *testing.B, addr, host string) {
		b.ReportAllocs()
		for b.Loop() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			t := tls.Client(c, &tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
			if err := t.Handshake(); err != nil {
				b.Fatal(err)
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}
	b.Run("edge", func(b *testing.B) {
		e := harness.Start(b, harness.Options{})
		run := e.AddAgent("laptop").Publish(harness.HTTP("app", "http://127.0.0.1:1"))
		run.WaitUp("app")
		shake(b, e.Ready.HTTPS.String(), "app."+e.Domain)
	})
	b.Run("http", func(b *testing.B) {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.TLS = &tls.Config{Certificates: []tls.Certificate{ecdsaCertificate(b)}}
		s.StartTLS()
		defer s.Close()
		shake(b, s.Listener.Addr().String(), "localhost")
	})
}

// ecdsaCertificate has the kind of key that authorities sign by default today.
func ecdsaCertificate(tb testing.TB) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
