package harness_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/internal/harness"
	"github.com/wgexpose/wgexpose/keys"
)

// linkOver waits for the link to be up over a transport.
func linkOver(run *harness.Run, after int, transport string) int {
	_, next := run.Wait(after, "link up over "+transport, func(e agent.Event) bool {
		return e.Event == agent.EventLink && e.State == agent.LinkUp && e.Transport == transport
	})
	return next
}

// On a network without UDP, joining and serving work as elsewhere.
func TestStartWithoutUDP(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{Relay: true})
	e.BlockUDP(true)
	start := time.Now()
	a := e.AddAgentBy("laptop", agent.Reach{Proxy: agent.NoProxy})
	t.Logf("joined after %v", time.Since(start))
	start = time.Now()
	run := a.Publish(harness.HTTP("app", says(t, "over TLS")))
	url := run.WaitUp("app")
	t.Logf("serves after %v", time.Since(start))
	linkOver(run, 0, "tls")
	if status, code, body := e.Get(e.Client(), url); status != http.StatusOK || body != "over TLS" {
		t.Errorf("%d %s %q", status, code, body)
	}
}

// UDP is blocked in the middle of everything: what is open goes on over TLS, and
// over UDP again some time after the block is lifted.
func TestConnectionsSurviveTransports(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{Relay: true})
	a := e.AddAgentBy("laptop", agent.Reach{Proxy: agent.NoProxy})
	s, run := openSurvivors(t, e, a)
	seen := linkOver(run, 0, "udp")
	s.through(func() { e.BlockUDP(true) })
	seen = linkOver(run, seen, "tls")
	for range 5 {
		s.alive()
	}
	e.BlockUDP(false)
	for done := false; !done; {
		s.typeLine()
		s.echoed()
		st, err := agent.ReadStatus(t.Context(), a.Dir)
		if err != nil {
			t.Fatal(err)
		}
		done = st.Links[0].Transport == "udp"
		time.Sleep(20 * time.Millisecond) // the user types
	}
	seen = linkOver(run, seen, "udp")
	// With the old connection closed, everything must go over UDP.
	s.through(func() { e.BlockUDP(true) })
	linkOver(run, seen, "tls")
	s.end()
}

// With TLS alone, no UDP is sent at all; the edge restarts, and the link is back.
func TestTLSOnly(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{Relay: true})
	a := e.AddAgentBy("laptop", agent.Reach{Transport: agent.TransportTLS, Proxy: agent.NoProxy})
	run := a.Publish(harness.HTTP("app", says(t, "hello")))
	url := run.WaitUp("app")
	if n := e.UDPFlows(); n != 0 {
		t.Errorf("%d agents sent UDP", n)
	}
	seen := run.Seen()
	e.Restart()
	start := time.Now()
	if got, _ := run.WaitUpAfter(seen, "app"); got != url {
		t.Errorf("the URL moved to %s", got)
	}
	t.Logf("serves again %v after the edge", time.Since(start))
	if status, code, body := e.Get(e.Client(), url); status != http.StatusOK || body != "hello" {
		t.Errorf("%d %s %q", status, code, body)
	}
}

// One of two UDP ports is blocked, at the start or later; the other serves, also
// after a restart.
func TestSecondPort(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{Relay: true, Second: true})
	if len(e.Ready.MoreWG) != 1 {
		t.Fatalf("the edge listens on %v more", e.Ready.MoreWG)
	}
	second := e.Ready.MoreWG[0].String()
	for i, ep := range e.Invite(edge.InviteOptions{}).Edges[0].Endpoints {
		if want := []string{e.Ready.Endpoint, second, e.Ready.HTTPS.String()}[i]; ep.Addr != want {
			t.Errorf("endpoint %d of the invite is %s, want %s", i, ep.Addr, want)
		}
	}
	e.BlockUDP(true)
	a := e.AddAgent("laptop")
	run := a.Publish(harness.HTTP("app", says(t, "hello")))
	url := run.WaitUp("app")
	if status, code, body := e.Get(e.Client(), url); status != http.StatusOK || body != "hello" {
		t.Errorf("%d %s %q", status, code, body)
	}
	seen := run.Seen()
	e.Restart()
	run.WaitUpAfter(seen, "app")
	if status, code, body := e.Get(e.Client(), url); status != http.StatusOK || body != "hello" {
		t.Errorf("after a restart: %d %s %q", status, code, body)
	}
}

// A box in between ends TLS with a certificate of its own and lets through
// nothing but HTTP/1.1: packets travel in a WebSocket.
func TestStreamThroughMiddlebox(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{Relay: true})
	e.BlockUDP(true)
	box := newMiddlebox(t, e)
	inv := e.Invite(edge.InviteOptions{})
	for i, ep := range inv.Edges[0].Endpoints {
		if ep.Kind == keys.EndpointHTTPS {
			inv.Edges[0].Endpoints[i].Addr = box
		}
	}
	start := time.Now()
	if _, err := agent.Join(t.Context(), emptyDir(t), inv, agent.JoinOptions{Name: "laptop", Reach: agent.Reach{Proxy: agent.NoProxy}}); err != nil {
		t.Fatal(err)
	}
	t.Logf("joined after %v", time.Since(start))
}

// newMiddlebox returns its address.
func newMiddlebox(t *testing.T, e *harness.Edge) string {
	t.Helper()
	l := newListener(t)
	config := middleboxTLS(t)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { l.Close() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { middle(t, tls.Server(c, config), e) })
		}
	})
	return l.Addr().String()
}

// middle serves one connection.
func middle(t *testing.T, c *tls.Conn, e *harness.Edge) {
	defer c.Close()
	in := bufio.NewReader(c)
	r, err := http.ReadRequest(in)
	if err != nil {
		return // it speaks no HTTP
	}
	config := e.TLSConfig()
	config.ServerName, config.NextProtos = e.Domain, []string{"http/1.1"}
	up, err := tls.Dial("tcp", e.Ready.HTTPS.String(), config)
	if err != nil {
		t.Errorf("middlebox: %v", err)
		return
	}
	defer up.Close()
	if err := r.Write(up); err != nil {
		t.Errorf("middlebox: %v", err)
		return
	}
	go func() {
		io.Copy(up, in)
		up.Close()
	}()
	if _, err := io.Copy(c, up); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("middlebox: %v", err)
	}
}

// middleboxTLS is a server without ALPN, with a certificate that nobody trusts.
func middleboxTLS(t *testing.T) *tls.Config {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}
}
