package edge

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/proxy"
)

// seen is what reached an upstream, one line for each request.
type seen struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (s *seen) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.lines = append(s.lines, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header().Set("Seen-Length", fmt.Sprint(len(body)))
}

func (s *seen) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := s.lines
	s.lines = nil
	return lines
}

// Whatever two programs could read as different requests is refused and reaches
// no upstream. smuggled is what an attacker would hide in it.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: app.edge.test\r\n\r\n"

const host = "Host: app.edge.test\r\n"

func TestSmuggling(t *testing.T) {
	r := newRig(t, nil)
	var upstream seen
	r.upstream(1, upstream.serve)
	r.apply(httpEntry(1, "app.edge.test"))
	post := "POST /first HTTP/1.1\r\n" + host
	n := 0
	for name, test := range map[string]struct {
		sent   string
		status int  // of the first answer
		begun  bool // the head was good: the request has reached the upstream, and breaks off there
	}{
		"CL.TE":                    {post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 400, false},
		"TE.CL":                    {post + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + smuggled + "0\r\n\r\n", 400, false},
		"TE.TE, twice":             {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled, 400, false},
		"TE.TE, same twice":        {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 400, false},
		"TE.TE, list":              {post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + smuggled, 400, false},
		"TE.TE, unknown":           {post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled, 400, false},
		"TE, blank before colon":   {post + "Transfer-Encoding : chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + smuggled, 400, false},
		"TE, vertical tab":         {post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + smuggled, 400, false},
		"TE, folded":               {post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + smuggled, 400, false},
		"TE, behind a blank":       {post + " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 400, false},
		"TE, behind a lone CR":     {post + "X: y\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n" + smuggled, 400, false},
		"TE in HTTP/1.0":           {"POST /first HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 400, false},
		"empty TE":                 {post + "Transfer-Encoding:\r\nContent-Length: 0\r\n\r\n" + smuggled, 400, false},
		"two lengths":              {post + "Content-Length: 0\r\nContent-Length: 49\r\n\r\n" + smuggled, 400, false},
		"the same length twice":    {post + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + smuggled, 400, false},
		"list of lengths":          {post + "Content-Length: 0, 0\r\n\r\n" + smuggled, 400, false},
		"length with a sign":       {post + "Content-Length: +0\r\n\r\n" + smuggled, 400, false},
		"negative length":          {post + "Content-Length: -1\r\n\r\n" + smuggled, 400, false},
		"length in hex":            {post + "Content-Length: 0x0\r\n\r\n" + smuggled, 400, false},
		"length beyond any":        {post + "Content-Length: 18446744073709551616\r\n\r\n" + smuggled, 400, false},
		"length with blanks":       {post + "Content-Length: 0 0\r\n\r\n" + smuggled, 400, false},
		"empty length":             {post + "Content-Length:\r\n\r\n" + smuggled, 400, false},
		"bare LF in the head":      {"POST /first HTTP/1.1\r\n" + host + "X: y\nContent-Length: 0\r\n\r\n" + smuggled, 400, false},
		"bare LF, request line":    {"POST /first HTTP/1.1\n" + host + "Content-Length: 0\r\n\r\n" + smuggled, 400, false},
		"bare LF ends the head":    {post + "Content-Length: 0\r\n\n" + smuggled, 400, false},
		"two bare LFs end it":      {post + "Content-Length: 0\n\n" + smuggled, 400, false},
		"obs-fold":                 {post + "X: y\r\n z\r\nContent-Length: 0\r\n\r\n" + smuggled, 400, false},
		"obs-fold with a tab":      {post + "X: y\r\n\tz\r\nContent-Length: 0\r\n\r\n" + smuggled, 400, false},
		"NUL in a value":           {post + "X: y\x00z\r\nContent-Length: 0\r\n\r\n" + smuggled, 400, false},
		"field without a colon":    {post + "X\r\nContent-Length: 0\r\n\r\n" + smuggled, 400, false},
		"field without a name":     {post + ": y\r\nContent-Length: 0\r\n\r\n" + smuggled, 400, false},
		"blanks in the line":       {"GET  /first HTTP/1.1\r\n" + host + "\r\n" + smuggled, 400, false},
		"more in the line":         {"GET /first x HTTP/1.1\r\n" + host + "\r\n" + smuggled, 400, false},
		"HTTP/1.2 and TE":          {"POST /first HTTP/1.2\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 400, false},
		"HTTP/2 preface":           {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + smuggled, 400, false},
		"no Host":                  {"GET /first HTTP/1.1\r\n\r\n" + smuggled, 400, false},
		"two Hosts":                {"GET /first HTTP/1.1\r\n" + host + "Host: b.edge.test\r\n\r\n" + smuggled, 400, false},
		"Host with a path":         {"GET /first HTTP/1.1\r\nHost: app.edge.test/x\r\nConnection: close\r\n\r\n", 400, false},
		"Host with a user":         {"GET /first HTTP/1.1\r\nHost: a@app.edge.test\r\nConnection: close\r\n\r\n", 400, false},
		"Host with a blank":        {"GET /first HTTP/1.1\r\nHost: app.edge.test x\r\nConnection: close\r\n\r\n", 400, false},
		"Host with a bad port":     {"GET /first HTTP/1.1\r\nHost: app.edge.test:80:90\r\nConnection: close\r\n\r\n", 400, false},
		"empty Host":               {"GET /first HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", 400, false},
		"chunk with a bare LF":     {post + "Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n" + smuggled, 400, true},
		"chunk extension with LF":  {post + "Transfer-Encoding: chunked\r\n\r\n1;a\nx\r\n0\r\n\r\n" + smuggled, 400, true},
		"chunk extension with CR":  {post + "Transfer-Encoding: chunked\r\n\r\n1;a\rb\r\nx\r\n0\r\n\r\n" + smuggled, 400, true},
		"chunk in 0x":              {post + "Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n" + smuggled, 400, true},
		"negative chunk":           {post + "Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n" + smuggled, 400, true},
		"chunk that wraps around":  {post + "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx\r\n0\r\n\r\n" + smuggled, 400, true},
		"chunk longer than it is":  {post + "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n" + smuggled, 400, true},
		"no chunk":                 {post + "Transfer-Encoding: chunked\r\n\r\n" + smuggled, 400, true},
		"trailer with a bare LF":   {post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n" + smuggled, 400, true},
		"trailer, folded":          {post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n z\r\n\r\n" + smuggled, 400, true},
		"body ends with a bare LF": {post + "Transfer-Encoding: chunked\r\n\r\n0\r\n\n" + smuggled, 400, true},
		"upgrade that is refused":  {"GET /first HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: nothing\r\n\r\n" + smuggled, 200, true},
		"upgrade to h2c":           {"GET /first HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n" + smuggled, 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			n++
			path := fmt.Sprint("/", n) // what breaks off may arrive later than it ended
			conn := r.dialTLS("app.edge.test", "http/1.1")
			io.WriteString(conn, strings.Replace(test.sent, "/first", path, 1))
			answers, err := io.ReadAll(conn)
			if err != nil {
				t.Fatalf("%v after %q", err, answers)
			}
			br := bufio.NewReader(bytes.NewReader(answers))
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatalf("%v in %q", err, answers)
			}
			if res.StatusCode != test.status {
				t.Errorf("%s", res.Status)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Error(err)
			}
			if rest, _ := io.ReadAll(br); len(rest) > 0 {
				t.Errorf("a second answer: %q", rest)
			}
			for _, line := range upstream.take() {
				if strings.HasSuffix(line, "/smuggled") || !test.begun && strings.HasSuffix(line, " "+path) {
					t.Errorf("the upstream saw %s", line)
				}
			}
		})
	}
	// The same means show what is allowed, or they would show nothing above.
	for name, sent := range map[string]string{
		"length": post + "Content-Length: 3\r\n\r\nabc" + smuggled,
		"chunks": post + "Transfer-Encoding: chunked\r\n\r\n1;a=b\r\na\r\n2\r\nbc\r\n0\r\nX: y\r\n\r\n" + smuggled,
	} {
		t.Run("good/"+name, func(t *testing.T) {
			conn := r.dialTLS("app.edge.test", "http/1.1")
			sent = strings.Replace(sent, "/first", "/good", 1)
			for i := range sent { // byte by byte: no decision hangs on how it is cut
				io.WriteString(conn, sent[i:i+1])
			}
			br := bufio.NewReader(conn)
			for i, length := range []string{"3", "0"} {
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				if res.StatusCode != 200 || res.Header.Get("Seen-Length") != length {
					t.Errorf("answer %d: %s, %s bytes arrived", i, res.Status, res.Header.Get("Seen-Length"))
				}
			}
			got := slices.DeleteFunc(upstream.take(), func(line string) bool {
				return !strings.HasSuffix(line, "/good") && !strings.HasSuffix(line, "/smuggled")
			})
			if fmt.Sprint(got) != "[POST /good GET /smuggled]" {
				t.Errorf("the upstream saw %s", got)
			}
		})
	}
}

// The plain port is as strict.
func TestSmugglingOnThePlainPort(t *testing.T) {
	r := newRig(t, nil)
	conn, err := leadTo(r.cfg.HTTP.Addr())(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "POST / HTTP/1.1\r\n"+host+"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+smuggled)
	if b, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") || strings.Count(string(b), "HTTP/1.1 ") != 1 {
		t.Errorf("%q %v", b, err)
	}
}

func TestTooLargeHeader(t *testing.T) {
	r := newRig(t, nil)
	var upstream seen
	r.upstream(1, upstream.serve)
	r.apply(httpEntry(1, "app.edge.test"))
	large := strings.Repeat("x", proxy.MaxHeader)
	for name, head := range map[string]string{
		"one field": "GET / HTTP/1.1\r\n" + host + "X: " + large + large + "\r\n\r\n",
		"many":      "GET / HTTP/1.1\r\n" + host + strings.Repeat("X: "+large[:1000]+"\r\n", 140) + "\r\n",
		"the path":  "GET /" + large + large + " HTTP/1.1\r\n" + host + "\r\n",
	} {
		conn := r.dialTLS("app.edge.test", "http/1.1")
		go io.WriteString(conn, head) // the answer may come before all of it is taken
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %v %v", name, res, err)
		}
		conn.Close()
	}
	req := r.request("GET", "https://app.edge.test/", nil)
	req.Header.Set("X", large+large)
	if res, err := r.client(nil).Do(req); err == nil {
		res.Body.Close()
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("HTTP/2: %s", res.Status)
		}
	}
	req.Header.Set("X", large[:proxy.MaxHeader-4096])
	if res, _ := r.do(r.client(nil), req); res.StatusCode != 200 {
		t.Errorf("a header within the limit: %s", res.Status)
	}
	if got := upstream.take(); len(got) != 1 {
		t.Errorf("the upstream saw %v", got)
	}
}

// A header that does not come to its end is cut off.
func TestSlowHeader(t *testing.T) {
	r := newRig(t, func(r *rig) { r.limits.header = 200 * time.Millisecond })
	for _, sent := range []string{"", "GET", "GET / HTTP/1.1\r\nX: y"} {
		conn := r.dialTLS("app.edge.test", "http/1.1")
		io.WriteString(conn, sent)
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: still there", sent)
		}
	}
}

// So is a body, and the visitor reads why.
func TestSlowBody(t *testing.T) {
	arrived := make(chan error, 1)
	start := func(t *testing.T, change func(*rig)) *rig {
		r := newRig(t, change)
		r.upstream(1, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			arrived <- err
		})
		r.apply(httpEntry(1, "app.edge.test"))
		return r
	}
	for name, head := range map[string]string{
		"length": "Content-Length: 100\r\n\r\nabc",
		"chunks": "Transfer-Encoding: chunked\r\n\r\n64\r\nabc",
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, func(r *rig) { r.limits.body, r.limits.stream = 100*time.Millisecond, 100*time.Millisecond })
			conn := r.dialTLS("app.edge.test", "http/1.1")
			io.WriteString(conn, "POST / HTTP/1.1\r\n"+host+head)
			b, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 408 ") || !strings.Contains(string(b), "Wgexpose-Error: slow_request\r\n") {
				t.Errorf("%q %v", b, err)
			}
			if await(t, arrived, "end at the upstream") == nil {
				t.Error("the upstream took the upload for whole")
			}
		})
	}
	t.Run("HTTP/2", func(t *testing.T) {
		r := start(t, func(r *rig) { r.limits.stream = 100 * time.Millisecond })
		pr, pw := io.Pipe()
		defer pw.Close()
		res, body := r.do(r.client(nil), r.request("POST", "https://app.edge.test/", pr))
		if res.StatusCode != 408 || !strings.Contains(body, "too slowly") {
			t.Errorf("%s %q", res.Status, body)
		}
		if await(t, arrived, "end at the upstream") == nil {
			t.Error("the upstream took the upload for whole")
		}
	})
}
