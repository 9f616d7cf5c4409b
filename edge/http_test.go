package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"

	"github.com/wgexpose/wgexpose/proxy"
)

func greet(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello from "+r.Host) }

func TestStatusWhenThereIsNoWay(t *testing.T) {
	for name, test := range map[string]struct {
		dial   func(context.Context) (net.Conn, error)
		change func(*rig)
		status int
		code   string
		detail string
	}{
		"refused": {
			dial: func(context.Context) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
			},
			change: func(r *rig) {
				r.live.Report(1, &failure{control.CodeUpstreamRefused, "dial tcp 127.0.0.1:8089: connection <refused>"})
			},
			status: 502, code: "upstream_refused", detail: "(dial tcp 127.0.0.1:8089: connection <refused>)",
		},
		"refused without a word": {
			dial: func(context.Context) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
			},
			change: func(r *rig) { r.live.Report(1, nil) },
			status: 502, code: "upstream_refused", detail: "refused the connection. If",
		},
		"not trusted": {
			dial: func(context.Context) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
			},
			change: func(r *rig) { r.live.Report(1, &failure{control.CodeUpstreamTLS, "the certificate has expired"}) },
			status: 502, code: "upstream_tls", detail: "(the certificate has expired)",
		},
		"no route to the upstream": {
			dial: func(context.Context) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
			},
			change: func(r *rig) { r.live.Report(1, &failure{control.CodeUpstreamUnreachable, "no route to host"}) },
			status: 502, code: "upstream_unreachable", detail: "(no route to host)",
		},
		"no answer from the upstream": {
			dial: func(context.Context) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
			},
			change: func(r *rig) { r.live.Report(1, &failure{control.CodeUpstreamTimeout, "no answer within 10 s"}) },
			status: 504, code: "upstream_timeout", detail: "in time",
		},
		"silent": {
			dial:   hangDial,
			change: func(r *rig) { r.limits.dial = 20 * time.Millisecond },
			status: 504, code: "upstream_timeout", detail: "in time",
		},
		"away": {
			dial:   hangDial,
			change: func(r *rig) { r.live.SetAway() },
			status: 503, code: "agent_away", detail: "not connected",
		},
		"busy": {
			dial:   hangDial,
			change: func(r *rig) { r.limits.dials = 0 },
			status: 503, code: "upstream_busy", detail: "Too many",
		},
		"overlay": {
			dial:   func(context.Context) (net.Conn, error) { return nil, errors.New("no route") },
			status: 502, code: "overlay_broken", detail: "edge's log",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, test.change)
			r.dialer.set(1, test.dial)
			r.apply(httpEntry(1, "app.edge.test"))
			for _, method := range []string{"GET", "POST"} {
				res, body := r.do(r.client(nil), r.request(method, "https://app.edge.test/", strings.NewReader("x")))
				if res.StatusCode != test.status || res.Header.Get("Wgexpose-Error") != test.code || !strings.Contains(body, test.detail) {
					t.Errorf("%s: %s %s %q", method, res.Status, res.Header.Get("Wgexpose-Error"), body)
				}
			}
			if test.status == 503 {
				if n := len(r.dialer.dials()); n != 0 {
					t.Errorf("dialled %d times although the agent is away", n)
				}
			}
		})
	}
}

func TestHosts(t *testing.T) {
	r := newRig(t, nil)
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"), httpEntry(2, "own.test"), httpEntry(3, "b.edge.test"))
	r.upstream(2, greet)
	r.upstream(3, greet)
	for name, test := range map[string]struct {
		sni, host string
		status    int
		code      string
	}{
		"known":                  {"app.edge.test", "app.edge.test", 200, ""},
		"with a port":            {"app.edge.test", "app.edge.test:8443", 200, ""},
		"upper case":             {"APP.edge.test", "App.Edge.TEST", 200, ""},
		"trailing dot":           {"app.edge.test", "app.edge.test.", 200, ""},
		"one certificate":        {"app.edge.test", "b.edge.test", 200, ""},
		"unknown, covered":       {"no.edge.test", "no.edge.test", 404, "unknown_host"},
		"the domain itself":      {"edge.test", "edge.test", 404, "unknown_host"},
		"known, another unknown": {"app.edge.test", "no.edge.test", 404, "unknown_host"},
		"another certificate":    {"own.test", "app.edge.test", 421, "misdirected"},
		"not even ours":          {"app.edge.test", "example.org", 421, "misdirected"},
		"unknown, then known":    {"no.edge.test", "own.test", 421, "misdirected"},
		"garbage":                {"app.edge.test", "a_b!.test", 400, "bad_host"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.dialTLS(test.sni, "http/1.1")
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", test.host)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != test.status || res.Header.Get("Wgexpose-Error") != test.code {
				t.Errorf("%s %s, want %d %s", res.Status, res.Header.Get("Wgexpose-Error"), test.status, test.code)
			}
			if b, err := io.ReadAll(res.Body); test.status == 200 && (err != nil || string(b) != "hello from "+test.host) {
				t.Errorf("%q %v", b, err)
			}
		})
	}
}

// The agent is away, and the page still comes with the right certificate.
func TestVersions(t *testing.T) {
	r := newRig(t, nil)
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	for name, test := range map[string]struct {
		change func(*http.Transport)
		proto  string
	}{
		"HTTP/2": {nil, "HTTP/2.0"},
		"HTTP/1.1": {func(tr *http.Transport) {
			tr.ForceAttemptHTTP2 = false
			tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
		}, "HTTP/1.1"},
		"TLS 1.2": {func(tr *http.Transport) { tr.TLSClientConfig.MaxVersion = tls.VersionTLS12 }, "HTTP/2.0"},
	} {
		res, body := r.get(r.client(test.change), "https://app.edge.test/")
		if res.Proto != test.proto || body != "hello from app.edge.test" {
			t.Errorf("%s: %s %q", name, res.Proto, body)
		}
	}
	tooOld := r.client(func(tr *http.Transport) {
		tr.TLSClientConfig.MaxVersion = tls.VersionTLS11
		tr.TLSClientConfig.MinVersion = tls.VersionTLS10
	})
	if res, err := tooOld.Get("https://app.edge.test/"); err == nil {
		res.Body.Close()
		t.Error("TLS 1.1 is accepted")
	}
}

// An agent that turns away while its answer is awaited.
func TestTurnsAwayWhileWaiting(t *testing.T) {
	start := func(t *testing.T) (r *rig, arrived, release chan struct{}, answer chan string) {
		r = newRig(t, nil)
		arrived, release, answer = make(chan struct{}), make(chan struct{}), make(chan string, 1)
		r.upstream(1, func(w http.ResponseWriter, req *http.Request) {
			close(arrived)
			select {
			case <-release:
			case <-req.Context().Done():
			}
			io.WriteString(w, "late, but whole")
		})
		r.apply(httpEntry(1, "app.edge.test"))
		c := r.client(nil)
		go func() {
			res, err := c.Get("https://app.edge.test/")
			if err != nil {
				answer <- err.Error()
				return
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			answer <- fmt.Sprint(res.StatusCode, " ", res.Header.Get("Wgexpose-Error"), " ", err == nil && string(b) == "late, but whole")
		}()
		await(t, arrived, "request")
		return
	}
	t.Run("silent since", func(t *testing.T) {
		r, _, _, answer := start(t)
		r.live.SetAway()
		if got := await(t, answer, "answer"); got != "503 agent_away false" {
			t.Error(got)
		}
	})
	t.Run("heard since", func(t *testing.T) {
		r, _, release, answer := start(t)
		r.live.Heard()
		r.live.SetAway()
		close(release)
		if got := await(t, answer, "answer"); got != "200  true" {
			t.Error(got)
		}
	})
}

// Once the answer has begun, it goes on while the agent is away.
func TestTurnsAwayWhileStreaming(t *testing.T) {
	r := newRig(t, nil)
	release := make(chan struct{})
	r.upstream(1, func(w http.ResponseWriter, req *http.Request) {
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-req.Context().Done():
		}
		io.WriteString(w, "the rest")
	})
	r.apply(httpEntry(1, "app.edge.test"))
	res, err := r.client(nil).Do(r.request("GET", "https://app.edge.test/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r.live.SetAway()
	close(release)
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "the rest" {
		t.Errorf("%q %v", b, err)
	}
}

func TestTurnsAwayWhileDialling(t *testing.T) {
	r := newRig(t, nil)
	dialling := make(chan struct{})
	r.dialer.set(1, func(ctx context.Context) (net.Conn, error) {
		close(dialling)
		return hangDial(ctx)
	})
	r.apply(httpEntry(1, "app.edge.test"))
	go func() {
		<-dialling
		r.live.SetAway()
	}()
	if res, _ := r.get(r.client(nil), "https://app.edge.test/"); res.StatusCode != 503 {
		t.Errorf("%s", res.Status)
	}
}

// Requests reach the upstream from the edge's own address, visitors in the
// header.
func TestPooledConnectionsComeFromTheEdge(t *testing.T) {
	r := newRig(t, nil)
	r.upstream(1, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Forwarded-For")) })
	r.apply(httpEntry(1, "app.edge.test"))
	if _, body := r.get(r.client(nil), "https://app.edge.test/"); body != "127.0.0.1" {
		t.Errorf("X-Forwarded-For %q", body)
	}
	for _, from := range r.dialer.dials() {
		if from.IsValid() {
			t.Errorf("dialled from %v", from)
		}
	}
}

func TestRedirect(t *testing.T) {
	r := newRig(t, func(r *rig) { r.cfg.PublicHTTPSPort = 8443 })
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"), httpEntry(2, "own.test"))
	for name, test := range map[string]struct {
		request  string
		status   int
		location string
	}{
		"known":           {"GET /a%20b?c=d;e HTTP/1.1\r\nHost: app.edge.test", 308, "https://app.edge.test:8443/a%20b?c=d;e"},
		"with a port":     {"GET / HTTP/1.1\r\nHost: APP.edge.test:80", 308, "https://app.edge.test:8443/"},
		"unknown":         {"GET / HTTP/1.1\r\nHost: no.edge.test", 308, "https://no.edge.test:8443/"},
		"another domain":  {"GET / HTTP/1.1\r\nHost: own.test", 308, "https://own.test:8443/"},
		"post":            {"POST /x HTTP/1.1\r\nContent-Length: 5\r\nHost: app.edge.test", 308, "https://app.edge.test:8443/x"},
		"two slashes":     {"GET //evil.test/ HTTP/1.1\r\nHost: app.edge.test", 308, "https://app.edge.test:8443//evil.test/"},
		"absolute form":   {"GET http://app.edge.test/y HTTP/1.1\r\nHost: ignored.test", 308, "https://app.edge.test:8443/y"},
		"not ours":        {"GET / HTTP/1.1\r\nHost: example.org", 404, ""},
		"garbage":         {"GET / HTTP/1.1\r\nHost: a_b!", 400, ""},
		"an address":      {"GET / HTTP/1.1\r\nHost: 127.0.0.1", 404, ""},
		"ACME":            {"GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: app.edge.test", 200, ""},
		"unknown ACME":    {"GET /.well-known/acme-challenge/another HTTP/1.1\r\nHost: app.edge.test", 404, ""},
		"forged new line": {"GET /a%0d%0aX:%20y HTTP/1.1\r\nHost: app.edge.test", 308, "https://app.edge.test:8443/a%0d%0aX:%20y"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", r.cfg.HTTP.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			fmt.Fprint(c, test.request+"\r\n\r\n")
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != test.status && !(name == "an address" && res.StatusCode == 400) || res.Header.Get("Location") != test.location {
				t.Errorf("%s %q, want %d %q", res.Status, res.Header.Get("Location"), test.status, test.location)
			}
		})
	}
	t.Run("port 443 is left out", func(t *testing.T) {
		r := newRig(t, func(r *rig) { r.cfg.PublicHTTPSPort = 443 })
		if res, _ := r.get(r.client(nil), "http://app.edge.test/x"); res.Header.Get("Location") != "https://app.edge.test/x" {
			t.Errorf("%q", res.Header.Get("Location"))
		}
	})
}

// With TLS off, the plain listener serves the host names.
func TestTLSOff(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.cfg.HTTPS.Close()
		r.cfg.HTTPS, r.front.certs = nil, nil
	})
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	c := r.client(nil)
	if res, body := r.get(c, "http://app.edge.test/"); res.StatusCode != 200 || body != "hello from app.edge.test" {
		t.Errorf("%s %q", res.Status, body)
	}
	if res, _ := r.get(c, "http://no.edge.test/"); res.StatusCode != 404 {
		t.Errorf("unknown: %s", res.Status)
	}
}

func TestHeaderLimits(t *testing.T) {
	t.Run("large", func(t *testing.T) {
		r := newRig(t, nil)
		r.upstream(1, greet)
		r.apply(httpEntry(1, "app.edge.test"))
		for name, change := range map[string]func(*http.Transport){
			"h2": nil,
			"h1": func(tr *http.Transport) {
				tr.ForceAttemptHTTP2 = false
				tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
			},
		} {
			req := r.request("GET", "https://app.edge.test/", nil)
			req.Header.Set("X-Large", strings.Repeat("x", proxy.MaxHeader+8<<10))
			res, err := r.client(change).Do(req)
			if name == "h2" && err != nil && strings.HasPrefix(errors.Unwrap(err).Error(), "http2: ") {
				continue // the client heeds the limit that HTTP/2 announces, or the server ends the connection
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			res.Body.Close()
			if res.StatusCode != 431 {
				t.Errorf("%s: %s", name, res.Status)
			}
		}
	})
	// A visitor who sends its header slowly, or nothing more after a request, is
	// cut off. The handshake has the same deadline, so it is not too short.
	r := newRig(t, func(r *rig) { r.limits.header, r.limits.idle = time.Second, 50*time.Millisecond })
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	for name, sent := range map[string]string{
		"slow header": "GET / HTTP/1.1\r\nHost: app.edge.test\r\nX-Slow: ",
		"nothing":     "",
		"idle":        "GET / HTTP/1.1\r\nHost: app.edge.test\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.dialTLS("app.edge.test", "http/1.1")
			io.WriteString(conn, sent)
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("still open")
			}
		})
	}
}
