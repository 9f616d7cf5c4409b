package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// endless is a body that never ends before stop is closed.
type endless struct{ stop <-chan struct{} }

func (e endless) Read(p []byte) (int, error) {
	select {
	case <-e.stop:
		return 0, io.EOF
	default:
		clear(p)
		return len(p), nil
	}
}

// The upstream has the first piece before the visitor sends the second.
func TestUploadsStream(t *testing.T) {
	pieces := make(chan string)
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		br := bufio.NewReader(r.Body)
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			pieces <- line
		}
	})
	each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
		pr, pw := io.Pipe()
		r := request(t, "POST", f.URL, pr)
		done := make(chan error, 1)
		go func() {
			res, err := f.Client().Do(r)
			if err == nil {
				res.Body.Close()
			}
			done <- err
		}()
		for i := range 10 {
			want := fmt.Sprintf("piece %d\n", i)
			io.WriteString(pw, want)
			if got := receive(t, pieces, "piece at the upstream"); got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		}
		pw.Close()
		if err := receive(t, done, "answer"); err != nil {
			t.Error(err)
		}
	})
}

func TestLargeUpload(t *testing.T) {
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		fmt.Fprintf(w, "%d %x %v", n, h.Sum(nil), err)
	})
	body := bytes.Repeat([]byte("all of it must arrive, in order. "), 1<<20)
	want := fmt.Sprintf("%d %x %v", len(body), sha256.Sum256(body), nil)
	each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
		if _, got := do(t, f, request(t, "PUT", f.URL, bytes.NewReader(body))); got != want {
			t.Errorf("known length: %q, want %q", got, want)
		}
		if _, got := do(t, f, request(t, "PUT", f.URL, io.MultiReader(bytes.NewReader(body)))); got != want {
			t.Errorf("chunked: %q, want %q", got, want)
		}
	})
}

// An upstream that refuses a large upload answers early and closes. The visitor
// reads that answer every time, not a broken connection at random.
func TestEarlyAnswer(t *testing.T) {
	addr := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		// Closing with the upload unread sends a RST behind the answer.
		io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\nno room")
	})
	each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
		for i := range 40 {
			stop := make(chan struct{})
			res, err := f.Client().Do(request(t, "POST", f.URL, endless{stop}))
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			close(stop)
			if err != nil || res.StatusCode != 413 || string(b) != "no room" {
				t.Fatalf("%d: %s %q %v", i, res.Status, b, err)
			}
		}
	})
}

// endings is a listener that tells how its connections end.
type endings struct {
	net.Listener
	said chan string
}

func (l endings) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &endingConn{TCPConn: c.(*net.TCPConn), said: l.said}, nil
}

type endingConn struct {
	*net.TCPConn
	said chan string
	once sync.Once
}

func (c *endingConn) CloseWrite() error {
	c.said <- "end"
	return c.TCPConn.CloseWrite()
}

func (c *endingConn) Close() error {
	c.once.Do(func() { c.said <- "close" })
	return c.TCPConn.Close()
}

// The connection of a visitor that asked whether to send its upload, and was answered in
// the middle of it, is not closed before it could read that: what it still sends would
// have it reset, and the answer lost.
func TestEarlyAnswerIsReadBeforeTheClose(t *testing.T) {
	addr := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.URL.Path == "/continue" {
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			if _, err := req.Body.Read(make([]byte, 1)); err != nil {
				return
			}
		}
		io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\nno room")
	})
	for name, first := range map[string]int{"/continue": http.StatusContinue, "/refuse": http.StatusRequestEntityTooLarge} {
		said := make(chan string, 8)
		p := New(Config{Dial: dialTo(addr)})
		defer p.Close()
		s := httptest.NewUnstartedServer(p)
		s.Listener = endings{s.Listener, said}
		s.Start()
		defer s.Close()
		c, br := dialRaw(t, front{s, p})
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", name)
		res, err := http.ReadResponse(br, nil)
		if err != nil || res.StatusCode != first {
			t.Fatalf("%s: %v %v", name, res, err)
		}
		if first == http.StatusContinue {
			io.WriteString(c, "part of it")
			if res, err = http.ReadResponse(br, nil); err != nil {
				t.Fatal(err)
			}
		}
		if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 413 || string(b) != "no room" {
			t.Errorf("%s: %s %q %v", name, res.Status, b, err)
		}
		if how := receive(t, said, "the connection's end"); how != "end" {
			t.Errorf("%s: the connection ends with %q", name, how)
		}
	}
}

// An early answer comes although the visitor is silent in the middle of its
// upload, and what it sends later is never taken for a request.
func TestEarlyAnswerToSilentVisitor(t *testing.T) {
	for name, head := range map[string]string{
		"length":  "Content-Length: 1000\r\n\r\nbegin",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			paths := make(chan string, 4)
			addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
				paths <- r.URL.Path
				http.NewResponseController(w).EnableFullDuplex()
				io.WriteString(w, "enough")
			})
			f := serve(t, Config{Dial: dialTo(addr)})
			c, br := dialRaw(t, f)
			fmt.Fprintf(c, "POST /upload HTTP/1.1\r\nHost: a\r\n%s", head)
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			if err != nil || string(b) != "enough" || !res.Close {
				t.Fatalf("%q %v, close %v", b, err, res.Close)
			}
			io.WriteString(c, "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n") // an error is as good
			if rest, err := io.ReadAll(br); len(rest) > 0 {
				t.Errorf("more came: %q %v", rest, err)
			}
			if p := receive(t, paths, "request"); p != "/upload" || len(paths) > 0 {
				t.Errorf("upstream got %q and %d more", p, len(paths))
			}
		})
	}
}

// A conversation within one request: answers come while the upload goes on.
func TestFullDuplex(t *testing.T) {
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		rc.Flush()
		br := bufio.NewReader(r.Body)
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(w, strings.ToUpper(line))
			rc.Flush()
		}
	})
	each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
		pr, pw := io.Pipe()
		res, err := f.Client().Do(request(t, "POST", f.URL, pr))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		br := bufio.NewReader(res.Body)
		for range 5 {
			io.WriteString(pw, "hello\n")
			if got, err := br.ReadString('\n'); got != "HELLO\n" {
				t.Fatalf("%q %v", got, err)
			}
		}
		pw.Close()
		if _, err := br.ReadByte(); err != io.EOF {
			t.Errorf("end: %v", err)
		}
	})
}

// With Expect: 100-continue the upstream decides before anything is uploaded.
func TestExpectContinue(t *testing.T) {
	addr := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.Header.Get("Expect") != "100-continue" {
			io.WriteString(c, "HTTP/1.1 500 Expect was dropped\r\nContent-Length: 0\r\n\r\n")
			return
		}
		if req.URL.Path == "/refused" {
			io.WriteString(c, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
			return
		}
		io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		b, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		// Once more, as from an upstream whose word was overtaken by the upload: the
		// visitor has had it by then, and gets it once.
		io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
	})
	f := serve(t, Config{Dial: dialTo(addr)})

	c, br := dialRaw(t, f)
	fmt.Fprint(c, "POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 401 || !res.Close {
		t.Errorf("refused: %s, close %v; want 401 without a 100 before it", res.Status, res.Close)
	}

	c, br = dialRaw(t, f)
	fmt.Fprint(c, "POST /taken HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	line, err := br.ReadString('\n')
	if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	if line, err = br.ReadString('\n'); line != "\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	io.WriteString(c, "hello")
	if res, err = http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || string(b) != "hello" {
		t.Errorf("taken: %s %q %v", res.Status, b, err)
	}
}

// A visitor who leaves in the middle of an upload takes the upstream's request
// with it, and it does not look complete there.
func TestVisitorLeavesWhileUploading(t *testing.T) {
	ended := make(chan error, 1)
	begun := make(chan struct{}, 1)
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 5))
		begun <- struct{}{}
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
	})
	f := serve(t, Config{Dial: dialTo(addr)})
	c, _ := dialRaw(t, f)
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbegin")
	receive(t, begun, "upload")
	c.Close()
	if err := receive(t, ended, "end at the upstream"); err == nil {
		t.Error("half an upload was taken for a whole one")
	}
}
