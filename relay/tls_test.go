package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"testing"
	"time"
)

// tlsPair returns a TLS client and the server's end, before the handshake.
func tlsPair(t *testing.T) (client, accepted *tls.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"relay.test"},
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	c, s := tcpPair(t)
	client = tls.Client(c, &tls.Config{RootCAs: roots, ServerName: "relay.test"})
	accepted = tls.Server(s, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	return client, accepted
}

func TestTLS(t *testing.T) {
	client, a := tlsPair(t)
	b, server := tcpPair(t)
	done := start(t, t.Context(), a, b)
	send(t, client, "question")
	closeWrite(t, client)
	expect(t, server, "question")
	expectEOF(t, server)
	send(t, server, "answer")
	closeWrite(t, server)
	expect(t, client, "answer")
	expectEOF(t, client)
	if got, want := wait(t, done), (outcome{Stats{8, 6}, nil}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// The server ends before a byte was sent, and so before the handshake.
func TestTLSEndBeforeTheHandshake(t *testing.T) {
	client, a := tlsPair(t)
	b, server := tcpPair(t)
	closeWrite(t, server)
	done := start(t, t.Context(), a, b)
	expectEOF(t, client)
	closeWrite(t, client)
	expectEOF(t, server)
	if got, want := wait(t, done), (outcome{}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Without a close_notify, and behind half of a record.
func TestTLSReset(t *testing.T) {
	client, a := tlsPair(t)
	b, server := tcpPair(t)
	done := start(t, t.Context(), a, b)
	send(t, client, "half a")
	expect(t, server, "half a")
	send(t, client.NetConn(), "\x17\x03\x03")
	Abort(client.NetConn())
	expectReset(t, server)
	expectBroken(t, done)
}

// A reset behind a TLS relay must not become a close_notify.
func TestResetBehindTLS(t *testing.T) {
	client, a := tlsPair(t)
	b, server := tcpPair(t)
	done := start(t, t.Context(), a, b)
	send(t, client, "question")
	expect(t, server, "question")
	Abort(server)
	if _, err := io.Copy(io.Discard, client); err == nil {
		t.Error("the client saw a clean end")
	}
	expectBroken(t, done)
}
