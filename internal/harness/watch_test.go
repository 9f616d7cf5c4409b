package harness_test

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/internal/harness"
)

// statuses are what agent.Watch shows, until the test ends.
func statuses(t *testing.T, a *harness.Agent, of int) <-chan agent.Status {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	shown, done := make(chan agent.Status), make(chan error, 1)
	go func() {
		done <- agent.Watch(ctx, a.Dir, agent.WatchOptions{Of: of, Every: 10 * time.Millisecond}, func(s agent.Status) {
			select {
			case shown <- s:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	return shown
}

// until waits for a status.
func until(t *testing.T, shown <-chan agent.Status, what string, cond func(agent.Status) bool) {
	t.Helper()
	limit := time.After(time.Minute)
	var last agent.Status
	for {
		select {
		case last = <-shown:
			if cond(last) {
				return
			}
		case <-limit:
			t.Fatalf("never %s: %+v", what, last)
		}
	}
}

// TestWatch: connections are counted and timed, the link's latency is measured,
// and the watch goes on with the next command that holds the links.
func TestWatch(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	a := e.AddAgent("laptop")
	shown := statuses(t, a, os.Getpid())
	first := a.Publish(harness.HTTP("app", says(t, "hello")))
	first.WaitUp("app")
	second := a.Publish(harness.TCP("echo", echo(t), 0))
	url := second.WaitUp("echo")
	until(t, shown, "a latency", func(s agent.Status) bool {
		return len(s.Links) == 1 && s.Links[0].Latency > 0 && s.Links[0].Latency < 30_000
	})

	tunnel := func(s agent.Status, name string) agent.TunnelStatus {
		for _, t := range s.Tunnels {
			if t.Name == name {
				return t
			}
		}
		return agent.TunnelStatus{}
	}
	talk := func() io.Closer {
		c := e.Dial(url)
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := talk()
	talk().Close()
	until(t, shown, "one connection of two open", func(s agent.Status) bool {
		m := tunnel(s, "echo").Conns
		return m.Count == 2 && m.Gauge == 1 && m.Rate1 > 0 && m.Rate5 > 0 && m.P50 > 0
	})
	c.Close()
	until(t, shown, "none open", func(s agent.Status) bool { return tunnel(s, "echo").Conns.Gauge == 0 })
	until(t, shown, "nothing of the other tunnel", func(s agent.Status) bool {
		return tunnel(s, "app").Name == "app" && tunnel(s, "app").Conns.Count == 0
	})

	// The next owner begins anew, and the watch finds it.
	first.Stop()
	until(t, shown, "the second command alone", func(s agent.Status) bool {
		return len(s.Tunnels) == 1 && s.Tunnels[0].Name == "echo" && s.Tunnels[0].State == agent.TunnelUp
	})
	until(t, statuses(t, a, os.Getpid()+1), "tunnels of no other process", func(s agent.Status) bool {
		return s.Running && len(s.Links) == 1 && len(s.Tunnels) == 0
	})
}
