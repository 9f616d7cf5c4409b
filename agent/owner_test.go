package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/statedir"
)

// TestGuest: two commands on one state directory serve side by side, through
// one link, and each ends by itself.
func TestGuest(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	first, second := listen(t), listen(t)
	echo(t, first, "first")
	echo(t, second, "second")
	a := start(t, Config{Dir: dir, Tunnels: []Tunnel{tcpTunnel("first", first.Addr().String())}})
	a.tunnel(0, "first", TunnelUp)
	b := start(t, Config{Dir: dir, Tunnels: []Tunnel{tcpTunnel("second", second.Addr().String())}})
	b.link(0, LinkUp)
	b.tunnel(0, "second", TunnelUp)
	specs := e.published(j.Node, "first", "second")
	for _, s := range specs {
		c, err := e.dial(t.Context(), netipVisitor, e.overlay.TunnelAddr(j.Node, s.ID))
		if err != nil {
			t.Fatal(err)
		}
		talk(t, c, s.Name)
		c.Close()
	}
	e.mu.Lock()
	sessions := e.opened
	e.mu.Unlock()
	if sessions != 1 {
		t.Errorf("%d event streams were opened", sessions)
	}
	if st, err := ReadStatus(t.Context(), dir); err != nil || len(st.Tunnels) != 2 {
		t.Errorf("status %+v, %v", st, err)
	}

	// The events of one are none of the other's business.
	a.mu.Lock()
	for _, ev := range a.events {
		if ev.Name == "second" {
			t.Errorf("the owner was told %+v", ev)
		}
	}
	a.mu.Unlock()

	if err := b.stop(); err != nil {
		t.Errorf("guest: %v", err)
	}
	b.tunnel(0, "second", TunnelGone)
	e.published(j.Node, "first")
	if err := a.stop(); err != nil {
		t.Errorf("owner: %v", err)
	}
	e.published(j.Node)
}

// TestHandOver: when the owner ends, guests go on with what they had.
func TestHandOver(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	l := listen(t)
	echo(t, l, "guest")
	a := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("own", "8089")}})
	a.tunnel(0, "own", TunnelUp)
	b := start(t, Config{Dir: dir, Tunnels: []Tunnel{tcpTunnel("guest", l.Addr().String())}})
	b.tunnel(0, "guest", TunnelUp)
	c := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("", "8090")}})
	c.tunnel(0, "", TunnelUp)
	before := e.published(j.Node, "own", "guest", "")

	if err := a.stop(); err != nil {
		t.Errorf("owner: %v", err)
	}
	_, n := b.tunnel(0, "guest", TunnelAway)
	b.tunnel(n, "guest", TunnelUp)
	_, n = c.tunnel(0, "", TunnelAway)
	c.tunnel(n, "", TunnelUp)
	after := e.published(j.Node, "guest", "")
	for _, s := range after {
		for _, o := range before {
			if o.Name == s.Name && o != s {
				t.Errorf("%+v became %+v", o, s)
			}
		}
	}
	// No tunnel of theirs was ever missing in what the edge was shown.
	e.mu.Lock()
	for i, set := range e.sets {
		if len(set) < 2 && i > 2 {
			t.Errorf("set %d was %+v", i, set)
		}
	}
	e.mu.Unlock()
	for _, s := range after {
		if s.Name != "guest" {
			continue
		}
		conn, err := e.dial(t.Context(), netipVisitor, e.overlay.TunnelAddr(j.Node, s.ID))
		if err != nil {
			t.Fatal(err)
		}
		talk(t, conn, "guest")
		conn.Close()
	}
}

func TestConflictBetweenCommands(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	a := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "8089")}})
	a.tunnel(0, "app", TunnelUp)

	b := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("app", "9000")}})
	err := b.wait()
	if err == nil || !strings.Contains(err.Error(), `"app"`) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("the same name: %v", err)
	}
	if control.CodeOf(err) != "" {
		t.Errorf("the edge is blamed: %v", err)
	}

	// With others that are good, up goes on.
	c := start(t, Config{Dir: dir, Keep: true, Tunnels: []Tunnel{httpTunnel("app", "9000"), httpTunnel("wiki", "9001")}})
	c.tunnel(0, "wiki", TunnelUp)
	if ev, _ := c.tunnel(0, "app", TunnelError); ev.Error.Code != CodeNameInUse {
		t.Errorf("event %+v", ev)
	}
	specs := e.published(j.Node, "app", "wiki")
	if specs[0].Upstream != "http://127.0.0.1:8089" {
		t.Errorf("the first command lost its tunnel: %+v", specs)
	}
	if err := c.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	e.published(j.Node, "app")
}

// TestEndReachesGuests: a revoked agent ends in all of its processes.
func TestEndReachesGuests(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	a := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("a", "8089")}})
	a.tunnel(0, "a", TunnelUp)
	b := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("b", "8089")}})
	b.tunnel(0, "b", TunnelUp)
	e.say(j.Node, control.ServerEvent{Type: control.EventRevoked})
	for _, r := range []*running{a, b} {
		if err := r.wait(); control.CodeOf(err) != control.CodeRevoked {
			t.Errorf("Run: %v", err)
		}
		r.tunnel(0, "", TunnelGone)
	}
}

// TestGuestIsRefused: an edge's refusal of a guest's tunnel ends the guest and
// not the owner.
func TestGuestIsRefused(t *testing.T) {
	e := newFakeEdge(t)
	e.order(func() { e.taken["b"] = control.CodeNameTaken })
	dir, j := joined(t, e)
	a := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("a", "8089")}})
	a.tunnel(0, "a", TunnelUp)
	b := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("b", "8089")}})
	if err := b.wait(); control.CodeOf(err) != control.CodeNameTaken {
		t.Errorf("guest: %v", err)
	}
	if got := b.lastStates("b"); !slices.Equal(got, []string{TunnelError, TunnelGone}) {
		t.Errorf("states %v", got)
	}
	e.published(j.Node, "a")
	select {
	case <-a.done:
		t.Errorf("the owner ended, too: %v", a.err)
	default:
	}
}

// helperMain is the process that startProcess starts: a Run until its standard
// input ends, its events on standard output.
func helperMain(path string) error {
	dir, err := statedir.Open(path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	out := json.NewEncoder(os.Stdout)
	return Run(ctx, Config{
		Dir: dir, Tunnels: []Tunnel{tcpTunnel(os.Getenv("WGEXPOSE_TEST_NAME"), os.Getenv("WGEXPOSE_TEST_UPSTREAM"))},
		Events: func(e Event) {
			if err := out.Encode(e); err != nil {
				cancel()
			}
		},
	})
}

// process is a Run in a process of its own.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	events *bufio.Scanner
}

func startProcess(t testing.TB, dir *statedir.Dir, name, upstream string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+dir.String(), "WGEXPOSE_TEST_NAME="+name, "WGEXPOSE_TEST_UPSTREAM="+upstream)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, events: bufio.NewScanner(stdout)}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return p
}

// tunnel reads events until the tunnel has a state.
func (p *process) tunnel(state string) {
	p.t.Helper()
	for p.events.Scan() {
		var e Event
		if err := json.Unmarshal(p.events.Bytes(), &e); err != nil {
			p.t.Fatalf("%s: %v", p.events.Bytes(), err)
		}
		if e.Event == EventTunnel && e.State == state {
			return
		}
	}
	p.t.Fatalf("the process ended before its tunnel was %s: %v", state, p.events.Err())
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd.Wait()
}

// TestOwnerIsKilled: kill -9 of the owner leaves nothing that is in the way of
// those that follow.
func TestOwnerIsKilled(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	l := listen(t)
	echo(t, l, "guest")
	owner := startProcess(t, dir, "own", "8089")
	owner.tunnel(TunnelUp)
	b := start(t, Config{Dir: dir, Tunnels: []Tunnel{tcpTunnel("guest", l.Addr().String())}})
	b.tunnel(0, "guest", TunnelUp)
	before := e.published(j.Node, "guest", "own")

	owner.kill()
	_, n := b.tunnel(0, "guest", TunnelAway)
	b.tunnel(n, "guest", TunnelUp)
	after := e.published(j.Node, "guest")
	for _, o := range before {
		if o.Name == "guest" && o != after[0] {
			t.Errorf("%+v became %+v", o, after[0])
		}
	}
	c, err := e.dial(t.Context(), netipVisitor, e.overlay.TunnelAddr(j.Node, after[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c, "guest")
	c.Close()

	// A killed guest: its tunnels go with it.
	guest := startProcess(t, dir, "late", "8089")
	guest.tunnel(TunnelUp)
	e.published(j.Node, "guest", "late")
	guest.kill()
	e.published(j.Node, "guest")
}

// TestOwnerOfAnotherVersion: a guest is told, and not left hanging.
func TestOwnerOfAnotherVersion(t *testing.T) {
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	a := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("a", "8089")}})
	a.tunnel(0, "a", TunnelUp)
	for _, line := range []string{
		`{"version":1,"type":"run"}`,
		`{"version":2,"type":"dance"}`,
		`{"version":2,"type":"run","tunnels":[{"kind":"tcp","name":"x","upstream":"nonsense"}]}`,
	} {
		conn, err := dir.DialUnix(t.Context(), socketFile)
		if err != nil {
			t.Fatal(err)
		}
		c := newLocalConn(conn)
		if _, err := io.WriteString(c, line+"\n"); err != nil {
			t.Fatal(err)
		}
		var m message
		if err := c.readSoon(&m); err != nil || m.Type != msgEnd || m.Error == nil || m.Error.Message == "" {
			t.Errorf("%s: %+v, %v", line, m, err)
		}
		c.Close()
	}
	conn, err := dir.DialUnix(t.Context(), socketFile)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(bytes.Repeat([]byte{'x'}, maxLocalLine+1)); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("garbage was answered with %d bytes", n)
	}
	if st, err := ReadStatus(t.Context(), dir); err != nil || len(st.Tunnels) != 1 {
		t.Errorf("status after all that: %+v, %v", st, err)
	}
}
