package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
)

func TestEventsArriveOneByOne(t *testing.T) {
	next := make(chan string)
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for data := range next {
			if data == "" {
				return
			}
			fmt.Fprintf(w, "data: %s\n\n", data)
			w.(http.Flusher).Flush()
		}
	})
	defer close(next)
	each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
		res, err := f.Client().Do(request(t, "GET", f.URL, nil))
		if err != nil {
			t.Fatal(err) // the header comes before the first event
		}
		defer res.Body.Close()
		br := bufio.NewReader(res.Body)
		for i := range 20 {
			want := fmt.Sprintf("data: %d\n", i)
			next <- fmt.Sprint(i) // only now: a proxy that buffers blocks below
			got, err := br.ReadString('\n')
			if err != nil || got != want {
				t.Fatalf("%q, %v; want %q", got, err, want)
			}
			if _, err := br.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		next <- ""
		if _, err := br.ReadByte(); err != io.EOF {
			t.Errorf("end: %v", err)
		}
	})
}

// A body with a known length is flushed as it comes, too.
func TestKnownLengthIsNotBuffered(t *testing.T) {
	more := make(chan struct{})
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "a")
		w.(http.Flusher).Flush()
		<-more
		io.WriteString(w, "b")
	})
	f := serve(t, Config{Dial: dialTo(addr)})
	res, err := f.Client().Do(request(t, "GET", f.URL, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b := make([]byte, 1)
	if _, err := io.ReadFull(res.Body, b); err != nil || b[0] != 'a' {
		t.Fatalf("%q %v", b, err)
	}
	close(more)
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "b" {
		t.Errorf("%q %v", rest, err)
	}
}

func TestTrailers(t *testing.T) {
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced, Wgexpose-Error")
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "body of "+r.Trailer.Get("X-Up")+r.Trailer.Get("X-Forwarded-For"))
		w.Header().Set("X-Announced", "1")
		w.Header().Set("Wgexpose-Error", "forged")
		w.Header().Set(http.TrailerPrefix+"X-Late", "2")
		w.Header().Set(http.TrailerPrefix+"Wgexpose-Error", "forged")
	})
	each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
		r := request(t, "POST", f.URL, io.MultiReader(strings.NewReader("x")))
		r.Trailer = http.Header{"X-Up": {"trailer"}, "X-Forwarded-For": {"forged"}}
		r.Header.Set("TE", "trailers")
		res, body := do(t, f, r)
		if body != "body of trailer" {
			t.Errorf("the request's trailers: %q", body)
		}
		if res.Trailer.Get("X-Announced") != "1" || res.Trailer.Get("X-Late") != "2" {
			t.Errorf("trailers: %v", res.Trailer)
		}
		if v, ok := res.Trailer["Wgexpose-Error"]; ok && len(v) > 0 {
			t.Errorf("Wgexpose-Error as a trailer: %q", v)
		}
	})
}

func TestInformationalAnswers(t *testing.T) {
	addr := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nWgexpose-Error: forged\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"+
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	})
	each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
		var hints []textproto.MIMEHeader
		r := request(t, "GET", f.URL, nil)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if code != 103 {
					return fmt.Errorf("code %d", code)
				}
				hints = append(hints, h)
				return nil
			},
		}))
		res, body := do(t, f, r)
		if len(hints) != 1 || hints[0].Get("Link") == "" {
			t.Fatalf("hints: %v", hints)
		}
		for _, name := range []string{"Wgexpose-Error", "X-Hop", "Connection"} {
			if v := hints[0].Get(name); v != "" {
				t.Errorf("%s: %s in the 103", name, v)
			}
		}
		if res.StatusCode != 200 || body != "ok" || res.Header.Get("Link") != "" {
			t.Errorf("%v %q %v", res.Status, body, res.Header)
		}
	})
}

func TestNoInformationalAnswersToHTTP10(t *testing.T) {
	addr := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	})
	f := serve(t, Config{Dial: dialTo(addr)})
	c, br := dialRaw(t, f)
	fmt.Fprint(c, "GET / HTTP/1.0\r\nHost: a\r\n\r\n")
	if line, err := br.ReadString('\n'); err != nil || !strings.Contains(line, " 200 ") {
		t.Errorf("%q %v", line, err)
	}
}

func TestAnswersWithoutBody(t *testing.T) {
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(304)
		default:
			w.Header().Set("Content-Length", "12345")
			w.Header().Set("Content-Type", "text/x")
		}
	})
	each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
		res, body := do(t, f, request(t, "HEAD", f.URL+"/", nil))
		if res.StatusCode != 200 || res.ContentLength != 12345 || body != "" || res.Header.Get("Content-Type") != "text/x" {
			t.Errorf("HEAD: %v %d %q", res.Status, res.ContentLength, body)
		}
		res, body = do(t, f, request(t, "GET", f.URL+"/204", nil))
		if res.StatusCode != 204 || body != "" {
			t.Errorf("204: %v %q", res.Status, body)
		}
		res, body = do(t, f, request(t, "GET", f.URL+"/304", nil))
		if res.StatusCode != 304 || body != "" || res.Header.Get("Etag") != `"x"` {
			t.Errorf("304: %v %q", res.Status, body)
		}
	})
}

// An answer that breaks off upstream breaks off for the visitor.
func TestBrokenAnswerStaysBroken(t *testing.T) {
	for name, answer := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			addr := rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				io.WriteString(c, answer)
			})
			each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
				res, err := f.Client().Do(request(t, "GET", f.URL, nil))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				b, err := io.ReadAll(res.Body)
				if err == nil {
					t.Errorf("a broken answer looks whole: %q", b)
				}
			})
		})
	}
}

func TestVisitorWhoLeavesCancelsTheUpstream(t *testing.T) {
	arrived, left := make(chan struct{}), make(chan error, 1)
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/streaming" {
			w.(http.Flusher).Flush()
		}
		arrived <- struct{}{}
		<-r.Context().Done()
		left <- r.Context().Err()
	})
	each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
		for _, path := range []string{"/waiting", "/streaming"} {
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				<-arrived
				cancel()
			}()
			r := request(t, "GET", f.URL+path, nil).WithContext(ctx)
			res, err := f.Client().Do(r)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("%s: %v", path, err)
			}
			receive(t, left, "cancellation at the upstream of "+path)
		}
	})
}

// The large answer of a fast upstream passes whole and unchanged.
func TestLargeAnswer(t *testing.T) {
	const size = 32 << 20
	block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		for n := 0; n < size; n += len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	each(t, Config{Dial: dialTo(addr)}, func(t *testing.T, f front) {
		res, err := f.Client().Do(request(t, "GET", f.URL, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got := make([]byte, len(block))
		total := 0
		for {
			n, err := io.ReadFull(res.Body, got)
			if err == io.EOF {
				break
			}
			if err != nil || !bytes.Equal(got[:n], block) {
				t.Fatalf("at %d: %v", total, err)
			}
			total += n
		}
		if total != size {
			t.Errorf("%d bytes, want %d", total, size)
		}
	})
}
