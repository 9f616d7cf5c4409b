package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/tunnel"
)

// withHTTP3 has a rig serve HTTP/3 too.
func withHTTP3(more func(*rig)) func(*rig) {
	return func(r *rig) {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			r.t.Fatal(err)
		}
		r.cfg.HTTP3 = c
		if more != nil {
			more(r)
		}
	}
}

// dialQUIC connects to the front, whatever host is asked for.
func (r *rig) dialQUIC(ctx context.Context, config *tls.Config, q *quic.Config) (*quic.Conn, error) {
	return quic.DialAddrEarly(ctx, r.cfg.HTTP3.LocalAddr().String(), config, q)
}

// client3 speaks HTTP/3 alone.
func (r *rig) client3() *http.Client {
	tr := &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: r.certs.Roots},
		Dial: func(ctx context.Context, _ string, config *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return r.dialQUIC(ctx, config, q)
		},
	}
	r.t.Cleanup(func() { tr.Close() })
	return &http.Client{Transport: tr}
}

func TestHTTP3(t *testing.T) {
	r := newRig(t, withHTTP3(nil))
	release := make(chan struct{})
	conns := make(chan http.ConnState, 64)
	r.watchedUpstream(1, func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/stream":
			io.WriteString(w, "first")
			w.(http.Flusher).Flush()
			<-release
			io.WriteString(w, "second")
		case "/early":
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("Trailer", "Sum")
			io.WriteString(w, "body")
			w.Header().Set("Sum", "42")
		default:
			b, err := io.ReadAll(req.Body)
			fmt.Fprintf(w, "%s %d %q %v for=%s proto=%s host=%s", req.Method, req.ContentLength, b, err,
				req.Header.Get("X-Forwarded-For"), req.Header.Get("X-Forwarded-Proto"), req.Host)
		}
	}, func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns <- s
		}
	})
	r.apply(httpEntry(1, "app.edge.test"))
	c := r.client3()
	for range 3 {
		res, body := r.get(c, "https://app.edge.test/")
		if want := `GET 0 "" <nil> for=127.0.0.1 proto=https host=app.edge.test`; body != want || res.ProtoMajor != 3 {
			t.Errorf("%s %q, want %q", res.Proto, body, want)
		}
		if res.Header.Get("Alt-Svc") != "" {
			t.Error("HTTP/3 is announced over itself")
		}
	}
	if n := len(conns); n != 1 {
		t.Errorf("three requests without a body took %d connections to the upstream", n)
	}
	if _, body := r.do(c, r.request("POST", "https://app.edge.test/", strings.NewReader("abc"))); !strings.HasPrefix(body, `POST 3 "abc" <nil>`) {
		t.Errorf("%q", body)
	}
	// Of unknown length, also where hardly any request has a body.
	for _, method := range []string{"PUT", "DELETE"} {
		if _, body := r.do(c, r.request(method, "https://app.edge.test/", io.MultiReader(strings.NewReader("abc")))); !strings.HasPrefix(body, method+` -1 "abc" <nil>`) {
			t.Errorf("%q", body)
		}
	}

	res, err := c.Do(r.request("GET", "https://app.edge.test/stream", nil))
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "first" {
		t.Errorf("%q %v", first, err)
	}
	close(release)
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "second" {
		t.Errorf("%q %v", b, err)
	}
	if res, body := r.get(c, "https://app.edge.test/early"); body != "body" || res.Trailer.Get("Sum") != "42" {
		t.Errorf("%q, trailer %v", body, res.Trailer)
	}

	if res, _ := r.get(c, "https://no.edge.test/"); res.StatusCode != 404 || res.Header.Get("Wgexpose-Error") != "unknown_host" {
		t.Errorf("a name without a tunnel: %s", res.Status)
	}
	req := r.request("GET", "https://app.edge.test/", nil)
	req.Host = "other.test"
	if res, _ := r.do(c, req); res.StatusCode != 421 {
		t.Errorf("another host: %s", res.Status)
	}
	req = r.request("GET", "https://app.edge.test/", nil)
	req.Header.Set("X", strings.Repeat("x", proxy.MaxHeader))
	if res, err := c.Do(req); err != nil || res.StatusCode != 431 {
		t.Errorf("a large header: %v %v", res, err)
	}
}

// Visitors over TCP hear of HTTP/3, and only where there is some.
// What HTTP/3 can say and HTTP/1.1 would understand as something else.
func TestHTTP3Downgrade(t *testing.T) {
	r := newRig(t, withHTTP3(nil))
	var upstream seen
	r.upstream(1, upstream.serve)
	r.apply(httpEntry(1, "app.edge.test"))
	c := r.client3()
	for name, change := range map[string]func(*http.Request){
		"blank in the query": func(req *http.Request) { req.URL.RawQuery = "x HTTP/1.0" },
		"no port":            func(req *http.Request) { req.Host = "app.edge.test:x" },
		"name in brackets":   func(req *http.Request) { req.Host = "[app.edge.test]:443" },
	} {
		req := r.request("GET", "https://app.edge.test/first", nil)
		change(req)
		if res, _ := r.do(c, req); res.StatusCode != http.StatusBadRequest || res.Header.Get("Wgexpose-Error") == "" {
			t.Errorf("%s: %s, %s", name, res.Status, res.Header.Get("Wgexpose-Error"))
		}
		for _, line := range upstream.take() {
			t.Errorf("%s: the upstream saw %s", name, line)
		}
	}
}

func TestAltSvc(t *testing.T) {
	for _, on := range []bool{false, true} {
		change := func(r *rig) { r.cfg.PublicHTTPSPort = 8443 }
		if on {
			change = withHTTP3(change)
		}
		r := newRig(t, change)
		r.upstream(1, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Alt-Svc", `h3=":1"`) })
		r.apply(httpEntry(1, "app.edge.test"))
		want := ""
		if on {
			want = `h3=":8443"; ma=86400`
		}
		for _, h2 := range []bool{false, true} {
			res, _ := r.get(r.client(func(tr *http.Transport) { tr.ForceAttemptHTTP2 = h2 }), "https://app.edge.test/")
			if got := strings.Join(res.Header["Alt-Svc"], ", "); got != want {
				t.Errorf("HTTP/3 %v: %q, want %q", on, got, want)
			}
		}
	}
}

// A QUIC connection cannot be passed on: names whose TLS does not end at the edge
// are not known there.
func TestHTTP3PassesNothing(t *testing.T) {
	r := newRig(t, withHTTP3(nil))
	db := tlsEntry(1, "db.edge.test", "")
	private := httpEntry(2, "private.edge.test")
	private.TerminateAt = tunnel.AtAgent
	r.apply(db, private)
	for _, host := range []string{"db.edge.test", "private.edge.test", "elsewhere.test"} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := quic.DialAddr(ctx, r.cfg.HTTP3.LocalAddr().String(),
			&tls.Config{ServerName: host, RootCAs: r.certs.Roots, NextProtos: []string{"h3"}}, nil)
		var refused *quic.TransportError
		// RFC 9001, section 4.8: an alert is 0x100 and its number.
		if !errors.As(err, &refused) || refused.ErrorCode != 0x100+112 {
			t.Errorf("%s: %v, want the alert unrecognized_name", host, err)
		}
	}
}

// Sessions are resumed; what was sent before the handshake was over is not looked
// at, as it may be somebody else's copy.
func TestNoEarlyData(t *testing.T) {
	r := newRig(t, withHTTP3(nil))
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	cache := tls.NewLRUClientSessionCache(4)
	for i := range 2 {
		var conn *quic.Conn
		tr := &http3.Transport{
			TLSClientConfig: &tls.Config{RootCAs: r.certs.Roots, ClientSessionCache: cache},
			Dial: func(ctx context.Context, _ string, config *tls.Config, q *quic.Config) (c *quic.Conn, err error) {
				conn, err = r.dialQUIC(ctx, config, q)
				return conn, err
			},
		}
		req := r.request(http3.MethodGet0RTT, "https://app.edge.test/", nil)
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil || string(b) != "hello from app.edge.test" {
			t.Errorf("%q %v", b, err)
		}
		state := conn.ConnectionState()
		if state.Used0RTT || state.TLS.DidResume != (i == 1) {
			t.Errorf("connection %d: resumed %v, early data %v", i, state.TLS.DidResume, state.Used0RTT)
		}
		tr.Close()
	}
}

// Visitors who connect and ask for nothing, or begin to ask, are not kept.
func TestHTTP3SlowHeader(t *testing.T) {
	r := newRig(t, withHTTP3(func(r *rig) { r.limits.header = 50 * time.Millisecond }))
	r.apply(httpEntry(1, "app.edge.test"))
	conn, err := r.dialQUIC(t.Context(), &tls.Config{ServerName: "app.edge.test", RootCAs: r.certs.Roots, NextProtos: []string{"h3"}},
		&quic.Config{KeepAlivePeriod: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	if s, err := conn.OpenStream(); err == nil { // else it is over already
		s.Write([]byte{1, 50, 0}) // a HEADERS frame of 50 bytes begins
	}
	await(t, conn.Context().Done(), "end of the connection")
}

// A GET that never says that it has no body is given up.
func TestHTTP3EndlessGet(t *testing.T) {
	r := newRig(t, withHTTP3(func(r *rig) { r.limits.body = 300 * time.Millisecond }))
	r.apply(httpEntry(1, "app.edge.test"))
	body, never := io.Pipe()
	defer never.Close()
	if res, _ := r.do(r.client3(), r.request("DELETE", "https://app.edge.test/", body)); res.StatusCode != 408 {
		t.Errorf("%s", res.Status)
	}
}

func TestHTTP3IsBounded(t *testing.T) {
	r := newRig(t, withHTTP3(func(r *rig) { r.limits.quicPer = 1 }))
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	first := r.client3()
	if _, body := r.get(first, "https://app.edge.test/"); body != "hello from app.edge.test" {
		t.Fatalf("%q", body)
	}
	res, err := r.client3().Do(r.request("GET", "https://app.edge.test/", nil))
	var refused *quic.TransportError
	if !errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused {
		t.Errorf("a second connection: %v %v", res, err)
	}
	// A place that was left is free again.
	first.CloseIdleConnections()
	for deadline := time.Now().Add(patience); ; {
		res, err := r.client3().Do(r.request("GET", "https://app.edge.test/", nil))
		if err == nil {
			res.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// At the end requests finish, and connections in which nothing goes on are not
// waited for.
func TestHTTP3Drain(t *testing.T) {
	r := newRig(t, withHTTP3(nil))
	begun, release := make(chan struct{}), make(chan struct{})
	r.upstream(1, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			io.WriteString(w, "slow ")
			w.(http.Flusher).Flush()
			close(begun)
			<-release
		}
		io.WriteString(w, "done")
	})
	r.apply(httpEntry(1, "app.edge.test"))
	idle := r.client3()
	r.get(idle, "https://app.edge.test/")
	res, err := r.client3().Do(r.request("GET", "https://app.edge.test/slow", nil))
	if err != nil {
		t.Fatal(err)
	}
	await(t, begun, "request at the upstream")
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	// The front says that it ends by closing its other ways in.
	for deadline := time.Now().Add(patience); ; {
		c, err := net.Dial("tcp", r.cfg.HTTPS.Addr().String())
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("it does not stop")
		}
	}
	close(release)
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "slow done" {
		t.Errorf("%q %v", b, err)
	}
	if err := await(t, ended, "end of the front"); err != nil {
		t.Error(err)
	}
}

// With HSTS visitors over TLS are told so, whatever HTTP they speak, and the
// upstream's own word stands.
func TestHSTS(t *testing.T) {
	r := newRig(t, withHTTP3(nil))
	r.upstream(1, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/own" {
			w.Header().Set("Strict-Transport-Security", "max-age=0")
		}
	})
	without := httpEntry(1, "without.edge.test")
	with := httpEntry(2, "with.edge.test")
	with.Addr, with.HSTS = without.Addr, true
	r.apply(with)
	for name, c := range map[string]*http.Client{
		"HTTP/1.1": r.client(func(tr *http.Transport) { tr.ForceAttemptHTTP2 = false }), "HTTP/2": r.client(nil), "HTTP/3": r.client3(),
	} {
		for path, want := range map[string]string{"/": "max-age=31536000", "/own": "max-age=0"} {
			res, _ := r.get(c, "https://with.edge.test"+path)
			if got := strings.Join(res.Header["Strict-Transport-Security"], "; "); got != want {
				t.Errorf("%s %s: %q, want %q", name, path, got, want)
			}
		}
	}
	r.apply(without)
	if res, _ := r.get(r.client(nil), "https://without.edge.test/"); res.Header.Get("Strict-Transport-Security") != "" {
		t.Error("it is on by itself")
	}
}
