package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/e2e/process"
)

// After kill -9 of the edge and a new start, the tunnels serve again under the
// same addresses, and nobody touched the agent.
func TestEdgeIsKilled(t *testing.T) {
	web := origin.StartWeb(t)
	echo := origin.StartTCP(t, origin.Echo)
	s := startSystem(t,
		share{name: "web", kind: "http", upstream: web.Addr()},
		share{name: "echo", kind: "tcp", upstream: echo.Addr()},
	)
	s.greet(t)
	s.outliveEdge(t)
}

// outliveEdge kills the edge, starts it again where it was, and expects that its
// tunnels web and echo serve.
func (s *system) outliveEdge(t *testing.T) {
	t.Helper()
	was := s.ready
	s.edge.Kill()
	s.edge.Wait()
	begun := time.Now()
	s.startEdge(was.WG, was.HTTPS, was.HTTP)
	s.greetSoon(t)
	t.Logf("served again %v after the edge was started", time.Since(begun).Round(time.Millisecond))
	if err := exchange(dial(t, "", s.addr("echo")), "still there\n"); err != nil {
		t.Error(err)
	}
}

// After kill -9 of the agent and a new start, it has its names and ports again.
func TestAgentIsKilled(t *testing.T) {
	web := origin.StartWeb(t)
	echo := origin.StartTCP(t, origin.Echo)
	s := startSystem(t,
		share{name: "web", kind: "http", upstream: web.Addr()},
		share{name: "echo", kind: "tcp", upstream: echo.Addr()},
	)
	s.greet(t)
	s.agent.Kill()
	s.agent.Wait()
	s.startAgent()
	for name, was := range s.public {
		if is := s.awaitUp(0, name).PublicURL; is != was {
			t.Errorf("tunnel %s is now at %s, and was at %s", name, is, was)
		}
	}
	s.greet(t)
	if err := exchange(dial(t, "", s.addr("echo")), "still there\n"); err != nil {
		t.Error(err)
	}
}

// Ctrl-C lets a request that is under way come to its end, and both processes
// end well.
func TestDrain(t *testing.T) {
	web := origin.StartWeb(t)
	s := startSystem(t, share{name: "web", kind: "http", upstream: web.Addr()})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.public["web"]+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client(false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	web.Events <- "before"
	s.agent.Interrupt()
	s.agent.Await("the tunnel is gone", func(e process.Event) bool {
		return e.Event == "tunnel" && e.Name == "web" && e.State == "gone"
	})
	web.Events <- "after"
	close(web.Events)
	body, err := io.ReadAll(resp.Body)
	if want := "data: before\n\ndata: after\n\n"; err != nil || string(body) != want {
		t.Errorf("the visitor got %q (%v), want %q", body, err, want)
	}
	if code := s.agent.Wait(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	s.edge.Interrupt()
	if code := s.edge.Wait(); code != 0 {
		t.Errorf("the edge ended with %d", code)
	}
}

// greet has a visitor fetch the origin's page.
func (s *system) greet(t *testing.T) {
	t.Helper()
	if err := s.tryGreet(); err != nil {
		t.Fatal(err)
	}
}

func (s *system) tryGreet() error {
	client := s.client(true)
	client.Timeout = 10 * time.Second
	resp, err := client.Get(s.public["web"] + "/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if !bytes.Equal(body, []byte(origin.Greeting)) {
		return fmt.Errorf("%s: %.200q", resp.Status, body)
	}
	return nil
}

// greetSoon tries until a visitor is served.
func (s *system) greetSoon(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := s.tryGreet()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not served within %v: %v", patience, err)
		}
		time.Sleep(10 * time.Millisecond) // between two tries
	}
}
