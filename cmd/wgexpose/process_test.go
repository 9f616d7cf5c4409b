package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

type processesKey struct{}

// processes are the programs that a script has running, by their names there.
type processes map[string]*process

type process struct {
	cmd   *exec.Cmd
	lines chan string // of stdout; closed at its end
	done  chan error

	mu   sync.Mutex // guards all below
	log  strings.Builder
	more chan struct{} // closed and replaced when log grows
}

func (p *process) note(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log.WriteString(line + "\n")
	close(p.more)
	p.more = make(chan struct{})
}

func (p *process) Write(b []byte) (int, error) {
	p.note(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

func (p *process) printed() string {
	text, _ := p.soFar()
	return text
}

// soFar is all that was printed, and a channel that closes when there is more.
func (p *process) soFar() (string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String(), p.more
}

func (ps processes) killAll() {
	for _, p := range ps {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
	}
}

func named(ts *testscript.TestScript, name string) *process {
	p := ts.Value(processesKey{}).(processes)[name]
	if p == nil {
		ts.Fatalf("nothing with the name %s was started", name)
	}
	return p
}

// start NAME ARGS…: runs wgexpose in the background.
func startProcess(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME ARGS…")
	}
	p := &process{lines: make(chan string, 1000), done: make(chan error, 1), more: make(chan struct{})}
	p.cmd = exec.Command("wgexpose", args[1:]...)
	p.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"HOME", "PATH", "TMPDIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "WGEXPOSE_WEB_ADDR", "NOTIFY_SOCKET", "WATCHDOG_USEC"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+ts.Getenv(name))
	}
	p.cmd.Stderr = p
	stdout, err := p.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(p.cmd.Start())
	ts.Value(processesKey{}).(processes)[args[0]] = p
	go func() {
		for scan := bufio.NewScanner(stdout); scan.Scan(); {
			p.note(scan.Text())
			p.lines <- scan.Text()
		}
		close(p.lines)
		p.done <- p.cmd.Wait()
		close(p.done)
	}()
}

// await NAME REGEXP [VAR…]: reads on in what the program prints until a line
// matches, and sets the variables to the groups.
func awaitLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await NAME REGEXP [VAR…]")
	}
	p, want := named(ts, args[0]), regexp.MustCompile(args[1])
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				ts.Fatalf("%s ended without a line like %s:\n%s", args[0], want, p.printed())
			}
			m := want.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			for i, name := range args[2:] {
				ts.Setenv(name, m[i+1])
			}
			return
		case <-limit.C:
			ts.Fatalf("no line like %s from %s:\n%s", want, args[0], p.printed())
		}
	}
}

// logged NAME REGEXP: waits until the program has printed it, on stdout or stderr.
func awaitLog(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: logged NAME REGEXP")
	}
	p, want := named(ts, args[0]), regexp.MustCompile(args[1])
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		text, more := p.soFar()
		if want.MatchString(text) {
			return
		}
		select {
		case <-more:
		case <-limit.C:
			ts.Fatalf("%s does not print %s:\n%s", args[0], want, text)
		}
	}
}

// kill2 NAME DRAINING: interrupts the program, waits until it says that it is
// draining, interrupts it again, and wants it to end at once.
func killTwice(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: kill2 NAME DRAINING")
	}
	p := named(ts, args[0])
	ts.Check(p.cmd.Process.Signal(os.Interrupt))
	awaitLog(ts, false, args)
	ts.Check(p.cmd.Process.Signal(os.Interrupt))
	p.ends(ts, args[0], exitFailure)
}

// dump NAME FUNCTION: ends the program with SIGQUIT, on which a Go program prints what
// all its goroutines do, and wants one in that function.
func dumpProcess(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: dump NAME FUNCTION")
	}
	p := named(ts, args[0])
	ts.Check(p.cmd.Process.Signal(syscall.SIGQUIT))
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-p.done:
	case <-limit.C:
		ts.Fatalf("%s does not end:\n%s", args[0], p.printed())
	}
	// note breaks lines where a read ended.
	if text := p.printed(); !strings.Contains(strings.ReplaceAll(text, "\n", ""), args[1]+"(") {
		ts.Fatalf("no goroutine of %s is in %s:\n%s", args[0], args[1], text)
	}
}

// interrupt NAME [CODE]: interrupts the program and checks how it ends.
func stopProcess(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: interrupt NAME [CODE]")
	}
	p, want := named(ts, args[0]), 0
	if len(args) > 1 {
		var err error
		want, err = strconv.Atoi(args[1])
		ts.Check(err)
	}
	ts.Check(p.cmd.Process.Signal(os.Interrupt))
	p.ends(ts, args[0], want)
}

// ended NAME CODE: waits for the program to end by itself.
func endedProcess(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ended NAME CODE")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	named(ts, args[0]).ends(ts, args[0], want)
}

func (p *process) ends(ts *testscript.TestScript, name string, want int) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-p.done:
	case <-limit.C:
		ts.Fatalf("%s does not end:\n%s", name, p.printed())
	}
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("%s ended with %d, want %d:\n%s", name, got, want, p.printed())
	}
	ts.Logf("%s", p.printed())
}

// code N ARGS…: runs wgexpose and checks its exit code.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: code N ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("wgexpose", args[1:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
