package edge

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
)

// echConfig makes a key for Encrypted ClientHello, and the list of one
// configuration that a name's HTTPS record would publish (draft-ietf-tls-esni, section 4).
func echConfig(t *testing.T, outer string) (tls.EncryptedClientHelloKey, []byte) {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sized := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	contents := []byte{7, 0, 0x20} // its id; DHKEM(X25519, HKDF-SHA256)
	contents = append(contents, sized(key.PublicKey().Bytes())...)
	contents = append(contents, sized([]byte{0, 1, 0, 1})...) // HKDF-SHA256, AES-128-GCM
	contents = append(contents, 32, byte(len(outer)))
	contents = append(contents, outer...)
	contents = append(contents, 0, 0) // no extensions
	config := append([]byte{0xfe, 0x0d}, sized(contents)...)
	return tls.EncryptedClientHelloKey{Config: config, PrivateKey: key.Bytes(), SendAsRetry: true}, sized(config)
}

// With Encrypted ClientHello the edge goes by the outer name. An upstream that ends
// TLS finds the inner one, which nobody on the way reads.
func TestECHOuterName(t *testing.T) {
	r := newRig(t, nil)
	own := newTestCerts(t, []string{"outer.edge.test", "inner.test"})
	key, list := echConfig(t, "outer.edge.test")
	r.rawUpstream(1, func(c net.Conn) {
		config := own.TLSConfig()
		config.EncryptedClientHelloKeys = []tls.EncryptedClientHelloKey{key}
		s := tls.Server(c, config)
		if s.Handshake() == nil {
			io.WriteString(s, s.ConnectionState().ServerName)
			s.Close()
		}
	})
	r.apply(tlsEntry(1, "outer.edge.test", ""), httpEntry(2, "app.edge.test"))
	raw := &sender{Conn: r.dialHTTPS()}
	c := tls.Client(raw, &tls.Config{ServerName: "inner.test", RootCAs: own.Roots, EncryptedClientHelloConfigList: list})
	b, err := io.ReadAll(c)
	if err != nil || string(b) != "inner.test" || !c.ConnectionState().ECHAccepted {
		t.Errorf("%q %v, accepted: %v", b, err, c.ConnectionState().ECHAccepted)
	}
	if bytes.Contains(raw.sent.Bytes(), []byte("inner.test")) || !bytes.Contains(raw.sent.Bytes(), []byte("outer.edge.test")) {
		t.Error("the inner name passed in the clear, or not even the outer one")
	}

	// The edge has no keys of its own. It proves the outer name, and by that tells the
	// client to come again without.
	_, list = echConfig(t, "app.edge.test")
	c = tls.Client(r.dialHTTPS(), &tls.Config{ServerName: "inner.test", RootCAs: r.certs.Roots, EncryptedClientHelloConfigList: list})
	var rejected *tls.ECHRejectionError
	if err := c.Handshake(); !errors.As(err, &rejected) || len(rejected.RetryConfigList) > 0 {
		t.Errorf("%v, want the word that there is no ECH here", err)
	}
}
