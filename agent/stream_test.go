package agent

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/wg"
)

// server accepts connections until the test ends, and serves each.
func server(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() { defer c.Close(); serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// streamServer says the name that it was called by to whoever asks for a
// stream.
func streamServer(t *testing.T) keys.Edge {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	config := &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{wg.StreamProtocol}}
	addr := server(t, func(c net.Conn) {
		secure := tls.Server(c, config)
		if err := secure.Handshake(); err == nil {
			fmt.Fprintf(secure, "hello %s\n", secure.ConnectionState().ServerName)
		}
	})
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return keys.Edge{Endpoints: []keys.Endpoint{
		{Kind: keys.EndpointUDP, Addr: "edge.test:1"},
		{Kind: keys.EndpointHTTPS, Addr: "edge.test:" + port},
	}}
}

// local is where edge.test is.
func local(addr string) string { return strings.Replace(addr, "edge.test", "127.0.0.1", 1) }

// relayed joins two connections.
func relayed(c net.Conn, in io.Reader, to string) {
	up, err := net.Dial("tcp", local(to))
	if err != nil {
		return
	}
	defer up.Close()
	go func() {
		io.Copy(up, in)
		up.Close()
	}()
	io.Copy(c, up)
}

// connectProxy is an HTTP proxy that wants a password.
func connectProxy(t *testing.T, used *atomic.Int32) string {
	return server(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		user, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
		switch {
		case r.Method != http.MethodConnect || user != "me" || password != "s:ecret":
			fmt.Fprint(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
			return
		case strings.HasPrefix(r.Host, "forbidden"):
			fmt.Fprint(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
			return
		}
		used.Add(1)
		fmt.Fprint(c, "HTTP/1.1 200 Connection established\r\n\r\n")
		relayed(c, in, r.Host)
	})
}

// socksProxy is a SOCKS5 proxy (RFC 1928) with a password (RFC 1929), for host
// names only.
func socksProxy(t *testing.T, used *atomic.Int32) string {
	return server(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		field := func() string {
			n, err := in.ReadByte()
			if err != nil {
				return ""
			}
			p := make([]byte, n)
			if _, err := io.ReadFull(in, p); err != nil {
				return ""
			}
			return string(p)
		}
		if v, _ := in.ReadByte(); v != 5 || !strings.Contains(field(), "\x02") {
			return
		}
		c.Write([]byte{5, 2})
		if v, _ := in.ReadByte(); v != 1 || field() != "me" || field() != "s:ecret" {
			c.Write([]byte{1, 1})
			return
		}
		c.Write([]byte{1, 0})
		head := make([]byte, 4)
		if _, err := io.ReadFull(in, head); err != nil || head[3] != 3 {
			return
		}
		host := field()
		port := make([]byte, 2)
		if _, err := io.ReadFull(in, port); err != nil {
			return
		}
		used.Add(1)
		c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		relayed(c, in, fmt.Sprintf("%s:%d", host, binary.BigEndian.Uint16(port)))
	})
}

func dialer(t *testing.T, proxy string) *streamDialer {
	t.Helper()
	p, err := Reach{Proxy: proxy}.proxy()
	if err != nil {
		t.Fatal(err)
	}
	return &streamDialer{p}
}

func TestProxies(t *testing.T) {
	edge := streamServer(t)
	var used atomic.Int32
	connect, socks := connectProxy(t, &used), socksProxy(t, &used)
	for _, c := range []struct{ name, proxy, environment, wrong string }{
		{"CONNECT", "http://me:s%3Aecret@" + connect, "", ""},
		{"SOCKS", "socks5://me:s%3Aecret@" + socks, "", ""},
		{"environment", "", "http://me:s%3Aecret@" + connect, ""},
		{"the flag wins", "http://me:s%3Aecret@" + connect, "http://127.0.0.1:1", ""},
		{"wrong password", "http://me:wrong@" + connect, "", "user and a password"},
		{"no password", "http://" + connect, "", "user and a password"},
		{"wrong password for SOCKS", "socks5://me:wrong@" + socks, "", "authentication failed"},
		{"nobody there", "http://me:secret@127.0.0.1:1", "", "connection refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("HTTPS_PROXY", c.environment)
			t.Setenv("https_proxy", "")
			t.Setenv("NO_PROXY", "")
			t.Setenv("no_proxy", "")
			used.Store(0)
			conn, _, err := dialer(t, c.proxy).dial(t.Context(), edge)
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Fatalf("%v, want something about %q", err, c.wrong)
				}
				if strings.Contains(err.Error(), "wrong@") || strings.Contains(err.Error(), "secret") {
					t.Errorf("the password is in %q", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "hello edge.test\n" {
				t.Errorf("%q, %v", line, err)
			}
			if used.Load() != 1 {
				t.Error("it went around the proxy")
			}
		})
	}
	edge.Endpoints[1].Addr = "forbidden.test:443"
	if _, _, err := dialer(t, "http://me:s%3Aecret@"+connect).dial(t.Context(), edge); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("forbidden: %v", err)
	}
}

func TestNoProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://proxy.test:3128")
	t.Setenv("NO_PROXY", "edge.test")
	to := &url.URL{Scheme: "https", Host: "edge.test:443"}
	if via, err := dialer(t, "").proxy(to); err != nil || via != nil {
		t.Errorf("NO_PROXY: %v, %v", via, err)
	}
	t.Setenv("NO_PROXY", "")
	if via, err := dialer(t, "").proxy(to); err != nil || via == nil {
		t.Errorf("HTTPS_PROXY: %v, %v", via, err)
	}
	if via, err := dialer(t, NoProxy).proxy(to); err != nil || via != nil {
		t.Errorf("off: %v, %v", via, err)
	}
}

// Something else answers at the edge's address.
func TestNoStreamThere(t *testing.T) {
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	edge := keys.Edge{Endpoints: []keys.Endpoint{{Kind: keys.EndpointHTTPS, Addr: web.Listener.Addr().String()}}}
	if _, _, err := dialer(t, NoProxy).dial(t.Context(), edge); err == nil || !strings.Contains(err.Error(), "takes no streams") && !strings.Contains(err.Error(), "no application protocol") {
		t.Errorf("a web server: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := dialer(t, NoProxy).dial(ctx, edge); err == nil {
		t.Error("cancelled, and dialled")
	}
	edge.Endpoints[0].Kind = keys.EndpointUDP
	if _, _, err := dialer(t, NoProxy).dial(t.Context(), edge); err != errNoStreamEndpoint {
		t.Errorf("UDP alone: %v", err)
	}
}

func TestReachValidate(t *testing.T) {
	for _, good := range []Reach{{}, {Transport: "tls", Proxy: "off"}, {Transport: "udp"}, {Proxy: "https://proxy.test"}, {Proxy: "socks5h://[::1]:1080"}} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, bad := range []Reach{{Transport: "quic"}, {Proxy: "ftp://proxy.test"}, {Proxy: "secret"}, {Proxy: "http://me:secret@"}} {
		if err := bad.Validate(); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A dial that fails at once, as all do without a network, is no reason to begin
// the next round: each forgets the handshake of the one before.
func TestReachKeepsItsPaceWhenDialsFail(t *testing.T) {
	e := newFakeEdge(t)
	n, edge := invited(t, e)
	hole, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close() // refuses
	edge.Endpoints = []keys.Endpoint{
		{Kind: keys.EndpointUDP, Addr: hole.LocalAddr().String()},
		{Kind: keys.EndpointHTTPS, Addr: ln.Addr().String()},
	}
	dials := 0
	n.dialer = streamDialer{proxy: func(*url.URL) (*url.URL, error) { dials++; return nil, nil }}
	err = n.reach(t.Context(), edge, 2*time.Second)
	var none *unreachableError
	if !errors.As(err, &none) || none.stream == nil {
		t.Errorf("%v", err)
	}
	if dials == 0 || dials > 8 { // one a round, or two: the second is for a WebSocket
		t.Errorf("%d dials within 2 s", dials)
	}
}
