package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2cUpstream speaks HTTP/2 without TLS, and nothing else.
func h2cUpstream(t *testing.T, h http.HandlerFunc, state func(net.Conn, http.ConnState)) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.ConnState = state
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.Listener.Addr().String()
}

// Requests of all methods share a connection while others are under way, and
// bodies, trailers and what a request must not carry go as over HTTP/1.1.
func TestHTTP2Upstream(t *testing.T) {
	hang := make(chan struct{})
	addr := h2cUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			w.(http.Flusher).Flush()
			<-hang
			return
		}
		b, err := io.ReadAll(r.Body)
		w.Header().Set(http.TrailerPrefix+"Length", fmt.Sprint(len(b), err))
		w.(http.Flusher).Flush() // HTTP/1.1 has no trailers behind a known length
		fmt.Fprint(w, r.Proto, " ", r.Host, " ", r.Header.Get("X-Forwarded-For"), " ", r.Header.Get("Te"), r.Header.Get("Upgrade"))
	}, nil)
	var dials atomic.Int32
	each(t, Config{HTTP2: true, Dial: func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		return dialTo(addr)(ctx)
	}}, func(t *testing.T, f front) {
		dials.Store(0)
		res, err := f.Client().Do(request(t, "POST", f.URL+"/hang", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				body := strings.Repeat("x", i*5000)
				req := request(t, "POST", f.URL, struct{ io.Reader }{strings.NewReader(body)})
				req.Host = "app.test"
				req.Header.Set("Te", "trailers")
				res, err := f.Client().Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				b, err := io.ReadAll(res.Body)
				if err != nil || string(b) != "HTTP/2.0 app.test 127.0.0.1 trailers" || res.Trailer.Get("Length") != fmt.Sprint(len(body), " <nil>") {
					t.Errorf("%q %v %v", b, err, res.Trailer)
				}
			})
		}
		all.Wait()
		if n := dials.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
		hang <- struct{}{}
		if _, err := io.ReadAll(res.Body); err != nil {
			t.Error(err)
		}
		if t.Name() == "TestHTTP2Upstream/h1" {
			req := request(t, "GET", f.URL, nil)
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "websocket")
			if _, body := do(t, f, req); body != "HTTP/2.0 "+strings.TrimPrefix(f.URL, "http://")+" 127.0.0.1 " {
				t.Errorf("upgrade: %q", body)
			}
		}
	})
}

// Both directions are open at once, as in a gRPC stream.
func TestHTTP2FullDuplex(t *testing.T) {
	addr := h2cUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		b := make([]byte, 1)
		for {
			if _, err := r.Body.Read(b); err != nil {
				return
			}
			w.Write(b)
			w.(http.Flusher).Flush()
		}
	}, nil)
	f := serveTLS(t, Config{HTTP2: true, Dial: dialTo(addr)})
	pr, pw := io.Pipe()
	res, err := f.Client().Do(request(t, "POST", f.URL, pr))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for _, c := range "full duplex" {
		io.WriteString(pw, string(c))
		b := make([]byte, 1)
		if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != string(c) {
			t.Fatalf("%q %v", b, err)
		}
	}
	pw.Close()
	if _, err := res.Body.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
}

// The connection goes with the last request after Close.
func TestHTTP2Close(t *testing.T) {
	arrived, release, closed := make(chan struct{}), make(chan struct{}), make(chan struct{}, 1)
	addr := h2cUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			close(arrived)
			<-release
		}
		io.WriteString(w, "done")
	}, func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			select {
			case closed <- struct{}{}:
			default:
			}
		}
	})
	f := serve(t, Config{HTTP2: true, Dial: dialTo(addr)})
	answer := make(chan string, 1)
	go func() {
		_, body := do(t, f, request(t, "GET", f.URL+"/hang", nil))
		answer <- body
	}()
	receive(t, arrived, "request")
	f.proxy.Close()
	close(release)
	if body := receive(t, answer, "answer"); body != "done" {
		t.Errorf("%q", body)
	}
	receive(t, closed, "end of the connection")
	if _, body := do(t, f, request(t, "GET", f.URL, nil)); body != "done" {
		t.Errorf("after Close: %q", body)
	}
}

// An upstream that speaks something else, or nothing.
func TestNotHTTP2(t *testing.T) {
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "HTTP/1.1") })
	f := serve(t, Config{HTTP2: true, Dial: dialTo(addr)})
	res, body := do(t, f, request(t, "GET", f.URL, nil))
	if res.StatusCode != 502 || res.Header.Get("Wgexpose-Error") != "upstream_broken" || !strings.Contains(body, "HTTP/2") {
		t.Errorf("%s %q", res.Status, body)
	}
}

// An answer that is a header alone stays one frame that ends its stream: gRPC
// reads a status out of a header only then.
func TestHTTP2AnswerWithoutBody(t *testing.T) {
	addr := h2cUpstream(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Grpc-Status", "2") }, nil)
	f := serveTLS(t, Config{HTTP2: true, Dial: dialTo(addr)})
	conn, err := tls.Dial("tcp", f.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	framer := http2.NewFramer(conn, conn)
	io.WriteString(conn, http2.ClientPreface)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := range uint32(200) { // whether a flush comes in between is a matter of chance
		block.Reset()
		for _, field := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "a"}, {Name: ":path", Value: "/"}} {
			if err := encoder.WriteField(field); err != nil {
				t.Fatal(err)
			}
		}
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
			t.Fatal(err)
		}
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if h, ok := frame.(*http2.HeadersFrame); ok {
				if !h.StreamEnded() {
					t.Fatalf("request %d: more is to follow the header", i)
				}
				break
			}
		}
	}
}
