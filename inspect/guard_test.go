package inspect

import (
	"encoding/base64"
	"mime"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
)

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
		"localhost:4040": 200, "127.0.0.1:4040": 200, "box.lan:4040": 200, "192.0.2.5": 200,
		"evil.example": 421, "192.0.2.6": 421, "": 421,
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
