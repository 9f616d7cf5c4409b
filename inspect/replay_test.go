package inspect

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

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
	if _, err := i.Replay(t.Context(), newest(), Changes{}); !errors.Is(err, ErrNotWhole) {
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
