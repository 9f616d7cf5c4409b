package inspect

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
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
			{Name: "app", PublicURL: "https://app.example.com", Kind: "http", Upstream: "http://127.0.0.1:8089", State: "up", Inspected: true},
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

// TestReplay: the upstream sees the same request again, or the changed one.
func TestReplay(t *testing.T) {
	s := newSite(t, Config{})
	id := s.visit(t, "POST", "/echo", "abc", "Content-Type", "text/plain", "Authorization", "Bearer topsecret", "X-A", "1", "Expect", "100-continue", "Connection", "X-Hop", "X-Hop", "1")
	finished := func(body string) Detail {
		t.Helper()
		id := fromJSON[replayReply](t, body).ID
		var d Detail
		await(t, s.Inspector, "the replay", func() bool {
			x := s.find(id)
			if x != nil {
				d = s.detail(x)
			}
			return d.State == StateDone
		})
		return d
	}
	seen := func(d Detail) string {
		for _, f := range d.Response.Headers {
			if f.Name == "X-Seen" {
				return f.Value
			}
		}
		return ""
	}
	path := "/api/v1/requests/" + id + "/replay"

	a, body := s.post(t, path, "")
	if a.StatusCode != 201 {
		t.Fatal(a.Status, body)
	}
	d := finished(body)
	if seen(d) != "POST /echo Bearer topsecret 1" || d.ReplayOf != id || d.ResponseBytes != 3 || d.Tunnel != "app" {
		t.Errorf("seen %q, %+v", seen(d), d.Summary)
	}
	for _, f := range d.Request.Headers {
		if f.Name == "Expect" || f.Name == "X-Hop" {
			t.Errorf("%s was sent again", f.Name)
		}
	}

	_, body = s.post(t, path, `{"method":"PUT","path":"/echo?y=2","headers":[{"name":"authorization","value":"Bearer [masked]"},{"name":"X-A","value":"[masked]"},{"name":"Content-Length","value":"99"}],"body":"changed!"}`)
	if d := finished(body); seen(d) != "PUT /echo?y=2 Bearer topsecret [masked]" || d.ResponseBytes != 8 {
		t.Errorf("seen %q, %+v", seen(d), d.Summary)
	}
	_, body = s.post(t, path, `{"body_base64":"/wA="}`)
	if d := finished(body); d.RequestBytes != 2 || d.ResponseBytes != 2 {
		t.Errorf("%+v", d.Summary)
	}
	for _, c := range []struct {
		path, body string
		want       int
	}{
		{path, `{"path":"/a b"}`, 400}, {path, `{"path":""}`, 400}, {path, `{"method":"G T"}`, 400}, {path, `{"method":"CONNECT"}`, 400},
		{path, `{"headers":[{"name":"A","value":"b\r\nC: d"}]}`, 400}, {path, `{"headers":[{"name":"A b","value":""}]}`, 400}, {path, `[]`, 400},
		{"/api/v1/requests/0000000000000001/replay", ``, 404}, {"/api/v1/requests/x/replay", ``, 404},
	} {
		if a, body := s.post(t, c.path, c.body); a.StatusCode != c.want {
			t.Errorf("%s: %s %s; want %d", c.body, a.Status, body, c.want)
		}
	}
	s.app.Close()
	if a, body := s.post(t, path, ""); a.StatusCode != 502 || !strings.Contains(body, "cannot be reached") {
		t.Errorf("%s %s", a.Status, body)
	}
}

// TestReplayRefused: what is not there cannot be sent.
func TestReplayRefused(t *testing.T) {
	i := open(t, Config{BodyLimit: 2})
	s := i.newSession(Meta{}, redialOf(upstreamOf(t, func(http.ResponseWriter, *http.Request) {})))
	say := func(u ...turn) {
		for _, u := range u {
			s.parse(&chunk{dir: u.dir, at: time.Now(), data: []byte(u.text)})
		}
		s.flush()
	}
	newest := func() string { return i.List(Filter{})[0].ID }
	say(req("POST / HTTP/1.1\nHost: h\nContent-Length: 5\n\n"))
	if _, err := i.Replay(t.Context(), newest(), Changes{}); err != ErrUnderWay {
		t.Errorf("under way: %v", err)
	}
	say(req("12345"), ans(ok))
	if _, err := i.Replay(t.Context(), newest(), Changes{}); err != ErrNotWhole {
		t.Errorf("cut: %v", err)
	}
	whole := []byte("12345")
	if _, err := i.Replay(t.Context(), newest(), Changes{Body: &whole}); err != nil {
		t.Errorf("cut, with a body: %v", err)
	}
	say(req(ws), ans(wsOK))
	for _, x := range i.List(Filter{}) {
		if x.Kind == KindWebSocket {
			if _, err := i.Replay(t.Context(), x.ID, Changes{}); err != ErrUpgraded || x.CanReplay {
				t.Errorf("upgraded: %v, %v", err, x.CanReplay)
			}
		}
	}
	talk(i, []turn{req(get), ans(ok)}, visitorEnds, nil)
	if _, err := i.Replay(t.Context(), newest(), Changes{}); err != ErrNoRedial {
		t.Errorf("no redial: %v", err)
	}
	talk(i, []turn{req("\x00\n")}, visitorEnds, nil)
	if _, err := i.Replay(t.Context(), newest(), Changes{}); err != ErrOpaque {
		t.Errorf("opaque: %v", err)
	}
}

// TestReplayBounds: replays of an upstream that says nothing are bounded in
// number, and end with the inspector.
func TestReplayBounds(t *testing.T) {
	i := New(Config{})
	silent := make(chan struct{})
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-First") == "" {
			select {
			case <-silent:
			case <-r.Context().Done():
			}
		}
	}))
	defer app.Close()
	defer close(silent)
	c := through(t, i, app, Meta{})
	fetch(t, c, "GET", app.URL, "", "X-First", "1")
	await(t, i, "the exchange", func() bool { return len(i.List(Filter{Status: "done"})) == 1 })
	id := i.List(Filter{})[0].ID
	none := []Field{}
	for range maxReplays {
		if _, err := i.Replay(t.Context(), id, Changes{Headers: &none}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := i.Replay(t.Context(), id, Changes{Headers: &none}); err != ErrBusy {
		t.Errorf("one too many: %v", err)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	if _, err := i.Replay(t.Context(), id, Changes{Headers: &none}); err != ErrClosed {
		t.Errorf("after Close: %v", err)
	}
}

// TestBodies: bodies are served so that they do nothing in our origin.
func TestBodies(t *testing.T) {
	s := newSite(t, Config{BodyLimit: 64})
	for _, c := range []struct{ sent, served, disposition string }{
		{"text/html", "application/octet-stream", "attachment"}, {"image/png", "image/png", ""}, {"image/svg+xml; x=y", "image/svg+xml", ""},
		{"text/javascript", "application/octet-stream", "attachment"}, {"", "application/octet-stream", "attachment"},
	} {
		id := s.visit(t, "POST", "/echo", "<script>", "Content-Type", c.sent)
		a, body := s.get(t, "/api/v1/requests/"+id+"/request/body")
		disposition, _, _ := mime.ParseMediaType(a.Header.Get("Content-Disposition"))
		if body != "<script>" || a.Header.Get("Content-Type") != c.served || disposition != c.disposition ||
			a.Header.Get("Content-Security-Policy") != "default-src 'none'; sandbox" || a.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %q %v", c.sent, body, a.Header)
		}
	}
	id := s.visit(t, "POST", "/echo", strings.Repeat("x", 100))
	if a, body := s.get(t, "/api/v1/requests/"+id+"/request/body"); len(body) != 64 || a.Header.Get(cutHeader) != "1" {
		t.Errorf("%d bytes, %v", len(body), a.Header)
	}
	if a, _ := s.get(t, "/api/v1/requests/"+id+"/other/body"); a.StatusCode != 404 {
		t.Error(a.Status)
	}
	if a, body := s.get(t, "/api/v1/requests/"+id+"/request/parts"); a.StatusCode != 409 {
		t.Error(a.Status, body)
	}
	id = s.visit(t, "POST", "/echo", "--b\r\nContent-Disposition: form-data; name=n\r\n\r\nv\r\n--b\r\nContent", "Content-Type", "multipart/form-data; boundary=b")
	_, body := s.get(t, "/api/v1/requests/"+id+"/request/parts")
	if p := fromJSON[partsReply](t, body); len(p.Parts) != 1 || p.Parts[0].Name != "n" || p.Parts[0].Text != "v" || !p.Cut {
		t.Error(body)
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

// TestGuard: what browsers send on behalf of others is refused.
func TestGuard(t *testing.T) {
	s := newSite(t, Config{Hosts: []string{"Box.lan", "192.0.2.5"}})
	any := open(t, Config{Hosts: []string{"0.0.0.0"}}).Handler(nil)
	id := s.visit(t, "GET", "/", "")
	h := s.Handler(nil)
	do := func(h http.Handler, method, path, host string, header ...string) int {
		q := httptest.NewRequest(method, path, nil)
		q.Host = host
		for n := 0; n+1 < len(header); n += 2 {
			q.Header.Set(header[n], header[n+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, q)
		return w.Code
	}
	for host, want := range map[string]int{
		"localhost": 200, "localhost:4040": 200, "LOCALHOST.:1": 200, "127.0.0.1:4040": 200, "127.1.2.3": 200, "[::1]:4040": 200, "[::1]": 200, "box.lan:4040": 200, "192.0.2.5": 200,
		"evil.example": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example": 421, "192.0.2.6": 421, "": 421, "[::2]:1": 421, "localhost:1:2": 421, "app.localhost": 421,
	} {
		for _, path := range []string{"/", "/app.js", "/api/requests/http", "/api/v1/events?", "/api/v1/session"} {
			if strings.HasSuffix(path, "?") && want == 200 {
				continue // it does not end
			}
			if got := do(h, "GET", path, host); got != want {
				t.Errorf("%s with host %q: %d; want %d", path, host, got, want)
			}
		}
	}
	if a, b := do(any, "GET", "/", "198.51.100.1:4040"), do(any, "GET", "/", "evil.example"); a != 200 || b != 421 {
		t.Errorf("on all addresses: %d, %d", a, b)
	}
	const here = "localhost:4040"
	for _, c := range []struct {
		method, path string
		header       []string
		want         int
	}{
		{"GET", "/api/v1/requests", []string{"Origin", "http://localhost:4040"}, 200},
		{"GET", "/api/v1/requests", []string{"Origin", "http://localhost:5000"}, 403},
		{"GET", "/api/v1/requests", []string{"Origin", "null"}, 403},
		{"GET", "/api/v1/requests", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"GET", "/api/v1/requests", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate"}, 403},
		{"GET", "/api/v1/requests", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"GET", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 200},
		{"GET", "/app.js", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		{"DELETE", "/api/v1/requests", nil, 403},
		{"DELETE", "/api/v1/requests", []string{tokenHeader, "wrong"}, 403},
		{"DELETE", "/api/v1/requests", []string{tokenHeader, s.token, "Origin", "http://evil.example"}, 403},
		{"POST", "/api/v1/requests/" + id + "/replay", nil, 403},
		{"POST", "/", []string{tokenHeader, s.token}, 405},
		{"GET", "/none", nil, 404},
		{"GET", "/api/none", nil, 404},
		{"DELETE", "/api/v1/requests", []string{tokenHeader, s.token}, 204},
	} {
		if got := do(h, c.method, c.path, here, c.header...); got != c.want {
			t.Errorf("%s %s %v: %d; want %d", c.method, c.path, c.header, got, c.want)
		}
	}
	a, _ := s.get(t, "/")
	csp := a.Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Error(csp)
	}
}

// TestAssets: the page is whole, and asks nobody else for anything.
func TestAssets(t *testing.T) {
	s := newSite(t, Config{})
	files, err := assets.ReadDir("web")
	if err != nil || len(files) != len(pages) {
		t.Errorf("%d files, %d are served (%v)", len(files), len(pages), err)
	}
	for _, p := range pages {
		a, body := s.get(t, strings.TrimSuffix(p.path, "{$}"))
		if a.StatusCode != 200 || a.Header.Get("Content-Type") != p.media || body == "" {
			t.Errorf("%s: %s, %s", p.path, a.Status, a.Header.Get("Content-Type"))
		}
		if p.file != "icon.svg" {
			if found := regexp.MustCompile(`(?i)https?://\w|innerHTML|insertAdjacentHTML|document\.write|\beval\(|style=| on[a-z]+="`).FindString(strings.ReplaceAll(body, "'http://www.w3.org/2000/svg'", "")); found != "" {
				t.Errorf("%s has %q", p.file, found)
			}
		}
	}
	s.web.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for path, want := range map[string]string{"/inspect/http": "/", "/status": "/#/status"} {
		if a, _ := s.get(t, path); a.Header.Get("Location") != want {
			t.Errorf("%s leads to %q", path, a.Header.Get("Location"))
		}
	}
}

// TestOpenAPI: the document lists what is served, and what is served is as
// the document says.
func TestOpenAPI(t *testing.T) {
	s := newSite(t, Config{Version: "1.2.3"})
	id := s.visit(t, "POST", "/echo", "--b\r\nContent-Disposition: form-data; name=n\r\n\r\nv\r\n--b--\r\n", "Content-Type", "multipart/form-data; boundary=b")
	_, body := s.get(t, "/api/v1/openapi.json")
	type schema map[string]any
	doc := fromJSON[struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Summary   string
			Security  []any
			Responses map[string]struct {
				Content map[string]struct{ Schema schema }
			}
		}
		Components struct{ Schemas map[string]schema }
	}](t, body)
	if doc.OpenAPI != "3.1.0" {
		t.Error(doc.OpenAPI)
	}
	var check func(where string, sc schema, v any)
	check = func(where string, sc schema, v any) {
		if ref, ok := sc["$ref"].(string); ok {
			sc = doc.Components.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")]
			if sc == nil {
				t.Errorf("%s: %s is not defined", where, ref)
				return
			}
		}
		switch v := v.(type) {
		case map[string]any:
			if sc["type"] != "object" {
				t.Errorf("%s: an object; the document says %v", where, sc["type"])
			}
			properties, closed := sc["properties"].(map[string]any)
			for name, field := range v {
				if p, ok := properties[name].(map[string]any); ok {
					check(where+"."+name, p, field)
				} else if closed {
					t.Errorf("%s.%s is not in the document", where, name)
				}
			}
			required, _ := sc["required"].([]any)
			for _, name := range required {
				if _, ok := v[name.(string)]; !ok {
					t.Errorf("%s has no %v", where, name)
				}
			}
		case []any:
			if sc["type"] != "array" {
				t.Errorf("%s: an array; the document says %v", where, sc["type"])
				return
			}
			for _, e := range v {
				check(where+"[]", sc["items"].(map[string]any), e)
			}
		case string:
			if sc["type"] != "string" {
				t.Errorf("%s: a string; the document says %v", where, sc["type"])
			}
		case float64:
			if sc["type"] != "number" && sc["type"] != "integer" {
				t.Errorf("%s: a number; the document says %v", where, sc["type"])
			}
		case bool:
			if sc["type"] != "boolean" {
				t.Errorf("%s: a boolean; the document says %v", where, sc["type"])
			}
		case nil:
			t.Errorf("%s is null", where)
		}
	}
	routes := (&server{s.Inspector, nil}).routes()
	count := 0
	for _, r := range routes {
		op, ok := doc.Paths[r.path][strings.ToLower(r.method)]
		if !ok || op.Summary == "" {
			t.Errorf("%s %s is not in the document", r.method, r.path)
		}
		if (len(op.Security) > 0) != r.token {
			t.Errorf("%s %s: security %v", r.method, r.path, op.Security)
		}
		if r.method != "GET" || r.path == "/api/v1/events" {
			continue
		}
		path := strings.NewReplacer("{id}", id, "{side}", "request", "{name}", "app").Replace(r.path)
		a, body := s.get(t, path)
		if a.StatusCode != 200 {
			t.Errorf("GET %s: %s %s", path, a.Status, body)
			continue
		}
		for media, content := range op.Responses["200"].Content {
			if got := a.Header.Get("Content-Type"); got != media {
				t.Errorf("GET %s is %s; the document says %s", path, got, media)
			}
			if media == "application/json" && r.answer != nil {
				check(path, content.Schema, fromJSON[any](t, body))
				count++
			}
		}
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			if !slices.ContainsFunc(routes, func(r route) bool { return r.path == path && strings.EqualFold(r.method, method) }) {
				t.Errorf("%s %s is in the document and not served", method, path)
			}
		}
	}
	if count < 10 {
		t.Errorf("only %d answers were compared", count)
	}
}

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

func TestMask(t *testing.T) {
	for _, c := range [][3]string{
		{"Authorization", "Bearer abc", "Bearer [masked]"}, {"authorization", "abc", "[masked]"}, {"Proxy-Authorization", "Basic eA==", "Basic [masked]"},
		{"Cookie", "a=b; c=d=e; f", "a=[masked]; c=[masked];[masked]"}, {"Set-Cookie", "a=b; Path=/; HttpOnly", "a=[masked]; Path=/; HttpOnly"}, {"Set-Cookie", "a", "[masked]"},
		{"X-API-Key", "k", "[masked]"}, {"X-Api-Key", "", ""}, {"Accept", "x", "x"}, {"WWW-Authenticate", "Basic realm=x", "Basic realm=x"},
	} {
		if got := masked(c[0], c[1]); got != c[2] {
			t.Errorf("%s: %s is shown as %q; want %q", c[0], c[1], got, c[2])
		}
	}
	original := fields{{"Cookie", "a=1"}, {"Cookie", "a=2"}, {"X-A", "secret"}, {"Authorization", "Bearer x"}}
	got := unmask([]Field{{"cookie", "a=[masked]"}, {"Cookie", "a=[masked]"}, {"Cookie", "a=[masked]"}, {"X-A", "[masked]"}, {"X-B", "Bearer [masked]"}, {"Authorization", "Basic [masked]"}, {"Authorization", "Bearer [masked]"}}, original)
	want := []Field{{"cookie", "a=1"}, {"Cookie", "a=2"}, {"Cookie", "a=[masked]"}, {"X-A", "[masked]"}, {"X-B", "Bearer [masked]"}, {"Authorization", "Basic [masked]"}, {"Authorization", "Bearer x"}}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// TestNoSecretLeaves: no call tells a secret, except where it was asked for.
func TestNoSecretLeaves(t *testing.T) {
	for _, unmask := range []bool{false, true} {
		s := newSite(t, Config{Unmask: unmask})
		id := s.visit(t, "GET", "/x", "", "Authorization", "Bearer topsecret", "Cookie", "a=topsecret", "X-Api-Key", "topsecret")
		for _, r := range (&server{s.Inspector, nil}).routes() {
			if r.method != "GET" || r.path == "/api/v1/events" || r.path == "/api/v1/session" {
				continue
			}
			_, body := s.get(t, strings.NewReplacer("{id}", id, "{side}", "request", "{name}", "app").Replace(r.path))
			for _, m := range regexp.MustCompile(`"raw":"([^"]+)"`).FindAllStringSubmatch(body, -1) {
				raw, err := base64.StdEncoding.DecodeString(m[1])
				if err != nil {
					t.Error(err)
				}
				body += string(raw)
			}
			shows := map[string]bool{"/api/requests/http": true, "/api/requests/http/{id}": true, "/api/v1/requests/{id}": true, "/api/v1/requests/{id}/curl": true, "/api/v1/har": true}[r.path]
			if got := strings.Contains(body, "topsecret"); got != (unmask && shows) {
				t.Errorf("unmask %v, %s: %v", unmask, r.path, got)
			}
		}
	}
}
