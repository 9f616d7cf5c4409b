package wg

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"testing"

	"github.com/wgexpose/wgexpose/relay"
)

// secured is a TLS connection on a wire at both ends.
func secured(t testing.TB) (client, server *tls.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	client = tls.Client(relay.NewWire(dialled, nil), &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	server = tls.Server(relay.NewWire(accepted, nil), &tls.Config{
		Certificates:                []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		DynamicRecordSizingDisabled: true,
	})
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	return client, server
}

// A session over TLS on wires.
func TestWireCarriesASession(t *testing.T) {
	streamsA, streamsB := newTestStreams(t), newTestStreams(t)
	a, paths := pathsNode(t, 1, streamsA, UDP(loopback4))
	b, _ := pathsNode(t, 2, streamsB, UDP(loopback4))
	introduce(t, a, b, netip.MustParseAddrPort("127.0.0.1:9"))
	client, server := secured(t)
	st, _ := running(t, streamsA, client, StreamOptions{})
	running(t, streamsB, server, StreamOptions{Probation: patience, Idle: patience})
	paths.Pin(st.Endpoint())
	exchange(t, a, b, 50)
	if !peerOf(t, b, a).Stream {
		t.Error("b does not use the stream")
	}
}
