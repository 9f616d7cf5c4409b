package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"wgexpose": main})
}

// patience is how long a script waits for what must happen at some time.
const patience = time.Minute

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
			env.Setenv("XDG_STATE_HOME", filepath.Join(home, "state"))
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
			running := make(processes)
			env.Values[processesKey{}] = running
			env.Defer(running.killAll)
			return os.MkdirAll(filepath.Join(home, "run"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":     startProcess,
			"await":     awaitLine,
			"interrupt": stopProcess,
			"ended":     endedProcess,
			"code":      exitsWith,
			"upstream":  startUpstream,
			"expand":    expand,
			"fetch":     fetch,
			"talk":      talk,
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "root":
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
	})
}

type processesKey struct{}

// processes are the programs that a script has running, by their names there.
type processes map[string]*process

type process struct {
	cmd   *exec.Cmd
	lines chan string // of stdout; closed at its end
	done  chan error

	mu  sync.Mutex // guards log
	log strings.Builder
}

func (p *process) note(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log.WriteString(line + "\n")
}

func (p *process) Write(b []byte) (int, error) {
	p.note(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

func (p *process) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
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
	p := &process{lines: make(chan string, 1000), done: make(chan error, 1)}
	p.cmd = exec.Command("wgexpose", args[1:]...)
	p.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"HOME", "PATH", "TMPDIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"} {
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

// upstream HTTP TCP: starts a web server and an echo, and sets the variables
// to their ports.
func startUpstream(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: upstream HTTPVAR TCPVAR")
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "upstream %s for %s\n", r.URL.Path, r.Host)
	}))
	ts.Defer(web.Close)
	_, port, err := net.SplitHostPort(web.Listener.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)

	echo, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveEcho(ctx, echo) }()
	ts.Defer(func() { cancel(); <-done })
	_, port, err = net.SplitHostPort(echo.Addr().String())
	ts.Check(err)
	ts.Setenv(args[1], port)
}

// expand FILE: puts the values of variables into a file.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: expand FILE")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// fetch [-ca FILE] URL ADDRESS: gets the URL from the address, and prints the
// status and the body.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	roots := x509.NewCertPool()
	if len(args) == 4 && args[0] == "-ca" {
		if !roots.AppendCertsFromPEM([]byte(ts.ReadFile(args[1]))) {
			ts.Fatalf("%s has no certificate", args[1])
		}
		args = args[2:]
	}
	if len(args) != 2 {
		ts.Fatalf("usage: fetch [-ca FILE] URL ADDRESS")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: roots},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, args[1])
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	ts.Check(err)
	answer, err := client.Do(request)
	if neg {
		if err == nil {
			answer.Body.Close()
			ts.Fatalf("answered %s", answer.Status)
		}
		fmt.Fprintln(ts.Stdout(), err)
		return
	}
	ts.Check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s\n%s\n%s", answer.Status, answer.Header.Get("Wgexpose-Error"), body)
}

// talk ADDRESS TEXT: sends the text over TCP, ends its half, and prints all
// that comes back.
func talk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: talk ADDRESS TEXT")
	}
	c, err := net.DialTimeout("tcp", args[0], patience)
	ts.Check(err)
	defer c.Close()
	ts.Check(c.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(c, args[1])
	ts.Check(err)
	ts.Check(c.(*net.TCPConn).CloseWrite())
	_, err = io.Copy(ts.Stdout(), c)
	ts.Check(err)
}

// Every command must be explained the same way.
func TestHelpOfEveryCommand(t *testing.T) {
	var a app
	var visit func(path string)
	visited := 0
	visit = func(path string) {
		root := a.rootCommand()
		cmd, _, err := root.Find(strings.Fields(path))
		if err != nil {
			t.Fatal(err)
		}
		visited++
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("wgexpose%s: no short description or no example", path)
		}
		if cmd.Long == "" {
			t.Errorf("wgexpose%s: no long description", path)
		}
		var stdout, stderr strings.Builder
		args := append(strings.Fields(path), "--help")
		if code := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); code != 0 {
			t.Errorf("wgexpose%s --help: exit %d: %s", path, code, stderr.String())
		}
		if !strings.Contains(stdout.String(), cmd.Example) || stderr.Len() > 0 {
			t.Errorf("wgexpose%s --help prints no example, or something on stderr %q", path, stderr.String())
		}
		for _, sub := range cmd.Commands() {
			visit(path + " " + sub.Name())
		}
	}
	visit("")
	if visited < 20 {
		t.Errorf("only %d commands", visited)
	}
}

func TestExitCodes(t *testing.T) {
	a := &app{started: true}
	for _, test := range []struct {
		err  error
		want int
	}{
		{errors.New("x"), exitFailure},
		{usagef("x"), exitUsage},
		{fmt.Errorf("share: %w", usagef("x")), exitUsage},
	} {
		if got := a.exitCode(test.err); got != test.want {
			t.Errorf("exit code of %v is %d, want %d", test.err, got, test.want)
		}
	}
	a.started = false
	if got := a.exitCode(errors.New("unknown flag")); got != exitUsage {
		t.Errorf("before a command begins the exit code is %d, want %d", got, exitUsage)
	}
}

func TestDrainOnSignal(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot interrupt itself on Windows")
	}
	ctx, stop := drainOnSignal(t.Context())
	defer stop()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
}
