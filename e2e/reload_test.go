package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/e2e/process"
)

// conversation is an open connection to a tunnel.
type conversation struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (s *system) converse(name string) *conversation {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr(name))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	talk := &conversation{s.t, c, bufio.NewReader(c)}
	talk.goesOn("first words")
	return talk
}

func (c *conversation) goesOn(words string) {
	c.t.Helper()
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.WriteString(c.conn, words+"\n"); err != nil {
		c.t.Fatal(err)
	}
	if line, err := c.in.ReadString('\n'); err != nil || line != words+"\n" {
		c.t.Fatalf("%q came back as %q, %v", words, line, err)
	}
}

// A changed file takes effect while it runs, without a break for what has not
// changed: as the process that holds the links, and as another one's guest.
func TestReload(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGHUP")
	}
	for _, role := range []string{"owner", "guest"} {
		t.Run(role, func(t *testing.T) {
			web := origin.StartWeb(t)
			echo := origin.StartTCP(t, func(c *net.TCPConn) { io.Copy(c, c) }).Addr()
			hello := origin.StartTCP(t, func(c *net.TCPConn) { io.WriteString(c, "another upstream\n") }).Addr()
			s := newSystem(t)
			if role == "guest" {
				owner := process.Start(t, process.Config{Name: "owner", Path: binary, Args: []string{
					"http", web.Addr(), "--name", "other", "--json", "--state", s.agentDir(), "--web-addr", "127.0.0.1:0"}})
				owner.Await("up", func(e process.Event) bool { return e.Event == "tunnel" && e.State == "up" })
			}
			kept := share{name: "kept", kind: "tcp", upstream: echo}
			policy := share{name: "policy", kind: "tcp", upstream: echo}
			moved := share{name: "moved", kind: "tcp", upstream: echo}
			gone := share{name: "gone", kind: "http", upstream: web.Addr()}
			s.share("", kept, policy, moved, gone)
			open := map[string]*conversation{"kept": s.converse("kept"), "policy": s.converse("policy")}

			n := s.agent.Events()
			after := func(what, event, state string) process.Event {
				t.Helper()
				return s.agent.AwaitAfter(n, what, func(e process.Event) bool { return e.Event == event && e.State == state })
			}
			goesOn := func(words string) {
				t.Helper()
				for _, c := range open {
					c.goesOn(words)
				}
			}

			// As editors do it: another file in the place of the old one.
			policy.more = "cidr_deny: 192.0.2.0/24"
			moved.upstream = hello
			added := share{name: "added", kind: "http", upstream: web.Addr()}
			s.replaceConfig(kept, policy, moved, added)
			if e := after("the file is applied", "config", "applied"); e.Reason != "added added; removed gone; changed policy, moved; open connections of moved, gone have 10 s to finish" {
				t.Errorf("reason %q", e.Reason)
			}
			s.public["added"] = s.awaitUp(n, "added").PublicURL
			if e := after("gone is gone", "tunnel", "gone"); e.Name != "gone" {
				t.Errorf("%s is gone", e.Name)
			}
			goesOn("after the change")
			answer, err := s.client(true).Get(s.public["added"])
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				t.Errorf("the new tunnel: %s", answer.Status)
			}
			if s.upstream("moved") != "tcp://"+hello {
				t.Errorf("moved leads to %s", s.upstream("moved"))
			}

			// A mistake changes nothing, and is told with its place.
			n = s.agent.Events()
			s.rename("tunnels:\n  kept: {kind: tcp, upstream: 1}\n  bad:\n    kind: htp\n")
			if e := after("the mistake is told", "config", "refused"); !strings.Contains(e.Reason, "wgexpose.yml:4: tunnels.bad.kind:") {
				t.Errorf("reason %q", e.Reason)
			}
			goesOn("after the mistake")
			if s.upstream("kept") != "tcp://"+echo {
				t.Errorf("kept leads to %s", s.upstream("kept"))
			}

			// SIGHUP looks again, and what is as it was says so.
			s.replaceConfig(kept, policy, moved, added)
			n = s.agent.Events()
			s.agent.Hangup()
			if e := after("an answer to SIGHUP", "config", "applied"); e.Reason != "" {
				t.Errorf("reason %q", e.Reason)
			}
			goesOn("after SIGHUP")
			for _, c := range open {
				c.conn.Close()
			}
			s.agent.Interrupt()
			if code := s.agent.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// replaceConfig puts another file in the place of the config file.
func (s *system) replaceConfig(tunnels ...share) {
	s.t.Helper()
	s.rename(configText("", tunnels...))
}

func (s *system) rename(text string) {
	s.t.Helper()
	next := s.configFile() + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(next, s.configFile()); err != nil {
		s.t.Fatal(err)
	}
}

// upstream is where a tunnel leads by now.
func (s *system) upstream(name string) string {
	s.t.Helper()
	for line := range strings.Lines(s.run("", "status", "--state", s.agentDir())) {
		if f := strings.Fields(line); len(f) > 4 && f[0] == name {
			return f[4]
		}
	}
	return ""
}
