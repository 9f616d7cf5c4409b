package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/e2e/process"
	"github.com/wgexpose/wgexpose/internal/browser"
)

// listed is a request in the inspector's list.
type listed struct {
	ID       string `json:"id"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	Status   int    `json:"status"`
	State    string `json:"state"`
	Visitor  string `json:"visitor"`
	ReplayOf string `json:"replay_of"`
}

// inspector is the page and the API of a running agent.
type inspector struct {
	t      *testing.T
	url    string
	events *bufio.Scanner
}

func (s *system) inspector() *inspector {
	s.t.Helper()
	e := s.agent.Await("the inspector", func(e process.Event) bool { return e.Event == "inspector" })
	if e.State != "up" {
		s.t.Fatalf("no inspector: %s", e.Reason)
	}
	i := &inspector{t: s.t, url: e.URL}
	stream, err := http.Get(e.URL + "/api/v1/events")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { stream.Body.Close() })
	i.events = bufio.NewScanner(stream.Body)
	i.events.Buffer(nil, 1<<20)
	return i
}

// await waits until the inspector tells of a request like that.
func (i *inspector) await(match func(listed) bool) listed {
	i.t.Helper()
	for i.events.Scan() {
		data, ok := strings.CutPrefix(i.events.Text(), "data: ")
		var news []listed
		if !ok || json.Unmarshal([]byte(data), &news) != nil {
			continue
		}
		for _, r := range news {
			if match(r) {
				return r
			}
		}
	}
	i.t.Fatalf("the inspector's events ended: %v", i.events.Err())
	return listed{}
}

func (i *inspector) get(path string, into any) {
	i.t.Helper()
	answer, err := http.Get(i.url + path)
	if err != nil {
		i.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		i.t.Fatalf("%s: %s: %s", path, answer.Status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		i.t.Fatalf("%s: %v: %s", path, err, body)
	}
}

// A request that came through the edge is listed, can be sent again, and is on
// the page; programs that read ngrok's API find what they look for.
func TestInspector(t *testing.T) {
	web := origin.StartWeb(t)
	echo := origin.StartTCP(t, func(c *net.TCPConn) { io.Copy(c, c) }).Addr()
	s := startSystem(t,
		share{name: "web", kind: "http", upstream: web.Addr()},
		share{name: "private", kind: "http", upstream: web.Addr(), more: "inspect: false"},
		share{name: "echo", kind: "tcp", upstream: echo})
	i := s.inspector()

	client := s.client(true)
	visit := func(name, path string) {
		t.Helper()
		answer, err := client.Post(s.public[name]+path, "text/plain", strings.NewReader("some text"))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, answer.Status, err)
		}
	}
	visit("private", "/upload?private")
	visit("web", "/upload?n=1")
	first := i.await(func(r listed) bool { return strings.HasPrefix(r.Path, "/upload") && r.State == "done" })
	if first.Path != "/upload?n=1" || first.Method != "POST" || first.Status != 200 || first.Visitor != "127.0.0.1" {
		t.Errorf("listed as %+v", first)
	}

	var tunnels struct {
		Tunnels []struct {
			Name      string `json:"name"`
			PublicURL string `json:"public_url"`
			Proto     string `json:"proto"`
			Config    struct {
				Inspect bool `json:"inspect"`
			} `json:"config"`
		} `json:"tunnels"`
	}
	i.get("/api/tunnels", &tunnels)
	got := make(map[string]string)
	for _, u := range tunnels.Tunnels {
		got[u.Name] = fmt.Sprint(u.PublicURL, " ", u.Proto, " ", u.Config.Inspect)
	}
	for name, want := range map[string]string{"web": " https true", "private": " https false", "echo": " tcp false"} {
		if got[name] != s.public[name]+want {
			t.Errorf("tunnel %s is %q, want %q", name, got[name], s.public[name]+want)
		}
	}
	var status struct {
		Status string `json:"status"`
	}
	if i.get("/api/status", &status); status.Status != "online" {
		t.Errorf("status %q", status.Status)
	}

	replay, err := json.Marshal(map[string]string{"id": first.ID})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.Post(i.url+"/api/requests/http", "application/json", bytes.NewReader(replay))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		t.Errorf("replay: %s", answer.Status)
	}
	again := i.await(func(r listed) bool { return r.ReplayOf != "" && r.State == "done" })
	if again.ReplayOf != first.ID || again.Path != "/upload?n=1" || again.Status != 200 {
		t.Errorf("the replay is %+v", again)
	}
	var requests struct {
		Requests []struct {
			ID       string `json:"id"`
			Response struct {
				Raw []byte `json:"raw"`
			} `json:"response"`
		} `json:"requests"`
	}
	i.get("/api/requests/http", &requests)
	if len(requests.Requests) != 2 {
		t.Fatalf("%d requests are listed, want 2", len(requests.Requests))
	}
	for _, r := range requests.Requests {
		if _, body, _ := strings.Cut(string(r.Response.Raw), "\r\n\r\n"); !strings.Contains(body, `"length":9`) {
			t.Errorf("request %s was answered %q", r.ID, r.Response.Raw)
		}
	}
	if out := s.run("", "status", "--state", s.agentDir()); !strings.Contains(out, "inspector "+i.url) {
		t.Errorf("status does not tell of %s:\n%s", i.url, out)
	}

	b := browser.Open(t)
	b.Navigate(i.url)
	b.Until(`document.querySelectorAll('.row').length === 2 && document.querySelector('.row').innerText.includes('/upload?n=1')`)
	b.Click(".row")
	b.Until(`document.querySelector('[data-side=response] pre')?.innerText.includes('"length": 9')`)
	visit("web", "/upload?n=2")
	b.Until(`document.querySelectorAll('.row').length === 3`)
	for _, c := range b.Complaints() {
		t.Errorf("the page complains: %s", c)
	}
}

// With --inspect=false there is no inspector, and a later command that wants one
// gets it, for its own tunnels.
func TestInspectorOff(t *testing.T) {
	web := origin.StartWeb(t)
	s := newSystem(t)
	run := func(name string, flags ...string) *process.Process {
		return process.Start(t, process.Config{Name: name, Path: binary, Args: append([]string{
			"http", web.Addr(), "--name", name, "--json", "--state", s.agentDir(),
		}, flags...)})
	}
	up := func(p *process.Process) {
		t.Helper()
		e := p.Await("up", func(e process.Event) bool { return e.Event == "tunnel" && e.State == "up" })
		s.public[e.Name] = e.PublicURL
	}
	off := run("off", "--inspect=false")
	up(off)
	if out := s.run("", "status", "--state", s.agentDir()); strings.Contains(out, "inspector") {
		t.Errorf("there is an inspector:\n%s", out)
	}
	on := run("on", "--web-addr", "127.0.0.1:0")
	up(on)
	s.agent = on
	i := s.inspector()
	client := s.client(false)
	for _, name := range []string{"off", "on"} {
		answer, err := client.Get(s.public[name] + "/?" + name)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	if r := i.await(func(r listed) bool { return r.State == "done" }); r.Path != "/?on" {
		t.Errorf("listed: %+v", r)
	}
	// The owner ends; the guest becomes it, with an inspector of its own.
	n := on.Events()
	off.Interrupt()
	if code := off.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	e := on.AwaitAfter(n, "a new inspector", func(e process.Event) bool { return e.Event == "inspector" })
	if e.State != "up" {
		t.Errorf("%+v", e)
	}
}
