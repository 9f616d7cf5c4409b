// Package process runs programs in tests.
//
//	edge := process.Start(t, process.Config{Name: "edge", Path: binary, Args: []string{"edge", "--json"}})
//	ready := edge.Await("the edge is ready", func(e process.Event) bool { return e.Event == "ready" })
//	edge.Interrupt()
//	code := edge.Wait()
//
// A program that is still there when the test ends is killed, by its process
// id, and so is one whose test process dies (on Linux). When the test fails,
// the end of what the program said is in the test's log.
package process

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a process may take to do what a test waits for.
const patience = 60 * time.Second

// shown is how much of each log a failed test shows, in bytes.
const shown = 16 << 10

// Config is what to run.
type Config struct {
	Name  string // for the test's log
	Path  string
	Args  []string
	Env   []string // besides the test's own
	Dir   string
	Stdin string
	// Start starts the command, for instance in a network namespace. nil:
	// (*exec.Cmd).Start.
	Start func(*exec.Cmd) error
}

func (c Config) start(cmd *exec.Cmd) error {
	if c.Start != nil {
		return c.Start(cmd)
	}
	return cmd.Start()
}

// Event is one line of JSON on a program's standard output: what "wgexpose edge
// --json" and the agent's commands print, with the fields that tests look at.
type Event struct {
	Time      time.Time `json:"time"`
	Event     string    `json:"event"`
	State     string    `json:"state"`
	Name      string    `json:"name"`
	Kind      string    `json:"kind"`
	URL       string    `json:"url"`
	PublicURL string    `json:"public_url"`
	Upstream  string    `json:"upstream"`
	Reason    string    `json:"reason"`
	Transport string    `json:"transport"`
	Edge      string    `json:"edge"`
	Domain    string    `json:"domain"`
	Endpoint  string    `json:"endpoint"`
	WG        string    `json:"wg"`
	HTTPS     string    `json:"https"`
	HTTP      string    `json:"http"`
	Error     *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// Process is a running program.
type Process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd

	mu      sync.Mutex // guards all below
	changed chan struct{}
	stdout  bytes.Buffer
	stderr  bytes.Buffer
	events  []Event
	exited  bool
}

// Start runs a program until it ends, or the test does.
func Start(t testing.TB, cfg Config) *Process {
	t.Helper()
	p := &Process{t: t, name: cfg.Name, changed: make(chan struct{})}
	p.cmd = exec.Command(cfg.Path, cfg.Args...)
	p.cmd.Dir = cfg.Dir
	p.cmd.Env = append(os.Environ(), cfg.Env...)
	p.cmd.Stdin = strings.NewReader(cfg.Stdin)
	p.cmd.SysProcAttr = attributes()
	// Pipes of our own, so that what is read to the end is read before Wait.
	stdout, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, errOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = out, errOut
	if err := cfg.start(p.cmd); err != nil {
		t.Fatalf("start %s: %v", cfg.Name, err)
	}
	out.Close()
	errOut.Close()
	var reading sync.WaitGroup
	reading.Go(func() { p.read(stdout, &p.stdout, p.line) })
	reading.Go(func() { p.read(stderr, &p.stderr, nil) })
	read, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		reading.Wait()
	}()
	go func() {
		defer close(ended)
		_ = p.cmd.Wait() // ProcessState has it all
		// What it wrote last is read before anybody hears of its end. A child
		// that lives on may hold the pipes, and is not waited for.
		select {
		case <-read:
		case <-time.After(time.Second):
		}
		p.update(func() { p.exited = true })
	}()
	t.Cleanup(func() {
		p.Kill()
		<-ended
		stdout.SetReadDeadline(time.Now().Add(time.Second))
		stderr.SetReadDeadline(time.Now().Add(time.Second))
		<-read
		stdout.Close()
		stderr.Close()
		if strings.Contains(p.Stderr(), "WARNING: DATA RACE") {
			t.Errorf("%s: the race detector found a race", p.name)
		}
		if t.Failed() || os.Getenv("WGEXPOSE_E2E_LOGS") == "1" {
			t.Logf("%s, standard output:\n%s\n%s, standard error:\n%s", p.name, tail(p.Stdout()), p.name, tail(p.Stderr()))
		}
	})
	return p
}

func tail(s string) string {
	if len(s) > shown {
		return "…" + s[len(s)-shown:]
	}
	return s
}

// read keeps what comes from r, and gives whole lines to line.
func (p *Process) read(r io.Reader, into *bytes.Buffer, line func([]byte)) {
	b := bufio.NewReader(r)
	for {
		l, err := b.ReadBytes('\n')
		p.update(func() {
			into.Write(l)
			if line != nil && err == nil {
				line(l)
			}
		})
		if err != nil {
			return
		}
	}
}

// line notes an event. The caller must hold p.mu.
func (p *Process) line(l []byte) {
	var e Event
	if json.Unmarshal(l, &e) == nil {
		p.events = append(p.events, e)
	}
}

// update changes p's state and tells those who wait.
func (p *Process) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.changed)
	p.changed = make(chan struct{})
}

// until waits for cond, called with p.mu held. It fails the test after
// patience, and when the program has ended without it.
func (p *Process) until(what string, cond func() bool) {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		p.mu.Lock()
		done, exited, changed := cond(), p.exited, p.changed
		p.mu.Unlock()
		if done {
			return
		}
		if exited {
			p.t.Fatalf("%s ended (%v) before: %s", p.name, p.cmd.ProcessState, what)
		}
		select {
		case <-changed:
		case <-deadline.C:
			p.t.Fatalf("%s: not within %v: %s", p.name, patience, what)
		}
	}
}

// Await returns the first event that matches, of those that came and those that
// will.
func (p *Process) Await(what string, match func(Event) bool) Event {
	p.t.Helper()
	return p.AwaitAfter(0, what, match)
}

// Events returns the number of events so far, for AwaitAfter.
func (p *Process) Events() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.events)
}

// AwaitAfter is Await without the first n events.
func (p *Process) AwaitAfter(n int, what string, match func(Event) bool) (found Event) {
	p.t.Helper()
	p.until(what, func() bool {
		for ; n < len(p.events); n++ {
			if match(p.events[n]) {
				found = p.events[n]
				return true
			}
		}
		return false
	})
	return found
}

// NoEventAfter fails the test if one of the events that came so far, without the
// first n, matches.
func (p *Process) NoEventAfter(n int, what string, match func(Event) bool) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events[n:] {
		if match(e) {
			p.t.Errorf("%s: %s: %+v", p.name, what, e)
		}
	}
}

// AwaitLog waits until cond is true of all that the program wrote to standard
// error.
func (p *Process) AwaitLog(what string, cond func(log string) bool) {
	p.t.Helper()
	p.until(what, func() bool { return cond(p.stderr.String()) })
}

// AwaitOutput is AwaitLog for standard output.
func (p *Process) AwaitOutput(what string, cond func(out string) bool) {
	p.t.Helper()
	p.until(what, func() bool { return cond(p.stdout.String()) })
}

// Poll waits until cond is true of what the program does not write about.
func (p *Process) Poll(what string, cond func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(10 * time.Millisecond) {
		p.mu.Lock()
		exited := p.exited
		p.mu.Unlock()
		if exited {
			p.t.Fatalf("%s ended (%v) before: %s", p.name, p.cmd.ProcessState, what)
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: not within %v: %s", p.name, patience, what)
		}
	}
}

// Stdout returns what the program wrote so far.
func (p *Process) Stdout() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stdout.String()
}

// Stderr returns what the program wrote so far.
func (p *Process) Stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Interrupt asks the program to end, as Ctrl-C does.
func (p *Process) Interrupt() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("interrupt %s: %v", p.name, err)
	}
}

// Hangup sends SIGHUP.
func (p *Process) Hangup() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		p.t.Errorf("SIGHUP for %s: %v", p.name, err)
	}
}

// Kill ends the program at once, as kill -9 does.
func (p *Process) Kill() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("kill %s: %v", p.name, err)
	}
}

// Wait returns the exit code, or -1 when a signal ended the program.
func (p *Process) Wait() int {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		p.mu.Lock()
		exited, changed := p.exited, p.changed
		p.mu.Unlock()
		if exited {
			return p.cmd.ProcessState.ExitCode()
		}
		select {
		case <-changed:
		case <-deadline.C:
			p.t.Fatalf("%s does not end within %v", p.name, patience)
		}
	}
}

// Run runs a program to its end and returns what it wrote to standard output.
// The test fails when the exit code is not 0.
func Run(t testing.TB, cfg Config) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), cfg.Path, cfg.Args...)
	cmd.Dir = cfg.Dir
	cmd.Env = append(os.Environ(), cfg.Env...)
	cmd.Stdin = strings.NewReader(cfg.Stdin)
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = time.Second
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cfg.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("%s %s: %v\nstandard output:\n%s\nstandard error:\n%s",
			cfg.Path, strings.Join(cfg.Args, " "), err, tail(out.String()), tail(errOut.String()))
	}
	return out.String()
}

// Need returns the path of a program, or ends the test: skipped, or failed when
// WGEXPOSE_REQUIRE_TOOLS is 1.
func Need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		// Debian keeps sshd where users do not look.
		path, err = exec.LookPath("/usr/sbin/" + program)
	}
	if err == nil {
		return path
	}
	if os.Getenv("WGEXPOSE_REQUIRE_TOOLS") == "1" {
		t.Fatalf("%s is required (WGEXPOSE_REQUIRE_TOOLS=1) and not installed", program)
	}
	t.Skipf("%s is not installed", program)
	return ""
}

// String names the process in messages.
func (p *Process) String() string { return fmt.Sprintf("%s (%d)", p.name, p.PID()) }
