//go:build linux

package process

import (
	"context"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sh(script string) Config {
	return Config{Name: "script", Path: "/bin/sh", Args: []string{"-c", script}}
}

func start(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(sh(script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// gone tells whether there is no process of that id, other than one that has
// ended and waits to be buried by whoever adopted it.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) == syscall.ESRCH {
		return true
	}
	out, err := Run(context.Background(), sh("cut -d' ' -f3 /proc/"+strconv.Itoa(pid)+"/stat"), "")
	return err != nil || strings.TrimSpace(out) == "Z"
}

func TestLinesGoBothWays(t *testing.T) {
	p := start(t, `echo ready; read line; echo "got $line"; echo end`)
	ctx := t.Context()
	if line, err := p.Next(ctx); err != nil || string(line) != "ready" {
		t.Fatalf("%q, %v; want ready", line, err)
	}
	if err := p.Send(map[string]int{"n": 5}); err != nil {
		t.Fatal(err)
	}
	line, err := p.Await(ctx, func(b []byte) bool { return strings.HasPrefix(string(b), "got") })
	if err != nil || string(line) != `got {"n":5}` {
		t.Fatalf("%q, %v", line, err)
	}
	if line, err := p.Next(ctx); err != nil || string(line) != "end" {
		t.Fatalf("%q, %v; want end", line, err)
	}
	if line, err := p.Next(ctx); !errors.Is(err, ErrEnded) {
		t.Fatalf("%q, %v; want ErrEnded", line, err)
	}
}

func TestFailureTellsWhatWasSaid(t *testing.T) {
	_, err := Run(t.Context(), sh(`echo "no such port" >&2; exit 3`), "")
	if err == nil || !strings.Contains(err.Error(), "no such port") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("the error is %v", err)
	}
	if out, err := Run(t.Context(), sh(`cat`), "one\ntwo\n"); err != nil || out != "one\ntwo\n" {
		t.Errorf("cat gave %q, %v", out, err)
	}
}

func TestStopEndsWhatTheProgramStartedToo(t *testing.T) {
	p := start(t, `sleep 600 & echo $!; wait`)
	line, err := p.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(string(line))
	if err != nil {
		t.Fatal(err)
	}
	p.Stop()
	p.Stop()
	if !gone(p.PID()) {
		t.Error("the program is still there")
	}
	deadline := time.Now().Add(10 * time.Second)
	for !gone(child) { // killed, and not ours to wait for
		if time.Now().After(deadline) {
			t.Fatal("its child is still there")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestStopKillsWhoIgnoresIt(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the whole grace")
	}
	p := start(t, `trap "" TERM; echo ready; while :; do sleep 1; done`)
	if _, err := p.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	if !gone(p.PID()) {
		t.Error("the program is still there")
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	p := start(t, `sleep 600`)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := p.Next(ctx); !errors.Is(err, why) {
		t.Errorf("%v, want %v", err, why)
	}
}

func TestStartThroughAnother(t *testing.T) {
	cfg := sh("echo hello")
	refused := errors.New("no namespace")
	cfg.Start = func(*exec.Cmd) error { return refused }
	if _, err := Start(cfg); !errors.Is(err, refused) {
		t.Errorf("%v, want %v", err, refused)
	}
}
