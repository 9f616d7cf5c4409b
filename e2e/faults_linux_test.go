package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/wgexpose/wgexpose/bench/link"
	"github.com/wgexpose/wgexpose/e2e/lab"
	"github.com/wgexpose/wgexpose/e2e/process"
)

// wholeTable has every fault as often and as long as it takes to tell numbers;
// otherwise each comes once or twice, and nothing is asked of the clock.
var wholeTable = os.Getenv("WGEXPOSE_FAULTS") == "all"

// fullPatience bounds every wait. It is no expectation.
const fullPatience = 2 * time.Minute

// often is how often something is done in the whole table, or else.
func often(whole, else_ int) int {
	if wholeTable {
		return whole
	}
	return else_
}

func long(whole, else_ time.Duration) time.Duration {
	if wholeTable {
		return whole
	}
	return else_
}

// fault is a row of the table.
type fault struct {
	name    string
	options worldOptions
	goal    time.Duration // for the 95th percentile of what is measured; 0: none
	whole   bool          // in the whole table only
	served  bool          // the goal is for new visitors, and not for the one who types
	run     func(*scene)
}

var faults = []fault{
	{name: "the agent's address changes", goal: time.Second, run: func(s *scene) {
		for range often(100, 2) {
			s.strike(s.w.lab.Move)
		}
	}},
	{name: "the NAT forgets", goal: 5 * time.Second, run: func(s *scene) {
		for range often(10, 1) {
			s.strike(s.w.lab.ForgetNAT)
		}
	}},
	{name: "5 in 100 lost, doubled, late", run: func(s *scene) {
		bad := lab.Good
		bad.Loss, bad.Duplicate, bad.Reorder, bad.HoldBack = 0.05, 0.05, 0.05, 15*time.Millisecond
		s.strike(func() {
			s.w.lab.Wire(bad)
			s.pass(long(30*time.Second, 2*time.Second))
		})
		s.strike(func() { s.w.lab.Wire(lab.Good) })
	}},
	{name: "the path takes 1300 bytes, silently", run: func(s *scene) {
		narrow := lab.Good
		narrow.MTU = 1300
		s.strike(func() {
			s.w.lab.Wire(narrow)
			s.pass(long(20*time.Second, time.Second))
		})
		s.flows()
		s.strike(func() { s.w.lab.Wire(lab.Good) })
	}},
	{name: "no network", goal: time.Second, served: true, run: func(s *scene) {
		s.w.lab.Unplug()
		s.pass(long(time.Minute, 5*time.Second))
		s.strike(s.w.lab.Move)
	}},
	{name: "the way is dead", goal: 6 * time.Second, served: true, run: func(s *scene) {
		s.w.lab.Wire(link.Conditions{Down: true})
		s.pass(long(time.Minute, 5*time.Second))
		s.strike(func() { s.w.lab.Wire(lab.Good) })
	}},
	{name: "the agent is stopped (SIGSTOP)", goal: 2 * time.Second, served: true, run: func(s *scene) {
		s.signal(syscall.SIGSTOP)
		s.pass(long(5*time.Minute, 8*time.Second))
		s.strike(func() { s.signal(syscall.SIGCONT) })
	}},
	{name: "UDP is blocked", goal: 5 * time.Second, run: func(s *scene) {
		for i := range often(3, 1) {
			if i > 0 { // UDP that fails again soon after it worked is tried less often
				s.pass(70 * time.Second)
			}
			n := s.w.agent.Events()
			s.strike(func() { s.w.lab.Filter(lab.NoUDP) })
			s.w.awaitLink(n, "tls")
			n = s.w.agent.Events()
			s.quietly(func() { s.w.lab.Filter("") })
			s.w.awaitLink(n, "udp")
			s.strike(func() {}) // the way back has cost nobody anything
		}
	}},
	{name: "start without UDP", goal: 3 * time.Second, served: true, options: worldOptions{noUDP: true}, run: func(s *scene) {
		for range often(10, 1) {
			s.leave()
			kill(s.w.agent)
			s.served = append(s.served, s.since(func() { s.w.startAgent(); s.w.awaitUp("web") }))
			s.enter()
		}
	}},
	{name: "the edge is killed (-9)", goal: 2 * time.Second, served: true, run: func(s *scene) {
		for range often(20, 1) {
			s.die(func() { kill(s.w.edge) }, s.w.startEdge)
		}
	}},
	{name: "the edge is stopped (SIGTERM)", goal: 2 * time.Second, served: true, run: func(s *scene) {
		for range often(5, 1) {
			s.drain()
		}
	}},
	{name: "the agent is killed (-9)", goal: time.Second, served: true, run: func(s *scene) {
		for range often(20, 1) {
			s.die(func() { kill(s.w.agent) }, s.w.startAgent)
		}
	}},
	{name: "both are killed (-9)", goal: 2 * time.Second, served: true, run: func(s *scene) {
		for range often(20, 1) {
			s.die(func() { kill(s.w.edge); kill(s.w.agent) }, func() { s.w.startAgent(); s.w.startEdge() })
		}
	}},
	{name: "the database's disk is full", options: worldOptions{smallDisk: true}, goal: 2 * time.Second, served: true, run: func(s *scene) {
		room := s.fill()
		s.strike(s.w.lab.Move)
		s.die(func() { kill(s.w.agent) }, s.w.startAgent)
		s.die(func() { kill(s.w.edge) }, s.w.startEdge)
		room()
		s.die(func() { kill(s.w.agent) }, s.w.startAgent)
	}},
	{name: "restart, the clock an hour back", options: worldOptions{clock: true}, goal: 10 * time.Second, served: true, run: func(s *scene) {
		kill(s.w.agent)
		s.w.setClock(s.t, -time.Hour)
		s.w.startAgent()
		s.w.agent.Await("the state says that it is the clock", func(e process.Event) bool {
			return e.Event == "link" && e.State == "degraded" && strings.HasPrefix(e.Reason, "clock: ")
		})
		s.die(func() {}, func() { s.w.setClock(s.t, 0) })
	}},
	{name: "the clock is set back while it runs", whole: true, options: worldOptions{clock: true}, goal: 5 * time.Second, run: func(s *scene) {
		// A session of WireGuard lives for three minutes without a handshake.
		s.strike(func() {
			s.w.setClock(s.t, -time.Hour)
			s.pass(4 * time.Minute)
		})
	}},
	{name: "reconnects, for memory", run: func(s *scene) {
		reconnect := func(times int) {
			for range times {
				n := s.w.agent.Events()
				s.w.lab.Move()
				s.w.awaitLink(n, "udp")
			}
		}
		// Tops, since what is between them is the garbage collector's.
		s.strike(func() {
			reconnect(often(100, 1))
			s.before = s.tops(func() { reconnect(often(100, 1)) })
			reconnect(often(800, 1))
			after := s.tops(func() { reconnect(often(100, 1)) })
			s.after = &after
		})
		for i, who := range []string{"agent", "edge"} {
			if before, after := s.before[i], s.after[i]; wholeTable && after > before+before/10 {
				s.t.Errorf("the %s's memory went from %d to %d MiB", who, before>>20, after>>20)
			}
		}
	}},
	{name: "the edge's name leads elsewhere", goal: 10 * time.Second, run: func(s *scene) {
		// The first address is dead from then on.
		s.strike(func() {
			s.w.lab.DNS.Set(edgeName, lab.Spare)
			s.w.lab.Filter(fmt.Sprintf("ip daddr %v drop\n", lab.Cloud))
		})
		s.strike(func() {
			s.w.lab.DNS.Set(edgeName, lab.Cloud)
			s.w.lab.Filter(fmt.Sprintf("ip daddr %v drop\n", lab.Spare))
		})
	}},
}

// TestFaults breaks what is between visitors and a service in every way of the
// table, while somebody types in an ssh session and a download runs, and prints
// what came of it.
func TestFaults(t *testing.T) {
	lab.Open(t) // skips all of them at once
	var table results
	for _, f := range faults {
		if f.whole && !wholeTable {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			s := startScene(t, f)
			f.run(s)
			table = append(table, s.close())
		})
	}
	t.Logf("\n%s", table)
}

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

// tops are the most that agent and edge have in memory while something is done.
func (s *scene) tops(what func()) (m [2]int64) {
	s.t.Helper()
	var stops [2]func() (process.Memory, error)
	for i, p := range []*process.Process{s.w.agent, s.w.edge} {
		stops[i] = p.Watch()
	}
	what()
	for i, stop := range stops {
		seen, err := stop()
		if err != nil {
			s.t.Fatal(err)
		}
		m[i] = seen.Peak
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

// maxFalseUp is how long the status may lag behind.
const maxFalseUp = 5 * time.Second

type result struct {
	fault          fault
	lost, dead     int
	stalls, served []time.Duration
	before, after  [2]int64
	falseUp        time.Duration
}

// results print as a table.
type results []result

func (rs results) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "FAULT\tTIMES\tLOST\tENDED\tTYPIST WAITS (p50 p95 max)\tSERVED AGAIN (p50 p95 max)\tGOAL\tMET\tAGENT MiB\tEDGE MiB\tFALSE UP")
	for _, r := range rs {
		times := max(len(r.stalls), len(r.served))
		goal, met := "-", "-"
		if r.fault.goal > 0 {
			measured, what := r.stalls, "typist"
			if r.fault.served {
				measured, what = r.served, "served"
			}
			goal, met = fmt.Sprintf("%s %v", what, r.fault.goal), "yes"
			if percentile(measured, 95) > r.fault.goal {
				met = "NO"
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%.1f s\n", r.fault.name, times, r.lost, r.dead,
			spread(r.stalls), spread(r.served), goal, met, growthOf(r.before[0], r.after[0]), growthOf(r.before[1], r.after[1]), r.falseUp.Seconds())
	}
	w.Flush()
	return b.String()
}

func growthOf(before, after int64) string {
	return fmt.Sprintf("%.0f→%.0f", float64(before)/(1<<20), float64(after)/(1<<20))
}

func spread(ds []time.Duration) string {
	if len(ds) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f %.2f %.2f s", percentile(ds, 50).Seconds(), percentile(ds, 95).Seconds(), slices.Max(ds).Seconds())
}

func percentile(ds []time.Duration, p int) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(ds))
	return sorted[(len(sorted)*p+99)/100-1]
}
