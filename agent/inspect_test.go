package agent

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// page is the inspector that a Run tells of.
func (r *running) page(from int) (url string, next int) {
	r.t.Helper()
	e, next := r.await(from, "inspector", func(e Event) bool { return e.Event == EventInspector })
	if e.State != InspectorUp {
		r.t.Fatalf("no inspector: %+v", e)
	}
	return e.URL, next
}

// browserless keeps no connection, which would be a goroutine that is left.
var browserless = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func apiGet(t testing.TB, url string, into any) {
	t.Helper()
	answer, err := browserless.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}

// TestInspectHTTPS: of an upstream with TLS, the inspector reads the clear text,
// and a replay goes there with TLS. The edge's own connections are shared between
// visitors, so who it was is told from the request.
func TestInspectHTTPS(t *testing.T) {
	e := newFakeEdge(t)
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			t.Error("the upstream was asked without TLS")
		}
		io.WriteString(w, "secret page")
	}))
	defer web.Close()
	app := httpTunnel("app", web.URL)
	app.InsecureUpstreamTLS = true
	quiet := httpTunnel("quiet", web.URL)
	quiet.InsecureUpstreamTLS, quiet.Uninspected = true, true
	run, addr, _ := serving(t, e, Config{
		Inspect: Inspect{Addr: "127.0.0.1:0"},
		Tunnels: []Tunnel{app, quiet},
	})
	page, _ := run.page(0)
	stream, err := browserless.Get(page + "/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	events := bufio.NewScanner(stream.Body)
	done := func() (r struct{ ID, Path, State, Visitor, ReplayOf string }) {
		t.Helper()
		for events.Scan() {
			var news []struct {
				ID, Path, State, Visitor string
				ReplayOf                 string `json:"replay_of"`
			}
			data, ok := strings.CutPrefix(events.Text(), "data: ")
			if !ok || json.Unmarshal([]byte(data), &news) != nil {
				continue
			}
			for _, n := range news {
				if n.State == "done" {
					r.ID, r.Path, r.State, r.Visitor, r.ReplayOf = n.ID, n.Path, n.State, n.Visitor, n.ReplayOf
					return r
				}
			}
		}
		t.Fatal("no more events")
		return r
	}
	for _, name := range []string{"quiet", "app"} {
		c, err := e.dial(t.Context(), netip.AddrPort{}, addr[name])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET /"+name+" HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.9\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "secret page") {
			t.Fatalf("%q, %v", answer, err)
		}
		c.Close()
	}
	first := done()
	if first.Path != "/app" || first.Visitor != "198.51.100.9" {
		t.Errorf("listed: %+v", first)
	}
	replay := func(want int) string {
		t.Helper()
		answer, err := browserless.Post(page+"/api/requests/http", "application/json", strings.NewReader(`{"id":"`+first.ID+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != want {
			t.Errorf("replay: %s %s, %v", answer.Status, body, err)
		}
		return string(body)
	}
	replay(http.StatusNoContent)
	if again := done(); again.ReplayOf != first.ID {
		t.Errorf("the replay is %+v", again)
	}
	web.Close()
	if why := replay(http.StatusBadGateway); !strings.Contains(why, "connection refused by "+web.Listener.Addr().String()) {
		t.Errorf("a replay to an upstream that is down: %s", why)
	}
}

// TestInspectorOfGuests: the first command that wants an inspector gets one,
// whoever owns the links, and all are told where it is.
func TestInspectorOfGuests(t *testing.T) {
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	owner := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("one", "8089")}})
	owner.tunnel(0, "one", TunnelUp)
	if st, err := ReadStatus(t.Context(), dir); err != nil || st.Inspector != "" || st.Tunnels[0].Inspected {
		t.Errorf("status %+v, %v", st, err)
	}
	guest := start(t, Config{Dir: dir, Inspect: Inspect{Addr: "127.0.0.1:0"}, Tunnels: []Tunnel{httpTunnel("two", "8090"), tcpTunnel("three", "22")}})
	guest.tunnel(0, "two", TunnelUp)
	page, next := guest.page(0)
	if told, _ := owner.page(0); told != page {
		t.Errorf("the owner was told %s, the guest %s", told, page)
	}
	st, err := ReadStatus(t.Context(), dir)
	if err != nil || st.Inspector != page {
		t.Errorf("status %+v, %v; want %s", st, err, page)
	}
	for _, u := range st.Tunnels {
		if u.Inspected != (u.Name == "two") {
			t.Errorf("%s: inspected %v", u.Name, u.Inspected)
		}
	}
	var list struct {
		Tunnels []struct {
			Name  string
			Proto string
		}
	}
	if apiGet(t, page+"/api/tunnels", &list); len(list.Tunnels) != 3 {
		t.Errorf("the API tells of %+v", list)
	}

	if err := owner.stop(); err != nil {
		t.Error(err)
	}
	after, _ := guest.page(next)
	if apiGet(t, after+"/api/tunnels", &list); len(list.Tunnels) != 2 {
		t.Errorf("the next owner's API tells of %+v", list)
	}
	if _, err := browserless.Get(page); err == nil && page != after {
		t.Error("the first owner's page is still there")
	}
}

// TestInspectorAddressBad: no page is no reason not to share.
func TestInspectorAddressBad(t *testing.T) {
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	r := start(t, Config{Dir: dir, Inspect: Inspect{Addr: "192.0.2.1:4040"}, Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	r.tunnel(0, "app", TunnelUp)
	if ev, _ := r.await(0, "inspector", func(e Event) bool { return e.Event == EventInspector }); ev.State != InspectorError || ev.Reason == "" {
		t.Errorf("told %+v", ev)
	}
}
