package harness

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/agent"
)

// All agents of an edge that was killed are back when it has been started again,
// without anybody's help. WGEXPOSE_STORM says how many there are.
func TestStorm(t *testing.T) {
	agents := 12
	if text := os.Getenv("WGEXPOSE_STORM"); text != "" {
		var err error
		if agents, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	e := Start(t, Options{Relay: true})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }))
	t.Cleanup(web.Close)
	runs := make([]*Run, agents)
	for i := range runs {
		name := fmt.Sprintf("a%d", i)
		runs[i] = e.AddAgent(name).Publish(HTTP(name, web.URL))
		runs[i].WaitUp(name)
	}
	before := make([]int, agents)
	for i, r := range runs {
		before[i] = r.Seen()
	}
	e.Crash()
	ready := time.Now()
	var first, last time.Duration
	for i, r := range runs {
		ev, _ := r.Wait(before[i], "tunnel up again", func(ev agent.Event) bool {
			return ev.Event == agent.EventTunnel && ev.State == agent.TunnelUp
		})
		back := ev.Time.Sub(ready)
		if i == 0 || back < first {
			first = back
		}
		last = max(last, back)
	}
	c := e.Client()
	for i := range runs {
		url := fmt.Sprintf("https://a%d.%s:%d/", i, e.Domain, e.Ready.HTTPS.Port())
		if status, code, _ := e.Get(c, url); status != 200 {
			t.Errorf("a%d: %d %s", i, status, code)
		}
	}
	t.Logf("%d agents were back from %v to %v after the edge was ready, and all served at %v", agents,
		first.Round(time.Millisecond), last.Round(time.Millisecond), time.Since(ready).Round(time.Millisecond))
}
