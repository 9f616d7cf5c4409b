package inspect

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestHAR(t *testing.T) {
	s := newSite(t, Config{})
	s.visit(t, "GET", "/one?a=b%20c&d", "", "Cookie", "sid=topsecret; b=2")
	id := s.visit(t, "POST", "/echo", "\xff\x00", "Content-Type", "application/octet-stream")
	a, body := s.get(t, "/api/v1/har")
	if strings.Contains(body, "topsecret") || !strings.Contains(a.Header.Get("Content-Disposition"), ".har") {
		t.Error(body)
	}
	log := fromJSON[harFile](t, body).Log
	if log.Version != "1.2" || len(log.Entries) != 2 {
		t.Fatal(body)
	}
	e := log.Entries[0]
	if e.Request.URL != "https://app.example.com/one?a=b%20c&d" || fmt.Sprint(e.Request.Query) != "[{a b c} {d }]" ||
		fmt.Sprint(e.Request.Cookies) != "[{sid [masked]} {b [masked]}]" || e.Response.Content.Text != "hello /one" || e.Response.Status != 200 {
		t.Errorf("%+v", e)
	}
	if p := log.Entries[1].Request.PostData; p == nil || p.Text != "/wA=" || p.Comment != "base64" {
		t.Errorf("%+v", p)
	}
	if _, body := s.get(t, "/api/v1/har?id="+id); len(fromJSON[harFile](t, body).Log.Entries) != 1 {
		t.Error(body)
	}
	if a, _ := s.get(t, "/api/v1/har?id=x"); a.StatusCode != 404 {
		t.Error(a.Status)
	}
}

// TestCurl: the real curl, told by a real shell, sends what is shown.
func TestCurl(t *testing.T) {
	for _, tool := range []string{"curl", "sh", "base64"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("WGEXPOSE_REQUIRE_TOOLS") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	type got struct{ request, body string }
	seen := make(chan got, 1)
	app := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		seen <- got{fmt.Sprintf("%s %s %q %q %q", r.Method, r.RequestURI, r.Header.Get("X-Odd"), r.Header["X-Empty"], r.Header.Get("Content-Type")), string(b)}
	})
	i := open(t, Config{})
	c := through(t, i, app, Meta{PublicURL: app.URL})
	odd := `it's $HOME "quoted" \back !bang` + "`x`"
	for n, q := range []struct{ method, path, body string }{
		{"GET", "/a?b=c&d=%20", ""}, {"HEAD", "/", ""}, {"POST", "/p", odd + "\nsecond line"}, {"PUT", "/p", "@file"}, {"PATCH", "/p", "\x00\xff\x80"}, {"DELETE", "/d", ""}, {"GET", "/with", "a body"},
	} {
		fetch(t, c, q.method, app.URL+q.path, q.body, "X-Odd", odd, "X-Empty", "", "Content-Type", "text/x")
		want := <-seen
		await(t, i, "the exchange", func() bool { return len(i.List(Filter{Status: "done"})) == n+1 })
		script := i.curl(i.find(i.List(Filter{})[0].ID))
		out, err := exec.Command("sh", "-c", strings.Replace(script, "curl ", "curl --silent --show-error ", 1)).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v %s", script, err, out)
		}
		if got := <-seen; got != want {
			t.Errorf("%s\nsent %q\nwant %q", script, got, want)
		}
	}
}

// What a WebSocket carries are messages, and no body of the request.
func TestHAROfWebSocket(t *testing.T) {
	i := open(t, Config{})
	s := i.newSession(Meta{Tunnel: "app"}, nil)
	s.push(toUpstream, []byte(crlf("GET /ws HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: websocket\n\n")))
	s.push(toVisitor, []byte(crlf("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n")))
	s.push(toUpstream, []byte("\x81\x82\x00\x00\x00\x00hi"))
	s.drain()
	e := i.harEntry(i.ring.newest()[0])
	if len(e.Messages) != 1 || e.Request.PostData != nil {
		t.Errorf("%d messages, and a body %+v", len(e.Messages), e.Request.PostData)
	}
}
