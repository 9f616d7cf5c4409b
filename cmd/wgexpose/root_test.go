package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/control"
)

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
		{fmt.Errorf("publish: %w", &control.Error{Code: control.CodeNameTaken}), exitRefused},
		{&control.Error{Code: control.CodeRevoked}, exitRefused},
		{&control.Error{Code: "of a newer edge"}, exitRefused},
		{&control.Error{Code: control.CodeUnavailable}, exitFailure},
		{&control.Error{Code: agent.CodeNameInUse}, exitFailure},
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
