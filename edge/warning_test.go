package edge

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/tunnel"
)

// browserGet is how a browser opens a page, with changes.
func browserGet(target string, header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "https://app.example.com"+target, nil)
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0")
	r.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Site", "none")
	for i := 0; i < len(header); i += 2 {
		if r.Header.Del(header[i]); header[i+1] != "" {
			r.Header.Set(header[i], header[i+1])
		}
	}
	return r
}

// TestWarningWhom: browsers that open a page are warned, and nothing else is.
func TestWarningWhom(t *testing.T) {
	f := newFront(frontConfig{})
	e := &tunnel.Entry{Spec: tunnel.Spec{Kind: tunnel.HTTP, Host: "app.example.com", Policy: &tunnel.Policy{Warning: true}}}
	with := func(change func(*http.Request), header ...string) *http.Request {
		r := browserGet("/a?b=c", header...)
		change(r)
		return r
	}
	same := func(*http.Request) {}
	for name, c := range map[string]struct {
		r    *http.Request
		want bool
	}{
		"browser":                 {browserGet("/"), true},
		"old browser":             {browserGet("/", "Sec-Fetch-Mode", "", "Sec-Fetch-Site", ""), true},
		"another site's cookie":   {browserGet("/", "Cookie", "wgexpose-warned=1"), true},
		"a link from elsewhere":   {browserGet("/?wgexpose-continue=1", "Sec-Fetch-Site", "cross-site"), true},
		"typed in with the query": {browserGet("/?wgexpose-continue=1"), true},
		"was warned":              {browserGet("/", "Cookie", "x=y; __Host-wgexpose-warned=1"), false},
		"curl":                    {browserGet("/", "User-Agent", "curl/8.14.1", "Accept", "*/*"), false},
		"a program's own header":  {browserGet("/", "Wgexpose-Skip-Warning", "1"), false},
		"ngrok's header":          {browserGet("/", "ngrok-skip-browser-warning", "any"), false},
		"an image":                {browserGet("/", "Accept", "image/avif,*/*"), false},
		"fetch":                   {browserGet("/", "Sec-Fetch-Mode", "cors"), false},
		"POST":                    {with(func(r *http.Request) { r.Method = "POST" }), false},
		"OPTIONS":                 {with(func(r *http.Request) { r.Method = "OPTIONS" }), false},
		"WebSocket":               {with(same, "Upgrade", "websocket"), false},
	} {
		w := httptest.NewRecorder()
		if got := f.warn(e, w, c.r); got != c.want {
			t.Errorf("%s: warned %v", name, got)
		} else if got && (w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "You are about to visit app.example.com")) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// TestWarningOn: the link of the warning leads to the page that was asked for, once
// and for all, and nowhere else.
func TestWarningOn(t *testing.T) {
	f := newFront(frontConfig{})
	e := &tunnel.Entry{Spec: tunnel.Spec{Kind: tunnel.HTTP, Host: "app.example.com", Policy: &tunnel.Policy{Warning: true}}}
	for target, link := range map[string]string{
		"/":                 `href="/?wgexpose-continue=1"`,
		"/a%2Fb?x=%22%3E&y": `href="/a%2Fb?x=%22%3E&amp;y&amp;wgexpose-continue=1"`,
		"//evil.example.net/?wgexpose-continue=1": `href="/evil.example.net/?wgexpose-continue=1"`,
	} {
		w := httptest.NewRecorder()
		r := browserGet("/")
		u, err := r.URL.Parse("https://app.example.com" + target)
		if err != nil {
			t.Fatal(err)
		}
		r.URL = u
		if !f.warn(e, w, r) || !strings.Contains(w.Body.String(), link) {
			t.Errorf("%s has no %s: %s", target, link, w.Body)
		}
	}
	for _, header := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "", "Referer", "https://app.example.com/a?b=c"}} {
		w := httptest.NewRecorder()
		if !f.warn(e, w, browserGet("/a?b=c&wgexpose-continue=1&d", header...)) {
			t.Fatalf("%v: not answered", header)
		}
		cookies := w.Result().Cookies()
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/a?b=c&d" || len(cookies) != 1 ||
			cookies[0].Name != warnedCookie || !cookies[0].Secure || cookies[0].Domain != "" || cookies[0].MaxAge != 7*24*3600 {
			t.Errorf("%v: %d, %v", header, w.Code, w.Header())
		}
	}
}

// TestWarningRequired: an edge may ask for it where it has chosen the name.
func TestWarningRequired(t *testing.T) {
	for _, c := range []struct{ required, generated, want bool }{{false, true, false}, {true, true, true}, {true, false, false}} {
		f := newFront(frontConfig{WarnRandomNames: c.required})
		e := &tunnel.Entry{Spec: tunnel.Spec{Kind: tunnel.HTTP, Host: "app.example.com"}, Generated: c.generated}
		if got := f.warn(e, httptest.NewRecorder(), browserGet("/")); got != c.want {
			t.Errorf("%+v: warned %v", c, got)
		}
	}
}
