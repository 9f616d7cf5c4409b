package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/wgexpose/wgexpose/bench/link"
	"github.com/wgexpose/wgexpose/e2e/lab"
	"github.com/wgexpose/wgexpose/e2e/process"
)

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
	{name: "1300 bytes, silently, over TLS", options: worldOptions{noUDP: true}, run: func(s *scene) {
		narrow := lab.Good
		narrow.MTU = 1300
		s.strike(func() {
			s.w.lab.Wire(narrow)
			s.pass(long(20*time.Second, time.Second))
		})
		s.strike(func() { // and a connection that is made there
			s.leave()
			kill(s.w.agent)
			s.w.startAgent()
			s.w.awaitUp("web")
			s.enter()
		})
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
	{name: "reconnects, for memory", options: worldOptions{heap: true}, run: func(s *scene) {
		done := 0
		reconnect := func() {
			n := s.w.agent.Events()
			s.w.lab.Move()
			s.w.awaitLink(n, "udp")
			done++
		}
		s.strike(func() {
			if !wholeTable {
				reconnect()
				return
			}
			var first [2]int64
			for _, times := range []int{50, 500, 1000, 2000} {
				for done < times {
					reconnect()
				}
				heap := s.heaps(reconnect)
				s.t.Logf("after %d reconnects: live heap of agent and edge %s MiB, resident %s MiB", done, pairOf(heap), pairOf(s.memory()))
				if times == 50 {
					first = heap
				}
				for i, who := range []string{"agent", "edge"} {
					if heap[i] > first[i]+first[i]/10 {
						s.t.Errorf("the %s's live heap went from %d to %d MiB", who, first[i]>>20, heap[i]>>20)
					}
				}
				s.before, s.after = first, &heap
			}
		})
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
