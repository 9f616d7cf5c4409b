package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wgexpose/wgexpose/tunnel"
)

// patience bounds waits for what must come; no test expects it to run out.
const patience = 60 * time.Second

var testOverlay = func() tunnel.Overlay {
	o, err := tunnel.OverlayFrom(netip.MustParsePrefix("fd00:1:2::/48"))
	if err != nil {
		panic(err)
	}
	return o
}()

const testEdge, testAgent tunnel.NodeID = 1, 1000

// overlayDialer stands for the netstack: it leads an overlay address to a
// function that opens the connection.
type overlayDialer struct {
	mu    sync.Mutex // guards all below
	ways  map[netip.Addr]func(context.Context) (net.Conn, error)
	froms []netip.AddrPort
}

func (d *overlayDialer) DialTCP(ctx context.Context, from, to netip.AddrPort) (net.Conn, error) {
	d.mu.Lock()
	way := d.ways[to.Addr()]
	d.froms = append(d.froms, from)
	d.mu.Unlock()
	if way == nil {
		return nil, fmt.Errorf("no way to %v", to)
	}
	return way(ctx)
}

func (d *overlayDialer) set(id tunnel.ID, way func(context.Context) (net.Conn, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ways[testOverlay.TunnelAddr(testAgent, id)] = way
}

// dials lists the source addresses of all dials so far.
func (d *overlayDialer) dials() []netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]netip.AddrPort(nil), d.froms...)
}

func leadTo(addr net.Addr) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, addr.Network(), addr.String())
	}
}

// hangDial never connects.
func hangDial(ctx context.Context) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// testCerts has certificates of its own authority.
type testCerts struct {
	t     *testing.T
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
	certs []*tls.Certificate
	Roots *x509.CertPool
}

// newTestCerts makes one certificate for each list of names.
func newTestCerts(t *testing.T, names ...[]string) *testCerts {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &testCerts{t: t, key: key, Roots: x509.NewCertPool()}
	c.ca = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der := c.sign(c.ca)
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c.ca = root
	c.Roots.AddCert(root)
	for i, list := range names {
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), DNSNames: list,
			NotBefore: c.ca.NotBefore, NotAfter: c.ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		der := c.sign(leaf)
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		c.certs = append(c.certs, &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed})
	}
	return c
}

func (c *testCerts) sign(cert *x509.Certificate) []byte {
	der, err := x509.CreateCertificate(rand.Reader, cert, c.ca, &c.key.PublicKey, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return der
}

func (c *testCerts) find(host string) *tls.Certificate {
	for _, cert := range c.certs {
		if cert.Leaf.VerifyHostname(host) == nil {
			return cert
		}
	}
	return nil
}

func (c *testCerts) Covers(host string) bool { return c.find(host) != nil }

func (c *testCerts) TLSConfig() *tls.Config {
	return &tls.Config{
		NextProtos:     []string{"h2", "http/1.1", "acme-tls/1"},
		GetCertificate: func(info *tls.ClientHelloInfo) (*tls.Certificate, error) { return c.Certificate(info.Context(), info) },
	}
}

func (c *testCerts) Certificate(_ context.Context, info *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if info.ServerName == "" {
		return c.certs[0], nil
	}
	return c.find(info.ServerName), nil
}

func (c *testCerts) HTTPChallenge(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/.well-known/acme-challenge/token" {
			io.WriteString(w, "token.key")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// rig is a running front with everything around it that tests need.
type rig struct {
	*front
	t      *testing.T
	dialer *overlayDialer
	certs  *testCerts
	live   *liveness
	stop   func() error // ends Run and gives its result; also done at the end
}

// newRig starts a front on loopback ports. change may adjust it before it runs.
func newRig(t *testing.T, change func(*rig)) *rig {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	r := &rig{t: t, dialer: &overlayDialer{ways: make(map[netip.Addr]func(context.Context) (net.Conn, error))}, live: newLiveness()}
	r.live.SetUp()
	r.certs = newTestCerts(t,
		[]string{"edge.test", "*.edge.test"},
		[]string{"own.test"}, []string{"other.test"})
	r.front = newFront(frontConfig{
		Overlay: testOverlay, Edge: testEdge, Domain: "edge.test",
		HTTPS: listenLocal(t), HTTP: listenLocal(t), ListenTCP: netip.MustParseAddr("127.0.0.1"),
	})
	r.front.certs = r.certs
	r.front.dialer = r.dialer
	r.front.limits.drain, r.front.limits.cut = patience, patience
	if change != nil {
		change(r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return await(t, done, "end of Run")
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

func listenLocal(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func httpEntry(id tunnel.ID, host string) tunnel.Entry {
	return tunnel.Entry{
		Spec: tunnel.Spec{ID: id, Name: fmt.Sprint("t", id), Kind: tunnel.HTTP, Host: host},
		Node: testAgent, Agent: "laptop", Addr: netip.AddrPortFrom(testOverlay.TunnelAddr(testAgent, id), tunnel.DialPort),
	}
}

func tcpEntry(id tunnel.ID, port uint16) tunnel.Entry {
	e := httpEntry(id, "")
	e.Kind, e.Port = tunnel.TCP, port
	return e
}

// apply gives the front a table; ports must open.
func (r *rig) apply(entries ...tunnel.Entry) {
	r.t.Helper()
	table, err := tunnel.NewTable(entries)
	if err != nil {
		r.t.Fatal(err)
	}
	for port, err := range r.Apply(table, func(tunnel.NodeID) *liveness { return r.live }) {
		r.t.Errorf("port %d: %v", port, err)
	}
}

// upstream serves h at the tunnel id's end.
func (r *rig) upstream(id tunnel.ID, h http.HandlerFunc) {
	r.watchedUpstream(id, h, nil)
}

// watchedUpstream does that too, and calls state at each change of a connection.
func (r *rig) watchedUpstream(id tunnel.ID, h http.HandlerFunc, state func(net.Conn, http.ConnState)) {
	r.t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = state
	s.Start()
	r.t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	r.dialer.set(id, leadTo(s.Listener.Addr()))
}

// client asks the front for whatever host a URL names.
func (r *rig) client(change func(*http.Transport)) *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			target := r.cfg.HTTPS
			if _, port, _ := net.SplitHostPort(addr); port == "80" {
				target = r.cfg.HTTP
			}
			return leadTo(target.Addr())(ctx)
		},
		TLSClientConfig:   &tls.Config{RootCAs: r.certs.Roots},
		ForceAttemptHTTP2: true,
	}
	if change != nil {
		change(tr)
	}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// get asks for a URL and returns the answer and its body.
func (r *rig) get(c *http.Client, url string) (*http.Response, string) {
	r.t.Helper()
	return r.do(c, r.request("GET", url, nil))
}

func (r *rig) request(method, url string, body io.Reader) *http.Request {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return req
}

func (r *rig) do(c *http.Client, req *http.Request) (*http.Response, string) {
	r.t.Helper()
	res, err := c.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(b)
}

func await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// dialTLS opens a TLS connection and offers one protocol.
func (r *rig) dialTLS(sni, proto string) *tls.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.cfg.HTTPS.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	conn := tls.Client(c, &tls.Config{ServerName: sni, RootCAs: r.certs.Roots, NextProtos: []string{proto}})
	if err := conn.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	return conn
}
