package edge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/wgexpose/wgexpose/tunnel"
)

func (r *rig) dialHTTPS() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.cfg.HTTPS.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func TestUnknownNameGetsAnAlert(t *testing.T) {
	r := newRig(t, nil)
	for _, sni := range []string{"example.org", "deep.er.edge.test", "xn--a.test"} {
		err := tls.Client(r.dialHTTPS(), &tls.Config{ServerName: sni, RootCAs: r.certs.Roots}).Handshake()
		var alert *net.OpError
		if !errors.As(err, &alert) || !strings.Contains(alert.Error(), "unrecognized name") {
			t.Errorf("%s: %v", sni, err)
		}
	}
}

// Without a name the visitor sees the domain's certificate, and may ask for the
// domain.
func TestNoName(t *testing.T) {
	r := newRig(t, nil)
	conn := tls.Client(r.dialHTTPS(), &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := conn.ConnectionState().PeerCertificates[0].VerifyHostname("edge.test"); err != nil {
		t.Error(err)
	}
}

// The ACME authority's probe goes to certs, also for a name that has no tunnel.
func TestChallengeGoesToCerts(t *testing.T) {
	r := newRig(t, nil)
	conn := tls.Client(r.dialHTTPS(), &tls.Config{ServerName: "own.test", RootCAs: r.certs.Roots, NextProtos: []string{"acme-tls/1"}})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if p := conn.ConnectionState().NegotiatedProtocol; p != "acme-tls/1" {
		t.Errorf("protocol %q", p)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the handshake: %v; want the end", err)
	}
}

// Clients open WebSockets over HTTP/1.1, because HTTP/2 does not offer them (RFC
// 8441, section 3).
func TestNoExtendedConnect(t *testing.T) {
	r := newRig(t, nil)
	r.apply(httpEntry(1, "app.edge.test"))
	conn := r.dialTLS("app.edge.test", "h2")
	io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		settings, ok := frame.(*http2.SettingsFrame)
		if !ok {
			continue
		}
		if v, ok := settings.Value(http2.SettingEnableConnectProtocol); ok && v != 0 {
			t.Error("extended CONNECT is advertised")
		}
		return
	}
}

func TestPlainHTTPOnTheHTTPSPort(t *testing.T) {
	r := newRig(t, nil)
	c := r.dialHTTPS()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: app.edge.test\r\n\r\n")
	b, err := io.ReadAll(c)
	if err != nil || !bytes.HasPrefix(b, []byte("HTTP/1.1 400 ")) || !bytes.Contains(b, []byte("https://")) {
		t.Errorf("%q %v", b, err)
	}
}

func TestGarbageGetsAnAlert(t *testing.T) {
	r := newRig(t, nil)
	c := r.dialHTTPS()
	c.Write([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 0}) // a ClientHello of one byte
	b, err := io.ReadAll(c)
	if err != nil || len(b) != 7 || b[0] != 21 {
		t.Errorf("% x %v; want an alert", b, err)
	}
}

// A visitor who does not send its hello is cut off, however it stalls.
func TestSlowHello(t *testing.T) {
	whole := clientHello(t, &tls.Config{ServerName: "app.edge.test"})
	for name, sent := range map[string][]byte{
		"nothing": nil,
		"half":    whole[:len(whole)/2],
		"header":  whole[:5],
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.limits.hello = 50 * time.Millisecond })
			c := r.dialHTTPS()
			c.Write(sent)
			if b, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) || len(b) > 0 {
				t.Errorf("%q %v", b, err)
			}
		})
	}
	// The time that a hello may take does not count against the connection.
	t.Run("in time", func(t *testing.T) {
		r := newRig(t, func(r *rig) { r.limits.hello = patience })
		r.upstream(1, greet)
		r.apply(httpEntry(1, "app.edge.test"))
		for range 3 {
			if _, body := r.get(r.client(nil), "https://app.edge.test/"); body != "hello from app.edge.test" {
				t.Errorf("%q", body)
			}
		}
	})
}

// Visitors in the middle of their hello do not hold up the end.
func TestEndWhileGreeting(t *testing.T) {
	r := newRig(t, nil)
	c := r.dialHTTPS()
	c.Write([]byte{22, 3})
	// A whole visit after it proves that the first was accepted.
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	r.get(r.client(nil), "https://app.edge.test/")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// Sessions are resumed, whoever gets what is inside of TLS.
func TestResumption(t *testing.T) {
	r := newRig(t, nil)
	r.rawUpstream(2, func(c net.Conn) {
		in := bufio.NewReader(c)
		for line, err := in.ReadString('\n'); err == nil && line != "\r\n"; line, err = in.ReadString('\n') {
		}
		io.WriteString(c, "hello")
	})
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"), tlsEntry(2, "db.edge.test", tunnel.AtEdge))
	for _, host := range []string{"app.edge.test", "db.edge.test"} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := &tls.Config{ServerName: host, RootCAs: r.certs.Roots, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
			for i := range 2 {
				c := tls.Client(r.dialHTTPS(), config)
				io.WriteString(c, "GET / HTTP/1.0\r\nHost: "+host+"\r\n\r\n")
				if _, err := io.ReadAll(c); err != nil {
					t.Errorf("%s: %v", host, err)
				}
				if resumed := c.ConnectionState().DidResume; resumed != (i == 1) {
					t.Errorf("%s, %s, connection %d: resumed %v", host, tls.VersionName(version), i, resumed)
				}
				c.Close()
			}
		}
	}
}
