package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// fakeSystemctl answers as systemctl would, and remembers what was asked.
type fakeSystemctl struct {
	calls []string
	show  string
	err   error
}

func (f *fakeSystemctl) run(_ context.Context, name string, args ...string) (string, error) {
	f.calls = append(f.calls, name+" "+strings.Join(args, " "))
	return f.show, f.err
}

func TestSystemd(t *testing.T) {
	fake := &fakeSystemctl{}
	dir := filepath.Join(t.TempDir(), "units")
	s := &systemd{spec: specs()["wgexpose-agent-user"], dir: dir, run: fake.run}
	ctx := t.Context()
	for _, act := range []func(context.Context) error{s.Start, s.Stop, s.Restart, s.Uninstall} {
		if err := act(ctx); !errors.Is(err, ErrNotInstalled) {
			t.Errorf("before it is installed: %v", err)
		}
	}
	if st, err := s.Status(ctx); err != nil || st.Installed {
		t.Errorf("before it is installed: %+v, %v", st, err)
	}
	if len(fake.calls) > 0 {
		t.Errorf("systemctl was asked %q", fake.calls)
	}
	if err := s.Install(ctx); err != nil {
		t.Fatal(err)
	}
	want, err := Unit(s.spec)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "wgexpose-agent.service")); err != nil || string(text) != want {
		t.Errorf("unit %q, %v", text, err)
	}
	fake.show = "ActiveState=active\nSubState=running\nUnitFileState=enabled\nStatusText=connected to edge 1 = good\nMainPID=42\n"
	st, err := s.Status(ctx)
	if want := (Status{Name: "wgexpose-agent", Installed: true, Enabled: true, Running: true, State: "active (running)",
		Detail: "connected to edge 1 = good", PID: 42, File: s.file()}); err != nil || st != want {
		t.Errorf("status %+v, %v", st, err)
	}
	for _, act := range []func(context.Context) error{s.Start, s.Restart, s.Stop, s.Uninstall} {
		if err := act(ctx); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(s.file()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unit is left behind: %v", err)
	}
	const unit = " wgexpose-agent.service"
	if want := []string{
		"systemctl --user daemon-reload", "systemctl --user enable" + unit,
		"systemctl --user show --property=ActiveState,SubState,UnitFileState,StatusText,MainPID" + unit,
		"systemctl --user start" + unit, "systemctl --user restart" + unit, "systemctl --user stop" + unit,
		"systemctl --user disable --now" + unit, "systemctl --user daemon-reload",
	}; !reflect.DeepEqual(fake.calls, want) {
		t.Errorf("asked %q", fake.calls)
	}
}

func TestSystemdFailure(t *testing.T) {
	fake := &fakeSystemctl{}
	s := &systemd{spec: specs()["wgexpose-edge"], dir: t.TempDir(), run: fake.run}
	if err := s.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	fake.err = errors.New("job failed")
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "journalctl -u wgexpose-edge") {
		t.Errorf("start: %v", err)
	}
	s.spec.Executable = "/home/me/bin/wgexpose"
	if err := s.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "/usr/local/bin") {
		t.Errorf("a program in a hidden home: %v", err)
	}
}

func TestCommand(t *testing.T) {
	if out, err := command(t.Context(), "sh", "-c", "echo yes; echo no >&2"); err != nil || out != "yes\n" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := command(t.Context(), "sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.HasSuffix(err.Error(), ": why") {
		t.Errorf("%v", err)
	}
	if _, err := command(t.Context(), "no-such-program-is-here"); err == nil || !strings.Contains(err.Error(), "not run by systemd") {
		t.Errorf("%v", err)
	}
}
