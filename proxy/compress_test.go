package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// decoder reads what a Content-Encoding of that name means.
func decoder(t *testing.T, coding string, body io.Reader) io.Reader {
	t.Helper()
	switch coding {
	case "":
		return body
	case "gzip":
		r, err := gzip.NewReader(body)
		if err != nil {
			t.Fatal(err)
		}
		return r
	case "zstd":
		r, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		return r
	}
	t.Fatalf("coding %q", coding)
	return nil
}

var longText = strings.Repeat("All work and no play. ", 400)

func TestCompression(t *testing.T) {
	headers := func(pairs ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			for i := 0; i < len(pairs); i += 2 {
				w.Header().Set(pairs[i], pairs[i+1])
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(longText)))
			io.WriteString(w, longText)
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Etag", `"a"`)
			w.WriteHeader(code)
			if code != 204 && code != 304 {
				io.WriteString(w, longText)
			}
		}
	}
	for name, test := range map[string]struct {
		upstream http.HandlerFunc
		request  []string // method, then fields
		coding   string
		vary     string
		more     []string // fields of the answer; "": not there
	}{
		"gzip":                {headers(), []string{"GET", "Accept-Encoding", "gzip, deflate"}, "gzip", "Accept-Encoding", []string{"Content-Length", ""}},
		"zstd":                {headers(), []string{"GET", "Accept-Encoding", "gzip, deflate, br, zstd"}, "zstd", "Accept-Encoding", nil},
		"liked better":        {headers(), []string{"GET", "Accept-Encoding", "zstd;q=0.5, gzip;q=0.8"}, "gzip", "Accept-Encoding", nil},
		"anything":            {headers(), []string{"GET", "Accept-Encoding", "*"}, "zstd", "Accept-Encoding", nil},
		"refused":             {headers(), []string{"GET", "Accept-Encoding", "gzip;q=0, zstd; q=0.0, *"}, "", "Accept-Encoding", nil},
		"as it is, rather":    {headers(), []string{"GET", "Accept-Encoding", "identity, gzip;q=0.5"}, "", "Accept-Encoding", nil},
		"others alone":        {headers(), []string{"GET", "Accept-Encoding", "br, deflate"}, "", "Accept-Encoding", nil},
		"nonsense":            {headers(), []string{"GET", "Accept-Encoding", "gzip;q=x, ;;,"}, "", "Accept-Encoding", nil},
		"not asked for":       {headers(), []string{"GET"}, "", "Accept-Encoding", []string{"Content-Length", fmt.Sprint(len(longText))}},
		"POST":                {headers(), []string{"POST", "Accept-Encoding", "gzip"}, "gzip", "Accept-Encoding", nil},
		"HEAD":                {headers("Etag", `"a"`), []string{"HEAD", "Accept-Encoding", "gzip"}, "", "Accept-Encoding", []string{"Content-Length", fmt.Sprint(len(longText)), "Etag", `"a"`}},
		"error page":          {status(500), []string{"GET", "Accept-Encoding", "gzip"}, "gzip", "Accept-Encoding", nil},
		"204":                 {status(204), []string{"GET", "Accept-Encoding", "gzip"}, "", "", []string{"Etag", `"a"`}},
		"304":                 {status(304), []string{"GET", "Accept-Encoding", "gzip"}, "", "", []string{"Etag", `"a"`}},
		"206":                 {status(206), []string{"GET", "Accept-Encoding", "gzip"}, "", "", nil},
		"range ignored":       {headers("Accept-Ranges", "bytes"), []string{"GET", "Accept-Encoding", "gzip", "Range", "bytes=0-99999"}, "", "", []string{"Accept-Ranges", "bytes"}},
		"ranges":              {headers("Accept-Ranges", "bytes"), []string{"GET", "Accept-Encoding", "gzip"}, "gzip", "Accept-Encoding", []string{"Accept-Ranges", ""}},
		"strong tag":          {headers("Etag", `"a"`), []string{"GET", "Accept-Encoding", "gzip"}, "gzip", "Accept-Encoding", []string{"Etag", `W/"a"`}},
		"weak tag":            {headers("Etag", `W/"a"`), []string{"GET", "Accept-Encoding", "gzip"}, "gzip", "Accept-Encoding", []string{"Etag", `W/"a"`}},
		"tag, not compressed": {headers("Etag", `"a"`), []string{"GET"}, "", "Accept-Encoding", []string{"Etag", `"a"`}},
		"varies already":      {headers("Vary", "Cookie, accept-encoding"), []string{"GET", "Accept-Encoding", "gzip"}, "gzip", "Cookie, accept-encoding", nil},
		"varies too":          {headers("Vary", "Cookie"), []string{"GET", "Accept-Encoding", "gzip"}, "gzip", "Cookie|Accept-Encoding", nil},
		"no-transform":        {headers("Cache-Control", "public, no-transform"), []string{"GET", "Accept-Encoding", "gzip"}, "", "", nil},
		"digest":              {headers("Content-Digest", "sha-256=:x:"), []string{"GET", "Accept-Encoding", "gzip"}, "", "", nil},
		"picture":             {headers("Content-Type", "image/png"), []string{"GET", "Accept-Encoding", "gzip"}, "", "", nil},
		"drawing":             {headers("Content-Type", "image/svg+xml"), []string{"GET", "Accept-Encoding", "gzip"}, "gzip", "Accept-Encoding", nil},
		"JSON":                {headers("Content-Type", "application/problem+json"), []string{"GET", "Accept-Encoding", "gzip"}, "gzip", "Accept-Encoding", nil},
		"events":              {headers("Content-Type", "text/event-stream; charset=utf-8"), []string{"GET", "Accept-Encoding", "gzip"}, "", "", nil},
		"gRPC":                {headers("Content-Type", "application/grpc+json"), []string{"POST", "Accept-Encoding", "gzip"}, "", "", nil},
		"gRPC-Web":            {headers("Content-Type", "application/grpc-web-text"), []string{"POST", "Accept-Encoding", "gzip"}, "", "", nil},
		"Connect":             {headers("Content-Type", "application/connect+json"), []string{"POST", "Accept-Encoding", "gzip"}, "", "", nil},
		"no type":             {headers("Content-Type", ""), []string{"GET", "Accept-Encoding", "gzip"}, "", "", nil},
		"short": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, "short")
		}, []string{"GET", "Accept-Encoding", "gzip"}, "", "", []string{"Content-Length", "5"}},
		"compressed already": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			io.WriteString(z, longText)
			z.Close()
		}, []string{"GET", "Accept-Encoding", "gzip, zstd"}, "gzip", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Dial: dialTo(upstream(t, test.upstream)), Compression: true}
			each(t, cfg, func(t *testing.T, f front) {
				f.Client().Transport.(*http.Transport).DisableCompression = true
				req := request(t, test.request[0], f.URL, nil)
				for i := 1; i < len(test.request); i += 2 {
					req.Header.Set(test.request[i], test.request[i+1])
				}
				res, err := f.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if got := res.Header.Get("Content-Encoding"); got != test.coding {
					t.Errorf("Content-Encoding %q, want %q", got, test.coding)
				}
				if got := strings.Join(res.Header["Vary"], "|"); got != test.vary {
					t.Errorf("Vary %q, want %q", got, test.vary)
				}
				for i := 0; i < len(test.more); i += 2 {
					if got := res.Header.Get(test.more[i]); got != test.more[i+1] {
						t.Errorf("%s %q, want %q", test.more[i], got, test.more[i+1])
					}
				}
				body, err := io.ReadAll(decoder(t, res.Header.Get("Content-Encoding"), res.Body))
				if err != nil {
					t.Fatal(err)
				}
				if empty := test.request[0] == "HEAD" || res.StatusCode == 204 || res.StatusCode == 304; empty != (len(body) == 0) ||
					!empty && string(body) != longText && string(body) != "short" {
					t.Errorf("a body of %d bytes", len(body))
				}
			})
		})
	}
	t.Run("off", func(t *testing.T) {
		f := serve(t, Config{Dial: dialTo(upstream(t, headers()))})
		req := request(t, "GET", f.URL, nil)
		req.Header.Set("Accept-Encoding", "gzip, zstd")
		if res, body := do(t, f, req); body != longText || res.Header.Get("Content-Encoding") != "" || res.Header.Get("Vary") != "" {
			t.Errorf("%v", res.Header)
		}
	})
}

// Each piece that the upstream flushes can be read before the next one is sent,
// and what HTTP has around a body stays: early hints, trailers.
func TestCompressedStream(t *testing.T) {
	next := make(chan string)
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("Trailer", "Checksum")
		w.(http.Flusher).Flush()
		for line := range next {
			if line == "" {
				break
			}
			io.WriteString(w, line)
			w.(http.Flusher).Flush()
		}
		w.Header().Set("Checksum", "42")
	})
	defer close(next)
	for _, coding := range []string{"gzip", "zstd"} {
		t.Run(coding, func(t *testing.T) {
			each(t, Config{Dial: dialTo(addr), Compression: true}, func(t *testing.T, f front) {
				hints := 0
				req := request(t, "GET", f.URL, nil)
				req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
					Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { hints = code; return nil },
				}))
				req.Header.Set("Accept-Encoding", coding)
				res, err := f.Client().Do(req)
				if err != nil {
					t.Fatal(err) // the header comes before the first piece
				}
				defer res.Body.Close()
				if hints != 103 || res.Header.Get("Content-Encoding") != coding {
					t.Errorf("%d, %v", hints, res.Header)
				}
				var br *bufio.Reader
				for i := range 20 {
					want := fmt.Sprintf("{\"n\":%d}\n", i)
					next <- want // only now: an encoder that waits for more blocks below
					if br == nil {
						br = bufio.NewReader(decoder(t, coding, res.Body))
					}
					got, err := br.ReadString('\n')
					if err != nil || got != want {
						t.Fatalf("%q, %v; want %q", got, err, want)
					}
				}
				next <- ""
				if _, err := br.ReadByte(); err != io.EOF {
					t.Errorf("end: %v", err)
				}
				io.Copy(io.Discard, res.Body)
				if res.Trailer.Get("Checksum") != "42" {
					t.Errorf("trailer %v", res.Trailer)
				}
			})
		})
	}
}

// An answer that breaks off does not look whole.
func TestCompressedAnswerBreaksOff(t *testing.T) {
	addr := rawUpstream(t, func(c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n%s", longText)
	})
	each(t, Config{Dial: dialTo(addr), Compression: true}, func(t *testing.T, f front) {
		req := request(t, "GET", f.URL, nil)
		req.Header.Set("Accept-Encoding", "zstd")
		res, err := f.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, err := io.ReadAll(decoder(t, "zstd", res.Body)); err == nil {
			t.Errorf("%d bytes and an end", len(b))
		}
	})
}

// A visitor that leaves in the middle frees the upstream and the encoder.
func TestCompressedVisitorLeaves(t *testing.T) {
	gone := make(chan struct{})
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, longText)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	})
	f := serveTLS(t, Config{Dial: dialTo(addr), Compression: true})
	ctx, cancel := context.WithCancel(t.Context())
	req := request(t, "GET", f.URL, nil).WithContext(ctx)
	req.Header.Set("Accept-Encoding", "gzip")
	res, err := f.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	cancel()
	receive(t, gone, "end at the upstream")
}
