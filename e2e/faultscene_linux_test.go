package e2e

import (
	"bufio"
	"errors"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/process"
)

// scene is one row while it runs.
type scene struct {
	t     *testing.T
	w     *world
	f     fault
	x     *watchers
	ssh   *typist
	fetch *download

	stalls, served []time.Duration
	lost           int
	dead           int       // sessions that ended with a process, as they must
	before         [2]int64  // memory of agent and edge
	after          *[2]int64 // nil: as it is at the end
}

func startScene(t *testing.T, f fault) *scene {
	t.Helper()
	s := &scene{t: t, f: f, w: startWorld(t, f.options)}
	s.x = s.w.watch()
	t.Cleanup(s.x.end)
	s.enter()
	s.before = s.memory()
	return s
}

// enter opens the sessions.
func (s *scene) enter() {
	s.t.Helper()
	var err error
	if s.ssh, err = s.w.startTypist(); err != nil {
		s.t.Fatalf("open an ssh session: %v", err)
	}
	if s.fetch, err = s.w.startDownload(); err != nil {
		s.t.Fatalf("begin a download: %v", err)
	}
	s.flows()
}

// flows waits until the download goes on.
func (s *scene) flows() {
	s.t.Helper()
	deadline := time.Now().Add(fullPatience)
	for n := s.fetch.bytes(); s.fetch.bytes() == n; time.Sleep(2 * time.Millisecond) {
		select {
		case <-s.fetch.done:
			return // which close tells
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the download has stood still for %v", fullPatience)
		}
	}
}

// strike does something that sessions must survive, and measures for how long
// it kept the one who types, and a new visitor.
func (s *scene) strike(what func()) {
	s.t.Helper()
	begun := time.Now()
	what()
	ended := time.Now()
	if err := s.ssh.echoed(ended); err != nil {
		s.t.Fatal(err)
	}
	again, err := s.x.servedAfter(ended)
	if err != nil {
		s.t.Fatal(err)
	}
	s.flows()
	s.stalls = append(s.stalls, s.ssh.stall(begun))
	s.served = append(s.served, again)
}

// quietly does something that is measured by what follows.
func (s *scene) quietly(what func()) { what() }

// pass lets time pass.
func (s *scene) pass(d time.Duration) { time.Sleep(d) }

func (s *scene) since(what func()) time.Duration {
	begun := time.Now()
	what()
	return time.Since(begun)
}

func (s *scene) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(s.w.agent.PID(), sig); err != nil {
		s.t.Fatal(err)
	}
}

// die does something that sessions cannot survive, sees that they end rather
// than hang, and measures how long after revive began a new visitor is served.
func (s *scene) die(what, revive func()) {
	s.t.Helper()
	what()
	begun := time.Now()
	revive()
	again, err := s.x.servedAfter(begun)
	if err != nil {
		s.t.Fatal(err)
	}
	s.served = append(s.served, again)
	for what, done := range map[string]<-chan struct{}{"ssh session": s.ssh.done, "download": s.fetch.done} {
		select {
		case <-done:
			s.dead++
		case <-time.After(fullPatience):
			s.t.Fatalf("the %s hangs, though its connection is dead", what)
		}
	}
	s.fetch.cancel()
	s.enter()
}

// drain stops the edge as its service manager does. A request that is under way
// comes to its end; new visitors are turned away at once, and none hangs; what
// never ends is cut off.
func (s *scene) drain() {
	s.t.Helper()
	tr := s.w.transport()
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.w.public["web"]+"/events", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	n := s.w.agent.Events()
	s.w.edge.Interrupt()
	s.w.agent.AwaitAfter(n, "the agent knows that the edge stops", func(e process.Event) bool {
		return e.Event == "link" && e.State != "up"
	})
	s.w.web.Events <- "late"
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "data: late\n" {
		s.t.Errorf("a request that was under way: %q, %v", line, err)
	}
	var refused *turnedAway
	if err := s.w.visit(s.t.Context()); !errors.Is(err, syscall.ECONNREFUSED) && !errors.As(err, &refused) {
		s.t.Errorf("a visitor of an edge that stops: %v", err)
	}
	resp.Body.Close()
	s.die(func() {
		if code := s.w.edge.Wait(); code != 0 {
			s.t.Errorf("the edge ended with %d", code)
		}
	}, s.w.startEdge)
}

// fill takes all room from the edge's database, until the returned function is
// called.
func (s *scene) fill() (free func()) {
	s.t.Helper()
	name := filepath.Join(s.w.edgeDir(), "..", "full")
	f, err := os.Create(name)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err == nil {
			continue
		} else if !errors.Is(err, syscall.ENOSPC) {
			s.t.Fatal(err)
		}
		size /= 2
	}
	// What is free inside of the database is used up, too.
	for n := 0; ; n++ {
		out, err := s.w.try(s.w.lab.Host, "edge", "invite", "--state", s.w.edgeDir())
		if err != nil {
			s.t.Logf("after %d invites: %s", n, out)
			break
		}
		if n == 1000 {
			s.t.Fatal("a full disk keeps nobody from making invites")
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			s.t.Fatal(err)
		}
	}
}

// leave ends the sessions.
func (s *scene) leave() {
	s.t.Helper()
	if err := s.ssh.leave(); err != nil {
		s.lost++
		s.t.Error(err)
	}
	s.fetch.cancel()
	<-s.fetch.done
}

func (s *scene) memory() (m [2]int64) {
	s.t.Helper()
	for i, p := range []*process.Process{s.w.agent, s.w.edge} {
		var err error
		if m[i], err = p.RSS(); err != nil {
			s.t.Fatal(err)
		}
	}
	return m
}

// collection is a line of the Go runtime about a garbage collection, of which
// the last size is what was live (GODEBUG=gctrace=1).
var collection = regexp.MustCompile(`(?m)^gc \d+ .* \d+->\d+->(\d+) MB,`)

// leastCollections are what heaps waits for, in each process.
const leastCollections = 10

// heaps is what agent and edge have on their heaps between doing something
// again and again, in bytes: the least that was live. More is on its way at the
// moment.
func (s *scene) heaps(again func()) (m [2]int64) {
	s.t.Helper()
	processes := [2]*process.Process{s.w.agent, s.w.edge}
	var from [2]int
	for i, p := range processes {
		from[i] = len(p.Stderr())
	}
	for enough := false; !enough; {
		again()
		enough = true
		for i, p := range processes {
			seen := collection.FindAllStringSubmatch(p.Stderr()[from[i]:], -1)
			enough = enough && len(seen) >= leastCollections
			m[i] = math.MaxInt64
			for _, line := range seen {
				mib, err := strconv.ParseInt(line[1], 10, 64)
				if err != nil {
					s.t.Fatal(err)
				}
				m[i] = min(m[i], mib<<20)
			}
		}
	}
	return m
}

// close ends the sessions and tells the row.
func (s *scene) close() result {
	s.t.Helper()
	s.w.web.StopPouring()
	if err := s.fetch.finish(); err != nil {
		s.lost++
		s.t.Error(err)
	}
	if err := s.ssh.leave(); err != nil {
		s.lost++
		s.t.Error(err)
	}
	s.x.end()
	r := result{fault: s.f, lost: s.lost, dead: s.dead, stalls: s.stalls, served: s.served, before: s.before, falseUp: s.x.falseUp()}
	if r.after = s.memory(); s.after != nil {
		r.after = *s.after
	}
	s.t.Logf("\n%s", results{r})
	if wholeTable && r.falseUp > maxFalseUp {
		s.t.Errorf("for %v the status said up while nobody was served", r.falseUp)
	}
	return r
}
