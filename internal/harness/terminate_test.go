package harness_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/internal/harness"
	"github.com/wgexpose/wgexpose/tunnel"
)

// atAgent has the agent end a tunnel's TLS.
func atAgent(t agent.Tunnel) agent.Tunnel {
	t.TerminateAt = tunnel.AtAgent
	return t
}

// ownRoots trusts the agent's own authority and nobody else.
func ownRoots(t *testing.T, a *harness.Agent) *tls.Config {
	t.Helper()
	pem, err := agent.CA(a.Dir)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("the agent's root is no certificate")
	}
	return &tls.Config{RootCAs: pool}
}

// wire notes all that passes a visitor's connection to the edge, both ways.
type wire struct {
	mu  sync.Mutex // guards all
	all bytes.Buffer
}

type tapped struct {
	net.Conn
	wire *wire
}

func (c tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.note(p[:n])
	return n, err
}

func (c tapped) Write(p []byte) (int, error) {
	c.wire.note(p)
	return c.Conn.Write(p)
}

func (w *wire) note(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(b)
}

func (w *wire) has(marker string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Contains(w.all.Bytes(), []byte(marker))
}

// visitor is a client whose connections are tapped.
func (w *wire) visitor(t *testing.T, e *harness.Edge, config *tls.Config, h2 bool) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	tr := &http.Transport{TLSClientConfig: config, Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", e.Ready.HTTPS.String())
		return tapped{c, w}, err
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// TLS of http tunnels that ends at the agent: its certificate, its HTTP/1.1 and
// HTTP/2, the visitor's address in the forwarding headers, streams, WebSockets,
// pages for what is wrong. Nothing that was said passes the edge in the clear.
func TestHTTPEndsAtTheAgent(t *testing.T) {
	t.Parallel()
	const question, answer = "marker-of-the-question", "marker-of-the-answer"
	release := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/socket":
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			kind, b, err := c.Read(r.Context())
			if err == nil {
				c.Write(r.Context(), kind, b)
			}
			c.Close(websocket.StatusNormalClosure, "")
		case "/stream":
			io.WriteString(w, "first\n")
			w.(http.Flusher).Flush()
			<-release
			io.WriteString(w, "second\n")
		default:
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s for=%s proto=%s host=%s", answer, b, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-Host"))
		}
	}))
	t.Cleanup(upstream.Close)
	e := harness.Start(t, harness.Options{})
	a := e.AddAgent("laptop")
	a.Certificates = agent.Certificates{Mode: certs.Internal}
	web := atAgent(harness.HTTP("web", upstream.URL))
	down := atAgent(harness.HTTP("down", "http://"+refusing(t)))
	run := a.Publish(web, down)
	public := run.WaitUp("web")
	u, err := url.Parse(public)
	if err != nil {
		t.Fatal(err)
	}
	own := ownRoots(t, a)
	for _, h2 := range []bool{false, true} {
		w := new(wire)
		c := w.visitor(t, e, own.Clone(), h2)
		req, err := http.NewRequest("POST", public+"/", strings.NewReader(question))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", "203.0.113.7")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		want := fmt.Sprintf("%s %s for=127.0.0.1 proto=https host=%s", answer, question, u.Host)
		if err != nil || string(b) != want || (res.ProtoMajor == 2) != h2 {
			t.Errorf("HTTP/2 %v: %s %q %v; want %q", h2, res.Proto, b, err, want)
		}
		if w.has(question) || w.has(answer) || w.has("X-Forwarded") || !w.has(u.Hostname()) {
			t.Errorf("HTTP/2 %v: what passed has the messages, or not even the name", h2)
		}
		// Another host on this connection is not this tunnel's.
		req, err = http.NewRequest("GET", public+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "other." + e.Domain
		if res, err = c.Do(req); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("another host: %s", res.Status)
		}
	}

	c := new(wire).visitor(t, e, own.Clone(), false)
	if status, code, body := e.Get(c, run.WaitUp("down")); status != 502 || code != control.CodeUpstreamRefused || !strings.Contains(body, "refused") {
		t.Errorf("a refusing upstream: %d %s", status, code)
	}
	// The edge has no certificate for it, and says so to who asks over another one.
	if _, err := new(wire).visitor(t, e, e.TLSConfig(), false).Get(public); err == nil {
		t.Error("the edge's authority has vouched for the name")
	}

	ws, _, err := websocket.Dial(t.Context(), public+"/socket", &websocket.DialOptions{HTTPClient: c})
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("echo")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := ws.Read(t.Context()); err != nil || string(b) != "echo" {
		t.Errorf("WebSocket: %q %v", b, err)
	}
	ws.CloseNow()

	// What is under way when the tunnel is withdrawn goes on.
	res, err := c.Get(public + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, len("first\n"))
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	seen := run.Seen()
	stopped := make(chan struct{})
	go func() { run.Stop(); close(stopped) }()
	run.Wait(seen, "tunnel gone", func(e agent.Event) bool { return e.Name == "web" && e.State == agent.TunnelGone })
	close(release)
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "second\n" {
		t.Errorf("after the withdrawal: %q %v", b, err)
	}
	<-stopped
}

// refusing is an address where nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// The same for tls tunnels, with a PROXY header for the upstream.
func TestTLSEndsAtTheAgent(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	a := e.AddAgent("laptop")
	a.Certificates = agent.Certificates{Mode: certs.Internal}
	ended := atAgent(harness.TLS("ended", firstLine(t, nil)))
	ended.ProxyProtocol = 1
	run := a.Publish(ended)
	host, _, err := net.SplitHostPort(strings.TrimPrefix(run.WaitUp("ended"), "tls://"))
	if err != nil {
		t.Fatal(err)
	}
	for _, protocols := range [][]string{nil, {"postgresql"}, {"h2", "http/1.1"}} {
		c, err := net.Dial("tcp", e.Ready.HTTPS.String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		config := ownRoots(t, a)
		config.ServerName, config.NextProtos = host, protocols
		w := new(wire)
		s := tls.Client(tapped{c, w}, config)
		if _, err := io.WriteString(s, "a secret question"); err != nil {
			t.Fatal(err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(s)
		_, port, _ := net.SplitHostPort(c.LocalAddr().String())
		if got := string(b); err != nil || !strings.HasPrefix(got, "PROXY TCP4 127.0.0.1 ") || !strings.Contains(got, " "+port+" ") || !strings.HasSuffix(got, "a secret question <nil>") {
			t.Errorf("%v: %q %v", protocols, got, err)
		}
		if w.has("secret question") {
			t.Error("the question passed in the clear")
		}
		c.Close()
	}
}

// A public authority that gives nothing: the tunnel says what it waits for, and
// goes up when there is a certificate.
func TestAgentWaitsForItsCertificate(t *testing.T) {
	t.Parallel()
	authority := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(authority.Close)
	e := harness.Start(t, harness.Options{})
	a := e.AddAgent("laptop")
	a.Certificates = agent.Certificates{CA: authority.URL + "/directory"}
	run := a.Publish(atAgent(harness.HTTP("web", "http://127.0.0.1:1")))
	run.Wait(0, "a tunnel that waits", func(e agent.Event) bool {
		return e.Name == "web" && e.State == agent.TunnelError && e.PublicURL == "" &&
			e.Error != nil && e.Error.Code == control.CodeCertificatePending
	})
}
