package edge

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/tunnel"
)

func tlsEntry(id tunnel.ID, host, terminateAt string) tunnel.Entry {
	e := httpEntry(id, host)
	e.Kind, e.TerminateAt = tunnel.TLS, terminateAt
	return e
}

// rawUpstream serves each connection to the tunnel id with serve and closes it.
// serve may wait for the end of its connection.
func (r *rig) rawUpstream(id tunnel.ID, serve func(net.Conn)) {
	r.t.Helper()
	l := listenLocal(r.t)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	r.t.Cleanup(func() {
		r.stop() // ends the connections; its error is reported elsewhere
		l.Close()
		serving.Wait()
	})
	r.dialer.set(id, leadTo(l.Addr()))
}

// recorder notes what is read from a connection.
type recorder struct {
	net.Conn
	mu   sync.Mutex // guards read
	read bytes.Buffer
}

func (c *recorder) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read.Write(p[:n])
	return n, err
}

func (c *recorder) Write(p []byte) (int, error) { return c.Conn.Write(p) }

// sender notes what is written.
type sender struct {
	net.Conn
	sent bytes.Buffer
}

func (c *sender) Write(p []byte) (int, error) {
	c.sent.Write(p)
	return c.Conn.Write(p)
}

// The upstream's certificate reaches the visitor, the visitor's bytes reach the
// upstream as they were sent, and what is said inside is not among them.
func TestTLSPassesUntouched(t *testing.T) {
	r := newRig(t, nil)
	own := newTestCerts(t, []string{"db.edge.test"}) // of an authority that the edge does not know
	record := make(chan *recorder, 1)
	r.rawUpstream(1, func(c net.Conn) {
		rec := &recorder{Conn: c}
		s := tls.Server(rec, own.TLSConfig())
		b, err := io.ReadAll(s)
		fmt.Fprintf(s, "%d %v", len(b), err)
		s.Close()
		record <- rec
	})
	r.apply(tlsEntry(1, "db.edge.test", ""))
	for name, config := range map[string]*tls.Config{
		"small": {}, "large": {NextProtos: manyProtocols()}, "TLS 1.2": {MaxVersion: tls.VersionTLS12}, "upper case": {ServerName: "DB.Edge.Test"},
	} {
		t.Run(name, func(t *testing.T) {
			if config.ServerName == "" {
				config.ServerName = "db.edge.test"
			}
			config.RootCAs = own.Roots
			if name == "large" {
				config.NextProtos = append(config.NextProtos, "http/1.1")
			}
			raw := &sender{Conn: r.dialHTTPS()}
			c := tls.Client(raw, config)
			io.WriteString(c, "a secret question")
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(c)
			if err != nil || string(b) != "17 <nil>" {
				t.Errorf("%q %v", b, err)
			}
			c.Close()
			rec := await(t, record, "end at the upstream")
			rec.mu.Lock()
			defer rec.mu.Unlock()
			got, sent := rec.read.Bytes(), raw.sent.Bytes()
			if len(got) == 0 || !bytes.HasPrefix(sent, got) || bytes.Contains(got, []byte("secret")) {
				t.Errorf("the upstream read %d bytes of the %d sent, or others", len(got), len(sent))
			}
		})
	}
	mine := r.dialer.dials()
	if len(mine) == 0 || mine[0].Addr() != testOverlay.VisitorAddr(testEdge, netip.MustParseAddr("127.0.0.1")) || mine[0].Port() == 0 {
		t.Errorf("dialled from %v, not from the visitor", mine)
	}
}

// The edge ends TLS: the upstream gets plain bytes, half-close and all.
func TestTLSEndsAtTheEdge(t *testing.T) {
	r := newRig(t, nil)
	r.rawUpstream(1, func(c net.Conn) {
		b, err := io.ReadAll(c)
		fmt.Fprintf(c, "%q %v", b, err)
	})
	r.apply(tlsEntry(1, "db.edge.test", tunnel.AtEdge))
	for name, protos := range map[string][]string{"no ALPN": nil, "unknown ALPN": {"postgresql"}, "h2": {"h2"}} {
		c := tls.Client(r.dialHTTPS(), &tls.Config{ServerName: "db.edge.test", RootCAs: r.certs.Roots, NextProtos: protos})
		io.WriteString(c, "hello")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != `"hello" <nil>` {
			t.Errorf("%s: %q %v", name, b, err)
		}
		if p := c.ConnectionState().NegotiatedProtocol; p != "" {
			t.Errorf("%s: agreed to %q", name, p)
		}
	}
	c := tls.Client(r.dialHTTPS(), &tls.Config{ServerName: "db.edge.test", RootCAs: x509.NewCertPool()})
	if err := c.Handshake(); err == nil {
		t.Error("a stranger's certificate is good")
	}
}

// An authority's probe goes to whoever ends TLS.
func TestChallengeOfTLSTunnels(t *testing.T) {
	r := newRig(t, nil)
	hellos := make(chan string, 1)
	r.rawUpstream(1, func(c net.Conn) {
		h, err := peekHello(c)
		hellos <- fmt.Sprint(h.isChallenge(), err)
	})
	r.apply(tlsEntry(1, "own.test", ""), tlsEntry(2, "other.test", tunnel.AtEdge))
	probe := func(host string) *tls.Conn {
		return tls.Client(r.dialHTTPS(), &tls.Config{ServerName: host, RootCAs: r.certs.Roots, NextProtos: []string{"acme-tls/1"}})
	}
	go probe("own.test").Handshake()
	if got := await(t, hellos, "probe at the upstream"); got != "true <nil>" {
		t.Error(got)
	}
	c := probe("other.test")
	if err := c.Handshake(); err != nil || c.ConnectionState().NegotiatedProtocol != "acme-tls/1" {
		t.Errorf("%v, %q", err, c.ConnectionState().NegotiatedProtocol)
	}
}

func TestTLSVisitorsTurnedAway(t *testing.T) {
	for _, at := range []string{"", tunnel.AtEdge} {
		t.Run("at "+at, func(t *testing.T) {
			r := newRig(t, nil)
			r.dialer.set(1, leadTo(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})) // refuses
			r.apply(tlsEntry(1, "db.edge.test", at), httpEntry(2, "app.edge.test"))
			c := tls.Client(r.dialHTTPS(), &tls.Config{ServerName: "db.edge.test", RootCAs: r.certs.Roots})
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the upstream refuses: %v; want a reset", err)
			}
			before := len(r.dialer.dials())
			// Without the name the visitor gets the edge's own page.
			conn := tls.Client(r.dialHTTPS(), &tls.Config{InsecureSkipVerify: true})
			if err := conn.Handshake(); err != nil || conn.ConnectionState().PeerCertificates[0].VerifyHostname("edge.test") != nil {
				t.Errorf("no name: %v", err)
			}
			// A request that comes over a connection to another host.
			h := r.dialTLS("app.edge.test", "http/1.1")
			io.WriteString(h, "GET / HTTP/1.1\r\nHost: db.edge.test\r\nConnection: close\r\n\r\n")
			if b, err := io.ReadAll(h); err != nil || !bytes.HasPrefix(b, []byte("HTTP/1.1 421 ")) {
				t.Errorf("%q %v", b, err)
			}
			// A network that is not allowed.
			closed := tlsEntry(1, "db.edge.test", at)
			closed.Policy = &tunnel.Policy{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
			r.apply(closed)
			c = tls.Client(r.dialHTTPS(), &tls.Config{ServerName: "db.edge.test", RootCAs: r.certs.Roots})
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("denied: %v; want a reset", err)
			}
			if n := len(r.dialer.dials()); n != before {
				t.Errorf("%d dials for nothing", n-before)
			}
		})
	}
}

// What is carried ends with its node and may finish at the end of the edge.
func TestTLSStreamsAndTheEnd(t *testing.T) {
	r := newRig(t, nil)
	r.rawUpstream(1, func(c net.Conn) { io.Copy(c, c) })
	r.apply(tlsEntry(1, "db.edge.test", tunnel.AtEdge))
	open := func() *tls.Conn {
		c := tls.Client(r.dialHTTPS(), &tls.Config{ServerName: "db.edge.test", RootCAs: r.certs.Roots})
		echoOver(t, c, "hello")
		return c
	}
	first := open()
	r.DropNode(testAgent)
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after DropNode: %v; want a reset", err)
	}
}

func TestTLSStreamsDrain(t *testing.T) {
	r := newRig(t, nil)
	r.rawUpstream(1, func(c net.Conn) { io.Copy(c, c) })
	r.apply(tlsEntry(1, "db.edge.test", tunnel.AtEdge))
	c := tls.Client(r.dialHTTPS(), &tls.Config{ServerName: "db.edge.test", RootCAs: r.certs.Roots})
	echoOver(t, c, "before")
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	waitClosed(t, r.cfg.HTTPS.Addr())
	echoOver(t, c, "while draining")
	c.Close()
	if err := await(t, ended, "end"); err != nil {
		t.Error(err)
	}
}

// A tunnel that changes its kind under the same name.
func TestKindChanges(t *testing.T) {
	r := newRig(t, nil)
	r.upstream(1, greet)
	r.rawUpstream(2, func(c net.Conn) { io.Copy(c, c) })
	r.apply(httpEntry(1, "app.edge.test"))
	c := r.client(nil)
	r.get(c, "https://app.edge.test/")
	r.apply(tlsEntry(2, "app.edge.test", tunnel.AtEdge))
	if res, _ := r.get(c, "https://app.edge.test/"); res.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("on the old connection: %s", res.Status)
	}
	echoOver(t, tls.Client(r.dialHTTPS(), &tls.Config{ServerName: "app.edge.test", RootCAs: r.certs.Roots}), "hello")
}

func TestPublishTLS(t *testing.T) {
	w := newWorld(t)
	a, b := w.agent("laptop"), w.agent("desktop")
	db := tunnel.Spec{ID: 1, Name: "db", Kind: tunnel.TLS, Upstream: "tcp://127.0.0.1:5432"}
	wantURL(t, w.publishOne(a, db), "tls://db.example.com:443")
	wantCode(t, w.publishOne(b, web(1, "db")), control.CodeNameTaken, "laptop") // one name, one tunnel
	got, _ := w.publish(a, db, web(2, "db"))
	wantCode(t, got[1], control.CodeNameTaken)
	db.Name, db.Host = "", "mail.example.com"
	wantURL(t, w.publishOne(a, db), "tls://mail.example.com:443")
	w.side.scheme = "http"
	wantCode(t, w.publishOne(a, db), control.CodeBadRequest, "--tls off", "wgexpose tcp")
}
