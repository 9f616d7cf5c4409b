//go:build !linux

package service

import (
	"context"
	"errors"
	"fmt"
	"os"

	native "github.com/kardianos/service"
)

// NeedsLinger is about systemd.
const NeedsLinger = false

// Service is one that may be installed or not.
type Service struct {
	spec   Spec
	native native.Service
}

// Open installs nothing.
func Open(spec Spec) (Service, error) {
	if err := spec.Validate(); err != nil {
		return Service{}, err
	}
	s, err := native.New(&program{}, &native.Config{
		Name:        spec.Name(),
		DisplayName: spec.Name(),
		Description: spec.description(),
		Executable:  spec.Executable,
		Arguments:   spec.Args,
		Option: native.KeyValue{
			"UserService": spec.User, // launchd: an agent of the user, not a daemon
			"RunAtLoad":   true,
			"OnFailure":   "restart",
		},
	})
	if err != nil {
		return Service{}, fmt.Errorf("%s: %w", spec.Name(), err)
	}
	return Service{spec, s}, nil
}

func (s Service) act(verb string, do func() error) error {
	err := do()
	switch {
	case errors.Is(err, native.ErrNotInstalled):
		return fmt.Errorf("%s %w (wgexpose service install)", s.spec.Name(), ErrNotInstalled)
	case err != nil:
		return fmt.Errorf("%s %s: %w", verb, s.spec.Name(), err)
	}
	return nil
}

// Install makes the service and has it started at boot, or at login for one of
// a user.
func (s Service) Install(context.Context) error { return s.act("install", s.native.Install) }

// Uninstall removes it. The state stays.
func (s Service) Uninstall(context.Context) error { return s.act("uninstall", s.native.Uninstall) }

// Start starts the process.
func (s Service) Start(context.Context) error { return s.act("start", s.native.Start) }

// Stop ends the process.
func (s Service) Stop(context.Context) error { return s.act("stop", s.native.Stop) }

// Restart is Stop and Start.
func (s Service) Restart(context.Context) error { return s.act("restart", s.native.Restart) }

// Status asks the service manager.
func (s Service) Status(context.Context) (Status, error) {
	st := Status{Name: s.spec.Name()}
	is, err := s.native.Status()
	switch {
	case errors.Is(err, native.ErrNotInstalled):
		return st, nil
	case err != nil:
		return st, fmt.Errorf("status of %s: %w", s.spec.Name(), err)
	}
	st.Installed, st.Enabled, st.Running = true, true, is == native.StatusRunning
	st.State = "stopped"
	if st.Running {
		st.State = "running"
	}
	return st, nil
}

// Run calls run, and ends its context when a service manager that speaks to the
// process, as that of Windows does, asks it to stop.
func Run(ctx context.Context, run func(context.Context) int) int {
	if native.Interactive() {
		return run(ctx)
	}
	p := &program{run: run, done: make(chan int, 1)}
	p.ctx, p.stop = context.WithCancel(ctx)
	defer p.stop()
	s, err := native.New(p, &native.Config{Name: "wgexpose"}) // the process has one service, whatever its name
	if err == nil {
		err = s.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "wgexpose:", err)
		return 1
	}
	return p.code
}

// program is run as the service manager sees it.
type program struct {
	ctx  context.Context
	stop context.CancelFunc
	run  func(context.Context) int
	done chan int
	code int
}

// Start must not block.
func (p *program) Start(native.Service) error {
	go func() {
		code := p.run(p.ctx)
		if p.ctx.Err() == nil {
			os.Exit(code) // by itself, which the manager takes for a failure
		}
		p.done <- code
	}()
	return nil
}

// Stop returns when all is drained.
func (p *program) Stop(native.Service) error {
	p.stop()
	p.code = <-p.done
	return nil
}
