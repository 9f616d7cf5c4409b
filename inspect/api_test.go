package inspect

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/meter"
)

// site is an inspector with traffic behind it, and its web side.
type site struct {
	*Inspector
	app    *httptest.Server
	client *http.Client // of the app, through taps
	web    *httptest.Server
}

func newSite(t testing.TB, cfg Config) *site {
	t.Helper()
	i := open(t, cfg)
	app := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Set-Cookie", "sid=topsecret; Path=/; Secure")
		if r.Header.Get("X-A") != "" {
			w.Header().Set("X-Seen", r.Method+" "+r.RequestURI+" "+r.Header.Get("Authorization")+" "+r.Header.Get("X-A"))
		}
		if r.URL.Path == "/echo" {
			w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
			_, _ = w.Write(b)
			return
		}
		fmt.Fprintf(w, "hello %s", r.URL.Path)
	})
	web := httptest.NewServer(i.Handler(func() Status {
		return Status{State: "online", Tunnels: []TunnelStatus{
			{Name: "app", PublicURL: "https://app.example.com", Kind: "http", Upstream: "http://127.0.0.1:8089", State: "up", Inspected: true, Conns: meter.Metrics{Count: 1, Gauge: 1}},
			{Name: "a b", PublicURL: "tcp://example.com:20022", Kind: "tcp", Upstream: "tcp://127.0.0.1:22", State: "up"},
		}, Links: []LinkStatus{{Edge: "203.0.113.7:51820", State: "up", Latency: 20}}}
	}))
	t.Cleanup(web.Close)
	t.Cleanup(web.Client().CloseIdleConnections)
	return &site{i, app, through(t, i, app, Meta{Tunnel: "app", PublicURL: "https://app.example.com", Upstream: "http://127.0.0.1:8089"}), web}
}

// visit passes a request and waits until it is shown. It returns its id.
func (s *site) visit(t testing.TB, method, path, body string, header ...string) string {
	t.Helper()
	before := len(s.List(Filter{Status: "done"}))
	fetch(t, s.client, method, s.app.URL+path, body, header...)
	await(t, s.Inspector, "the exchange", func() bool { return len(s.List(Filter{Status: "done"})) > before })
	return s.List(Filter{})[0].ID
}

func (s *site) get(t testing.TB, path string) (*http.Response, string) {
	t.Helper()
	return fetch(t, s.web.Client(), "GET", s.web.URL+path, "")
}

func (s *site) post(t testing.TB, path, body string) (*http.Response, string) {
	t.Helper()
	return fetch(t, s.web.Client(), "POST", s.web.URL+path, body, tokenHeader, s.token, "Content-Type", "application/json")
}

// TestNgrok: programs that read ngrok's local API find what they look for.
func TestNgrok(t *testing.T) {
	s := newSite(t, Config{Version: "1.2.3"})
	id := s.visit(t, "POST", "/echo?x=1", `{"a":1}`, "Content-Type", "application/json", "Authorization", "Bearer topsecret", "X-Forwarded-For", "198.51.100.9, 10.0.0.1")

	_, body := s.get(t, "/api/tunnels")
	tunnels := fromJSON[struct {
		Tunnels []struct {
			Name, Proto string
			PublicURL   string `json:"public_url"`
			Config      struct {
				Addr    string
				Inspect bool
			}
			Metrics struct {
				Conns struct{ Count, Gauge int }
				HTTP  struct {
					Count      int
					Rate1, P50 float64
				}
			}
		}
	}](t, body).Tunnels
	if len(tunnels) != 2 {
		t.Fatal(body)
	}
	if u := tunnels[0]; u.PublicURL != "https://app.example.com" || u.Proto != "https" || u.Config.Addr != "http://127.0.0.1:8089" || !u.Config.Inspect ||
		u.Metrics.Conns.Count != 1 || u.Metrics.Conns.Gauge != 1 || u.Metrics.HTTP.Count != 1 || u.Metrics.HTTP.P50 <= 0 || u.Metrics.HTTP.Rate1 <= 0 {
		t.Errorf("%+v", u)
	}
	if tunnels[1].Proto != "tcp" {
		t.Errorf("%+v", tunnels[1])
	}
	if a, body := s.get(t, "/api/tunnels/a%20b"); a.StatusCode != 200 || !strings.Contains(body, `"a b"`) {
		t.Errorf("%s: %s", a.Status, body)
	}
	if a, _ := s.get(t, "/api/tunnels/none"); a.StatusCode != 404 {
		t.Error(a.Status)
	}

	type message struct {
		Method, Proto, URI, Status string
		StatusCode                 int `json:"status_code"`
		Headers                    map[string][]string
		Raw                        []byte
	}
	type request struct {
		ID                string
		Tunnel            string `json:"tunnel_name"`
		Remote            string `json:"remote_addr"`
		Start             time.Time
		Duration          int64
		Request, Response message
	}
	_, body = s.get(t, "/api/requests/http?limit=10&tunnel_name=app")
	list := fromJSON[struct{ Requests []request }](t, body).Requests
	if len(list) != 1 {
		t.Fatal(body)
	}
	q := list[0]
	if q.ID != id || q.Tunnel != "app" || q.Remote != "198.51.100.9" || q.Duration <= 0 || time.Since(q.Start) > time.Hour ||
		q.Request.Method != "POST" || q.Request.URI != "/echo?x=1" || q.Request.Headers["Authorization"][0] != "Bearer [masked]" ||
		q.Response.Status != "200 OK" || q.Response.StatusCode != 200 || !strings.HasSuffix(string(q.Response.Raw), "\r\n\r\n{\"a\":1}") {
		t.Errorf("%+v", q)
	}
	if raw := string(q.Request.Raw); !strings.HasPrefix(raw, "POST /echo?x=1 HTTP/1.1\r\nHost: ") || !strings.HasSuffix(raw, "\r\n\r\n{\"a\":1}") || strings.Contains(raw, "topsecret") {
		t.Errorf("raw: %q", raw)
	}
	if _, body := s.get(t, "/api/requests/http?tunnel_name=other"); len(fromJSON[struct{ Requests []request }](t, body).Requests) != 0 {
		t.Error(body)
	}
	if _, body := s.get(t, "/api/requests/http/"+id); fromJSON[request](t, body).ID != id {
		t.Error(body)
	}
	if _, body := s.get(t, "/api/status"); !strings.Contains(body, `"status":"online"`) || !strings.Contains(body, `"latency":20000000`) {
		t.Error(body)
	}
	if _, body := s.get(t, "/api"); !strings.Contains(body, `"/api/tunnels"`) {
		t.Error(body)
	}

	// Such programs know of no token.
	program := func(method, body string, header ...string) int {
		a, _ := fetch(t, s.web.Client(), method, s.web.URL+"/api/requests/http", body, header...)
		return a.StatusCode
	}
	again := fmt.Sprintf(`{"id":%q}`, id)
	for _, c := range []struct {
		body string
		want int
		with []string
	}{
		{again, 204, []string{"Content-Type", "application/json"}},
		{fmt.Sprintf(`{"id":%q,"tunnel_name":"app"}`, id), 204, []string{"Content-Type", "application/json"}},
		{fmt.Sprintf(`{"id":%q,"tunnel_name":"a b"}`, id), 409, []string{"Content-Type", "application/json"}},
		{`{"id":"none"}`, 404, []string{"Content-Type", "application/json"}},
		{`{`, 400, []string{"Content-Type", "application/json"}},
		{again, 415, []string{"Content-Type", "text/plain"}},
		{again, 415, nil},
		{again, 403, []string{"Content-Type", "application/json", "Origin", s.web.URL}},
		{again, 204, []string{"Content-Type", "application/json", "Origin", s.web.URL, tokenHeader, s.token}},
	} {
		if got := program("POST", c.body, c.with...); got != c.want {
			t.Errorf("POST %s %v: %d; want %d", c.body, c.with, got, c.want)
		}
	}
	if got := program("DELETE", "", "Sec-Fetch-Site", "same-origin"); got != 403 {
		t.Errorf("DELETE by a browser without a token: %d", got)
	}
	if got := program("DELETE", ""); got != 204 {
		t.Errorf("DELETE: %d", got)
	}
	if n := len(s.List(Filter{Status: "done"})); n != 0 {
		t.Errorf("%d exchanges after DELETE", n)
	}
}

func TestFilters(t *testing.T) {
	s := newSite(t, Config{})
	s.visit(t, "GET", "/first?q=1", "")
	s.visit(t, "POST", "/echo", "needle in a body", "Content-Type", "text/plain", "Cookie", "sid=topsecret")
	for _, c := range []struct {
		query string
		want  string
	}{
		{"", "/echo /first?q=1"}, {"limit=1", "/echo"}, {"path=FIRST", "/first?q=1"}, {"method=post", "/echo"}, {"status=2xx&tunnel=app", "/echo /first?q=1"},
		{"status=200", "/echo /first?q=1"}, {"status=404", ""}, {"status=done", "/echo /first?q=1"}, {"status=failed", ""}, {"tunnel=b", ""}, {"min_ms=60000", ""}, {"max_ms=60000", "/echo /first?q=1"},
		{"q=NEEDLE", "/echo"}, {"q=hello", "/first?q=1"}, {"q=sid=", "/echo /first?q=1"}, {"q=topsecret", ""},
	} {
		_, body := s.get(t, "/api/v1/requests?"+c.query)
		var paths []string
		for _, x := range fromJSON[listReply](t, body).Requests {
			paths = append(paths, x.Path)
		}
		if got := strings.Join(paths, " "); got != c.want {
			t.Errorf("%s: %q; want %q", c.query, got, c.want)
		}
	}
	for _, bad := range []string{"limit=0", "limit=x", "min_ms=-1", "max_ms=NaN", "min_ms=1e99"} {
		for _, path := range []string{"/api/v1/requests?", "/api/v1/har?"} {
			if a, _ := s.get(t, path+bad); a.StatusCode != 400 {
				t.Errorf("%s: %s", bad, a.Status)
			}
		}
	}
}

// TestEvents: the stream tells of new, changed and cleared exchanges, and ends
// with the server.
func TestEvents(t *testing.T) {
	i := open(t, Config{})
	app := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {})
	ctx, cancel := context.WithCancel(t.Context())
	l, err := Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- i.Serve(ctx, l, nil) }()
	a, err := http.Get("http://" + l.Addr().String() + "/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	lines := bufio.NewScanner(a.Body)
	next := func(name string) string {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == "event: "+name {
				lines.Scan()
				return strings.TrimPrefix(lines.Text(), "data: ")
			}
		}
		t.Fatalf("no %s: %v", name, lines.Err())
		return ""
	}
	lines.Scan() // connected: what happens from here on is told
	fetch(t, through(t, i, app, Meta{}), "GET", app.URL+"/live", "")
	for {
		list := fromJSON[[]Summary](t, next("requests"))
		if list[0].Path != "/live" {
			t.Fatalf("%+v", list)
		}
		if list[0].State == StateDone {
			break
		}
	}
	i.Clear()
	next("cleared")
	cancel()
	for lines.Scan() {
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestWatcher: a watcher that does not take is told to begin anew.
func TestWatcher(t *testing.T) {
	i := open(t, Config{})
	w := i.Watch()
	defer w.Close()
	for n := range uint64(maxDirty + 1) {
		i.watchers.changed(n)
	}
	if n := w.Take(); !n.Missed || len(n.Exchanges) != 0 {
		t.Errorf("%+v", n)
	}
	if n := w.Take(); n.Missed || n.Cleared {
		t.Errorf("%+v", n)
	}
}
