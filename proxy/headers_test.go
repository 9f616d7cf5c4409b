package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
)

// seen records the header of each request exactly as it came over the wire.
type seen struct {
	line   string
	header textproto.MIMEHeader
}

func recording(t *testing.T, answer string) (addr string, got <-chan seen) {
	c := make(chan seen, 16)
	return rawUpstream(t, func(conn net.Conn, r *bufio.Reader) {
		tp := textproto.NewReader(r)
		for {
			line, err := tp.ReadLine()
			if err != nil {
				return
			}
			h, err := tp.ReadMIMEHeader()
			if err != nil {
				return
			}
			c <- seen{line, h}
			if _, err := io.WriteString(conn, answer); err != nil {
				return
			}
		}
	}), c
}

const plainOK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestForwardingFieldsComeFromTheConnection(t *testing.T) {
	addr, got := recording(t, plainOK)
	each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
		r := request(t, "GET", f.URL+"/", nil)
		r.Host = "app.example.com:8443"
		for _, name := range []string{
			"Forwarded", "X-Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
			"X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-User", "X-Forwarded-Prefix",
			"X-Real-IP", "X_Forwarded_For", "X_Real-IP", "Wgexpose-Visitor",
		} {
			r.Header[name] = []string{"forged"}
		}
		do(t, f, r)
		s := receive(t, got, "request")
		for name, values := range s.header {
			for _, v := range values {
				if strings.Contains(v, "forged") {
					t.Errorf("%s: %s passed", name, v)
				}
			}
		}
		proto := "http"
		if f.TLS != nil {
			proto = "https"
		}
		for name, want := range map[string]string{
			"X-Forwarded-For":   "127.0.0.1",
			"X-Real-Ip":         "127.0.0.1",
			"X-Forwarded-Host":  "app.example.com:8443",
			"X-Forwarded-Proto": proto,
			"Host":              "app.example.com:8443",
		} {
			if v := s.header[name]; len(v) != 1 || v[0] != want {
				t.Errorf("%s: %q, want %q", name, v, want)
			}
		}
	})
}

func TestHostHeader(t *testing.T) {
	addr, got := recording(t, plainOK)
	f := serve(t, Config{Dial: dialTo(addr), HostHeader: "inner.lan:81"})
	r := request(t, "GET", f.URL, nil)
	r.Host = "app.example.com"
	do(t, f, r)
	s := receive(t, got, "request")
	if h := s.header.Get("Host"); h != "inner.lan:81" {
		t.Errorf("Host: %q", h)
	}
	if h := s.header.Get("X-Forwarded-Host"); h != "app.example.com" {
		t.Errorf("X-Forwarded-Host: %q", h)
	}
}

func TestHopByHopEndsHere(t *testing.T) {
	answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" +
		"Connection: X-Upstream-Hop\r\nX-Upstream-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nX-End: 1\r\n" +
		"Alt-Svc: h3=\":443\"\r\nWgexpose-Error: forged\r\n\r\nok"
	addr, got := recording(t, answer)
	f := serve(t, Config{Dial: dialTo(addr)})
	c, br := dialRaw(t, f)
	// A visitor who lists our own fields in Connection must not get rid of them.
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n"+
		"Connection: keep-alive, X-Hop, X-Forwarded-For, X-Real-IP, X-Forwarded-Proto\r\nX-Hop: 1\r\nX-Real-IP: 6.6.6.6\r\n"+
		"Proxy-Connection: keep-alive\r\nKeep-Alive: 5\r\nProxy-Authorization: Basic x\r\nX-End: 1\r\n\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	s := receive(t, got, "request")
	for _, name := range []string{"X-Hop", "Proxy-Connection", "Keep-Alive", "Proxy-Authorization", "Connection"} {
		if s.header.Get(name) != "" {
			t.Errorf("request field %s passed: %q", name, s.header.Get(name))
		}
	}
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip"} {
		if s.header.Get(name) != "127.0.0.1" {
			t.Errorf("%s: %q", name, s.header.Get(name))
		}
	}
	if s.header.Get("X-End") == "" || res.Header.Get("X-End") == "" {
		t.Error("end-to-end fields must pass")
	}
	for _, name := range []string{"X-Upstream-Hop", "Keep-Alive", "Proxy-Authenticate", "Alt-Svc", "Wgexpose-Error"} {
		if res.Header.Get(name) != "" {
			t.Errorf("answer field %s passed: %q", name, res.Header.Get(name))
		}
	}
}

// The request line and Accept-Encoding reach the upstream as they were.
func TestRequestIsNotMeddledWith(t *testing.T) {
	addr, got := recording(t, plainOK)
	f := serve(t, Config{Dial: dialTo(addr)})
	c, br := dialRaw(t, f)
	for _, target := range []string{
		"/a%2Fb/../c//d?x=1;y=%zz&&=",
		"//double?",
		"/?q=a+b%20c",
	} {
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target)
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		s := receive(t, got, "request")
		if want := "GET " + target + " HTTP/1.1"; s.line != want {
			t.Errorf("line %q, want %q", s.line, want)
		}
		for _, name := range []string{"Accept-Encoding", "User-Agent"} {
			if v, ok := s.header[name]; ok {
				t.Errorf("%s: %q was added", name, v)
			}
		}
		if _, ok := res.Header["Content-Type"]; ok {
			t.Errorf("a Content-Type was guessed: %q", res.Header.Get("Content-Type"))
		}
	}
}

// Whatever a visitor tries, what arrives at the upstream are requests that were
// understood and written anew here, each with the fields that are set here.
func TestSmuggling(t *testing.T) {
	for name, test := range map[string]struct {
		raw    string
		status int
		paths  []string // of the requests that may arrive
	}{
		// RFC 9112, section 6.3: the coding counts. The second request is a
		// request like any other then, not a part of the first.
		"both lengths": {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", 200, []string{"/", "/admin"}},
		"request in a body": {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 36\r\n\r\n" +
			"GET /admin HTTP/1.1\r\nHost: inside\r\n\r\n", 200, []string{"/"}},
		"two lengths":        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400, nil},
		"strange coding":     {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, nil},
		"two codings":        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501, nil},
		"space before colon": {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nabcd", 400, nil},
		"negative length":    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -4\r\n\r\nabcd", 400, nil},
		"two hosts":          {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, nil},
		"bare return":        {"GET / HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n", 400, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan *http.Request, 8)
			addr := rawUpstream(t, func(conn net.Conn, r *bufio.Reader) {
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if _, err := io.Copy(io.Discard, req.Body); err != nil {
						return
					}
					got <- req
					io.WriteString(conn, plainOK)
				}
			})
			f := serve(t, Config{Dial: dialTo(addr)})
			c, br := dialRaw(t, f)
			io.WriteString(c, test.raw)
			for i := range max(1, len(test.paths)) {
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					t.Fatal(err)
				}
				if res.StatusCode != test.status {
					t.Errorf("answer %d: status %d, want %d", i, res.StatusCode, test.status)
				}
			}
			// Every answer is there, so every request has arrived.
			for _, path := range test.paths {
				req := receive(t, got, "request for "+path)
				if req.URL.Path != path || req.Host != "a" || req.Header.Get("X-Forwarded-For") != "127.0.0.1" {
					t.Errorf("upstream got %s %s %v", req.Host, req.URL, req.Header)
				}
			}
			if len(got) > 0 {
				t.Errorf("upstream got %v more", (<-got).URL)
			}
		})
	}
}

// A request whose body turns out to be malformed never looks complete upstream.
func TestMalformedBody(t *testing.T) {
	whole := make(chan error, 1)
	addr := rawUpstream(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err == nil {
			_, err = io.Copy(io.Discard, req.Body)
		}
		whole <- err
	})
	f := serve(t, Config{Dial: dialTo(addr)})
	c, br := dialRaw(t, f)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 400 || res.Header.Get("Wgexpose-Error") != "bad_request" || !res.Close {
		t.Errorf("%s, %q, close %v", res.Status, res.Header.Get("Wgexpose-Error"), res.Close)
	}
	if err := receive(t, whole, "end at the upstream"); err == nil {
		t.Error("the upstream took the request for complete")
	}
}

// HTTP/2 in clear text inside an upgraded connection would pass by all that is
// done to requests.
func TestNoUpgradeToHTTP2(t *testing.T) {
	addr, got := recording(t, plainOK)
	f := serve(t, Config{Dial: dialTo(addr)})
	for _, upgrade := range []string{"h2c", "H2C", "websocket, h2c", "HTTP/2.0"} {
		r := request(t, "GET", f.URL, nil)
		r.Header.Set("Connection", "Upgrade, HTTP2-Settings")
		r.Header.Set("Upgrade", upgrade)
		r.Header.Set("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
		do(t, f, r)
		s := receive(t, got, "request")
		for _, name := range []string{"Upgrade", "Connection", "Http2-Settings"} {
			if v := s.header.Get(name); v != "" {
				t.Errorf("%s: %s: %q passed", upgrade, name, v)
			}
		}
	}
}

func TestConnectIsRefused(t *testing.T) {
	f := serve(t, Config{Dial: dialTo("127.0.0.1:1")})
	c, br := dialRaw(t, f)
	fmt.Fprint(c, "CONNECT 10.0.0.1:22 HTTP/1.1\r\nHost: 10.0.0.1:22\r\n\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Wgexpose-Error") != "bad_method" {
		t.Errorf("%s %s", res.Status, res.Header.Get("Wgexpose-Error"))
	}
}
