package harness_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/internal/harness"
)

// survivors are connections that were open before the trouble began: a session
// that types, one that is idle, and a download under way.
type survivors struct {
	t        *testing.T
	session  net.Conn
	lines    *bufio.Reader
	idle     net.Conn
	download io.ReadCloser
	got      []byte
	more     chan struct{} // a token lets the server send another chunk
	typed    int
}

const (
	chunk  = 64 << 10
	chunks = 64
)

// openSurvivors publishes two tunnels and opens all connections through them.
func openSurvivors(t *testing.T, e *harness.Edge, a *harness.Agent) (*survivors, *harness.Run) {
	t.Helper()
	s := &survivors{t: t, more: make(chan struct{}, chunks)}
	web := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for n := range chunks {
			select {
			case <-s.more:
			case <-r.Context().Done():
				return
			}
			if _, err := w.Write(content(n)); err != nil {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
		}
	})
	run := a.Publish(harness.HTTP("web", web), harness.TCP("echo", echo(t), 0))
	port := run.WaitUp("echo")
	s.session, s.idle = e.Dial(port), e.Dial(port)
	s.lines = bufio.NewReader(s.session)
	url := run.WaitUp("web")
	s.more <- struct{}{}
	resp, err := e.Client().Get(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	s.download = resp.Body
	s.read()
	s.alive()
	return s, run
}

// content is chunk n of the download.
func content(n int) []byte {
	p := make([]byte, chunk)
	rng := rand.NewChaCha8([32]byte{byte(n)})
	rng.Read(p)
	return p
}

// read takes the chunk that a token was given for.
func (s *survivors) read() {
	s.t.Helper()
	p := make([]byte, chunk)
	if _, err := io.ReadFull(s.download, p); err != nil {
		s.t.Fatalf("the download broke after %d bytes: %v", len(s.got), err)
	}
	s.got = append(s.got, p...)
}

// typeLine sends a line on the session, without waiting for its echo.
func (s *survivors) typeLine() {
	s.t.Helper()
	s.typed++
	if _, err := fmt.Fprintf(s.session, "line %d\n", s.typed); err != nil {
		s.t.Fatalf("line %d: %v", s.typed, err)
	}
}

// echoed waits for the echo of the last line.
func (s *survivors) echoed() {
	s.t.Helper()
	line, err := s.lines.ReadString('\n')
	if want := fmt.Sprintf("line %d\n", s.typed); err != nil || line != want {
		s.t.Fatalf("the session gave %q, %v; want %q", line, err, want)
	}
}

// alive uses session and download.
func (s *survivors) alive() {
	s.t.Helper()
	s.more <- struct{}{}
	s.typeLine()
	s.echoed()
	s.read()
}

// through makes trouble, and then is alive.
func (s *survivors) through(trouble func()) {
	s.t.Helper()
	trouble()
	start := time.Now()
	s.alive()
	s.t.Logf("moved again after %v", time.Since(start).Round(time.Millisecond))
}

// end finishes everything and compares the download with what was sent.
func (s *survivors) end() {
	s.t.Helper()
	if _, err := io.WriteString(s.idle, "I was never used\n"); err != nil {
		s.t.Fatal(err)
	}
	if line, err := bufio.NewReader(s.idle).ReadString('\n'); err != nil || line != "I was never used\n" {
		s.t.Fatalf("the idle connection gave %q, %v", line, err)
	}
	for len(s.got) < chunks*chunk {
		s.more <- struct{}{}
		s.read()
	}
	if n, err := io.Copy(io.Discard, s.download); err != nil || n != 0 {
		s.t.Fatalf("after the download's end: %d bytes, %v", n, err)
	}
	want := sha256.New()
	for n := range chunks {
		want.Write(content(n))
	}
	got := sha256.Sum256(s.got)
	if hex.EncodeToString(got[:]) != hex.EncodeToString(want.Sum(nil)) {
		s.t.Error("the download is not what was sent")
	}
}

// The NAT on the way forgets its mapping, again and again. Whatever is open goes
// on, over the agent's new port.
func TestConnectionsSurviveNewMappings(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{Relay: true})
	a := e.AddAgent("laptop")
	s, run := openSurvivors(t, e, a)
	for range 5 {
		before := a.Row().Endpoint
		s.through(run.Remap)
		if after := a.Row().Endpoint; after == before {
			t.Errorf("the edge still sees %s", before)
		}
	}
	s.end()
}

// The agent's socket is of no use any more, as when its address is gone and no
// one told. Silence makes it open another one.
func TestConnectionsSurviveLostSocket(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{Relay: true})
	a := e.AddAgent("laptop")
	s, run := openSurvivors(t, e, a)
	for range 2 {
		before := a.Row().Endpoint
		s.through(run.Strand)
		if after := a.Row().Endpoint; after == before {
			t.Errorf("the edge still sees %s", before)
		}
	}
	s.end()
}

// The agent is gone for so long that the edge gives it up, with bytes under way
// in both directions, and comes back.
func TestConnectionsSurviveAbsence(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{Relay: true})
	s, run := openSurvivors(t, e, e.AddAgent("laptop"))
	seen := run.Seen()
	run.Sleep()
	s.more <- struct{}{}
	s.typeLine()
	_, seen = run.Wait(seen, "link lost", func(ev agent.Event) bool {
		return ev.Event == agent.EventLink && ev.State == agent.LinkDegraded
	})
	// The edge has its own clock for it.
	for client := e.Client(); ; {
		if _, code, _ := e.Get(client, "https://web."+e.Domain+fmt.Sprintf(":%d/", e.Ready.PublicHTTPSPort)); code == "agent_away" {
			break
		}
	}
	run.Wake()
	s.echoed()
	s.read()
	run.WaitUpAfter(seen, "web")
	s.alive()
	s.end()
}
