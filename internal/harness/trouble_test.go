package harness_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/internal/harness"
	"github.com/wgexpose/wgexpose/internal/ports"
	"github.com/wgexpose/wgexpose/statedir"
)

// serve is a web server.
func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func newListener(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func emptyDir(t testing.TB) *statedir.Dir {
	t.Helper()
	parent, err := os.MkdirTemp("", "wgx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	d, err := statedir.Open(filepath.Join(parent, "s"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// An agent that sleeps gives 503 once it is away, also to the requests that were
// on their way, and serves again when it wakes.
func TestSleepingAgentIsAway(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{Relay: true})
	a := e.AddAgent("laptop")
	run := a.Publish(harness.HTTP("app", says(t, "awake")))
	url := run.WaitUp("app")
	client := e.Client()
	if status, _, _ := e.Get(client, url); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	run.Sleep()
	start := time.Now()
	for range 3 { // the first ones are on their way when it turns away
		status, code, _ := e.Get(client, url)
		if status != http.StatusServiceUnavailable || code != "agent_away" {
			t.Fatalf("after %v: %d %s", time.Since(start), status, code)
		}
		t.Logf("503 after %v", time.Since(start))
	}
	if row := a.Row(); row.State != edge.StateAway {
		t.Errorf("the edge lists it as %s", row.State)
	}
	run.Wake()
	for deadline := time.Now().Add(time.Minute); ; {
		status, code, body := e.Get(client, url)
		if status == http.StatusOK && body == "awake" {
			break
		}
		if code != "agent_away" || time.Now().After(deadline) {
			t.Fatalf("awake again: %d %s %q", status, code, body)
		}
	}
}

// After a crash of the edge the agent is back by the edge's own handshake, long
// before it would have missed the edge by itself.
func TestEdgeCrash(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{Relay: true})
	run := e.AddAgent("laptop").Publish(harness.HTTP("app", says(t, "alive")))
	url := run.WaitUp("app")
	seen := run.Seen()
	e.Crash()
	start := time.Now()
	if got, _ := run.WaitUpAfter(seen, "app"); got != url {
		t.Errorf("the URL moved to %s", got)
	}
	t.Logf("serves again %v after the new edge did", time.Since(start))
	if status, code, body := e.Get(e.Client(), url); status != http.StatusOK || body != "alive" {
		t.Errorf("%d %s %q", status, code, body)
	}
}

// The edge's owner sees which tunnels have no upstream, and why.
func TestTunnelsTellOfUpstreams(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	upstream := ports.Reserve(t).Addr()
	url := e.AddAgent("laptop").Publish(harness.HTTP("app", "http://"+upstream.String())).WaitUp("app")
	row := func() edge.TunnelRow {
		t.Helper()
		rows, err := e.Admin().Tunnels(t.Context())
		if err != nil || len(rows) != 1 {
			t.Fatalf("tunnels %+v, %v", rows, err)
		}
		return rows[0]
	}
	if status, _, _ := e.Get(e.Client(), url); status != http.StatusBadGateway {
		t.Errorf("without an upstream: %d", status)
	}
	if r := row(); r.State != edge.StateError || !strings.Contains(r.Reason, upstream.String()) {
		t.Errorf("without an upstream: %+v", r)
	}
	l, err := net.Listen("tcp", upstream.String())
	if err != nil {
		t.Fatal(err)
	}
	web := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.NotFoundHandler()}}
	web.Start()
	defer web.Close()
	if status, _, _ := e.Get(e.Client(), url); status != http.StatusNotFound {
		t.Errorf("with one: %d", status)
	}
	// The agent's report comes another way than the answer.
	for deadline := time.Now().Add(time.Minute); ; {
		r := row()
		if r.State == edge.StateUp && r.Reason == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with one: %+v", r)
		}
	}
}

// A killed agent's next process has its tunnels at once, whatever the edge still
// holds of the old one.
func TestKilledAgentComesBack(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{Relay: true})
	a := e.AddAgent("laptop")
	run := a.Publish(harness.HTTP("app", says(t, "old")), harness.TCP("tcp", echo(t), 0))
	url, port := run.WaitUp("app"), run.WaitUp("tcp")
	client := e.Client()
	e.Get(client, url)
	run.Kill()
	again := a.Publish(harness.HTTP("app", says(t, "new")), harness.TCP("tcp", echo(t), 0))
	if got := again.WaitUp("app"); got != url {
		t.Errorf("the URL moved to %s", got)
	}
	if got := again.WaitUp("tcp"); got != port {
		t.Errorf("the port moved to %s", got)
	}
	if status, code, body := e.Get(client, url); status != http.StatusOK || body != "new" {
		t.Errorf("%d %s %q", status, code, body)
	}
}

// The agent restarts while visitors keep asking, and its tunnels lead elsewhere
// afterwards. No request reaches another tunnel's upstream or an old one, and
// none fails once the new process serves.
func TestRestartUnderLoad(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	a := e.AddAgent("laptop")
	generation := func(n int) *harness.Run {
		run := a.Publish(
			harness.HTTP("one", says(t, fmt.Sprintf("one %d", n))),
			harness.HTTP("two", says(t, fmt.Sprintf("two %d", n))),
		)
		run.WaitUp("one")
		run.WaitUp("two")
		return run
	}
	run := generation(0)
	var serving atomic.Int64 // the generation that serves; -1 while none does
	var asked, answered atomic.Int64
	quit, progress := make(chan struct{}), make(chan struct{}, 1)
	var visitors sync.WaitGroup
	for i := range 8 {
		name := []string{"one", "two"}[i%2]
		method := []string{http.MethodGet, http.MethodPost}[i/2%2]
		client := e.Client()
		url := fmt.Sprintf("https://%s.%s:%d/", name, e.Domain, e.Ready.PublicHTTPSPort)
		visitors.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				before := serving.Load()
				status, body, err := request(client, method, url)
				after := serving.Load()
				asked.Add(1)
				switch {
				case err != nil:
					t.Errorf("%s %s: %v", method, name, err)
				case status == http.StatusOK:
					answered.Add(1)
					select {
					case progress <- struct{}{}:
					default:
					}
					// From some generation that served in between.
					who, gen, _ := strings.Cut(body, " ")
					if who != name || before == after && after >= 0 && gen != fmt.Sprint(after) {
						t.Errorf("%s was answered by %q in generation %d", name, body, after)
					}
				case before == after && after >= 0:
					t.Errorf("%s %s: %d while generation %d serves: %s", method, name, status, after, body)
				}
			}
		})
	}
	wait := func() { // until each visitor was answered some ten times
		for want := answered.Load() + 80; answered.Load() < want; {
			<-progress
		}
	}
	wait()
	for n := 1; n <= 3; n++ {
		serving.Store(-1)
		run.Stop()
		run = generation(n)
		serving.Store(int64(n))
		wait()
	}
	close(quit)
	visitors.Wait()
	t.Logf("%d requests, %d answered by an upstream", asked.Load(), answered.Load())
}

// request sends one and reads all of the answer.
func request(c *http.Client, method, url string) (status int, body string, err error) {
	var payload io.Reader
	if method == http.MethodPost {
		payload = strings.NewReader("a form")
	}
	r, err := http.NewRequest(method, url, payload)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

// An upstream that drops its connections right after each answer, as servers
// with a short keep-alive do, never costs a visitor a POST.
func TestPostsSurviveIdleConnections(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		open[c] = state == http.StateIdle
	}
	s.Start()
	t.Cleanup(s.Close)
	url := e.AddAgent("laptop").Publish(harness.HTTP("app", s.URL)).WaitUp("app")
	client := e.Client()
	for range 60 {
		if status, body, err := request(client, http.MethodPost, url); err != nil || status != http.StatusOK || body != "a form" {
			t.Fatalf("%d %q %v", status, body, err)
		}
		mu.Lock()
		for c, idle := range open {
			if idle {
				c.Close()
				delete(open, c)
			}
		}
		mu.Unlock()
	}
}

// A target that is down costs its visitors a 502, and works once it is up.
func TestUpstreamComesUpLater(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	l := newListener(t)
	addr := l.Addr().String()
	l.Close()
	url := e.AddAgent("laptop").Publish(harness.HTTP("app", "http://"+addr)).WaitUp("app")
	client := e.Client()
	if status, code, body := e.Get(client, url); status != http.StatusBadGateway || code != "upstream_refused" {
		t.Errorf("down: %d %s %q", status, code, body)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "up") })}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	if status, code, body := e.Get(client, url); status != http.StatusOK || body != "up" {
		t.Errorf("up: %d %s %q", status, code, body)
	}
}
