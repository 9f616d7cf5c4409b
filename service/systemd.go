package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// systemd is a service that systemctl manages.
type systemd struct {
	spec Spec
	dir  string // of units
	run  func(ctx context.Context, name string, args ...string) (string, error)
}

// openSystemd finds the directory of units for spec.
func openSystemd(spec Spec) (*systemd, error) {
	s := &systemd{spec: spec, dir: "/etc/systemd/system", run: command}
	if spec.User {
		config := os.Getenv("XDG_CONFIG_HOME")
		if !filepath.IsAbs(config) {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, fmt.Errorf("find the directory of user units: %w", err)
			}
			config = filepath.Join(home, ".config")
		}
		s.dir = filepath.Join(config, "systemd", "user")
	}
	return s, nil
}

// command runs a program and returns what it printed. Its complaint is part of
// the error.
func command(ctx context.Context, name string, args ...string) (string, error) {
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("%s is not here: this machine is not run by systemd", name)
	case err != nil && strings.TrimSpace(stderr.String()) != "":
		err = fmt.Errorf("%s %s: %s", name, strings.Join(args, " "), strings.TrimSpace(stderr.String()))
	case err != nil:
		err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return stdout.String(), err
}

func (s *systemd) unit() string { return s.spec.Name() + ".service" }
func (s *systemd) file() string { return filepath.Join(s.dir, s.unit()) }

func (s *systemd) systemctl(ctx context.Context, args ...string) (string, error) {
	if s.spec.User {
		args = append([]string{"--user"}, args...)
	}
	return s.run(ctx, "systemctl", args...)
}

// Install writes the unit, in place of an earlier one, and has it started at
// boot, or at login for a unit of a user. It does not start it.
func (s *systemd) Install(ctx context.Context) error {
	text, err := Unit(s.spec)
	if err != nil {
		return err
	}
	if err := s.seesExecutable(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return fmt.Errorf("install %s: %w", s.unit(), privileged(err))
	}
	if err := os.WriteFile(s.file(), []byte(text), 0o644); err != nil {
		return fmt.Errorf("install %s: %w", s.unit(), privileged(err))
	}
	if _, err := s.systemctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	_, err = s.systemctl(ctx, "enable", s.unit())
	return err
}

// seesExecutable refuses a program that the unit of a system hides from itself.
func (s *systemd) seesExecutable() error {
	for _, hidden := range []string{"/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/"} {
		if !s.spec.User && strings.HasPrefix(s.spec.Executable, hidden) {
			return fmt.Errorf("a service of the machine sees nothing below %s, and this program is %s: sudo install %s /usr/local/bin/, and call that one", hidden, s.spec.Executable, s.spec.Executable)
		}
	}
	return nil
}

func privileged(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: a service of the machine is installed by root (sudo), one of your own with --user", err)
	}
	return err
}

// Uninstall stops the service and removes its unit. The state stays.
func (s *systemd) Uninstall(ctx context.Context) error {
	if err := s.installed(); err != nil {
		return err
	}
	if _, err := s.systemctl(ctx, "disable", "--now", s.unit()); err != nil {
		return err
	}
	if err := os.Remove(s.file()); err != nil {
		return fmt.Errorf("uninstall %s: %w", s.unit(), privileged(err))
	}
	_, err := s.systemctl(ctx, "daemon-reload")
	return err
}

// Start returns when the process is ready, and with an error if it is not to be.
func (s *systemd) Start(ctx context.Context) error { return s.act(ctx, "start") }

// Stop returns when the process has drained and ended.
func (s *systemd) Stop(ctx context.Context) error { return s.act(ctx, "stop") }

// Restart is Stop and Start.
func (s *systemd) Restart(ctx context.Context) error { return s.act(ctx, "restart") }

func (s *systemd) act(ctx context.Context, verb string) error {
	if err := s.installed(); err != nil {
		return err
	}
	if _, err := s.systemctl(ctx, verb, s.unit()); err != nil {
		journal := "journalctl"
		if s.spec.User {
			journal += " --user"
		}
		return fmt.Errorf("%w\nwhat the process said: %s -u %s", err, journal, s.spec.Name())
	}
	return nil
}

func (s *systemd) installed() error {
	_, err := os.Stat(s.file())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s %w: there is no %s (wgexpose service install)", s.spec.Name(), ErrNotInstalled, s.file())
	}
	return err
}

// Status asks systemd.
func (s *systemd) Status(ctx context.Context) (Status, error) {
	st := Status{Name: s.spec.Name()}
	if err := s.installed(); err != nil {
		if errors.Is(err, ErrNotInstalled) {
			return st, nil
		}
		return st, err
	}
	st.Installed, st.File = true, s.file()
	out, err := s.systemctl(ctx, "show", "--property=ActiveState,SubState,UnitFileState,StatusText,MainPID", s.unit())
	if err != nil {
		return st, err
	}
	values := make(map[string]string)
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[key] = value
		}
	}
	st.Enabled = values["UnitFileState"] == "enabled"
	st.Running = values["ActiveState"] == "active" || values["ActiveState"] == "reloading"
	st.State = fmt.Sprintf("%s (%s)", values["ActiveState"], values["SubState"])
	st.Detail = values["StatusText"]
	st.PID, _ = strconv.Atoi(values["MainPID"]) // 0: no process
	return st, nil
}
