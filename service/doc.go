// Package service makes the program a service of the machine, one that starts
// at boot or at login and is started again when it fails:
//
//	s, err := service.Open(service.Spec{
//		Role: service.Edge, Executable: "/usr/local/bin/wgexpose",
//		State: "/var/lib/wgexpose", Args: []string{"edge", "--state", "/var/lib/wgexpose"},
//	})
//	err = s.Install(ctx) // writes the unit, and enables it
//	err = s.Start(ctx)
//
// On Linux that is a systemd unit of our own making, for the system or for one
// user ([Unit]); on macOS a launchd job and on Windows a service, both made by
// github.com/kardianos/service.
//
// The other half is for the process itself: a [Notifier] tells systemd that it
// is ready, what it is doing, and that it is still alive, and [Run] obeys
// Windows when it stops the service.
package service

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
)

// Role is what the program is as a service.
type Role string

// The roles.
const (
	Agent Role = "agent"
	Edge  Role = "edge"
)

// Spec says what to install.
type Spec struct {
	Role       Role
	User       bool     // for the user who asks, without privileges; else for the machine
	Executable string   // absolute
	Args       []string // of the executable, the command first
	State      string   // the state directory that Args name, absolute
}

// Name is what the machine calls the service.
func (s Spec) Name() string { return "wgexpose-" + string(s.Role) }

func (s Spec) description() string {
	if s.Role == Edge {
		return "wgexpose edge: public side of shared services"
	}
	return "wgexpose agent: shares private services"
}

// Validate says what cannot be installed.
func (s Spec) Validate() error {
	switch {
	case s.Role != Agent && s.Role != Edge:
		return fmt.Errorf("%q is no service; there are: %s, %s", s.Role, Agent, Edge)
	case !filepath.IsAbs(s.Executable):
		return fmt.Errorf("the program's path %q is not absolute", s.Executable)
	case !filepath.IsAbs(s.State):
		return fmt.Errorf("the state directory %q is not absolute", s.State)
	}
	for _, text := range append([]string{s.Executable, s.State}, s.Args...) {
		if strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("%q has a control character, which no service file can hold", text)
		}
	}
	return nil
}

// Status is how an installed service is.
type Status struct {
	Name      string `json:"name"`
	Installed bool   `json:"installed"`
	Enabled   bool   `json:"enabled"`          // starts by itself
	Running   bool   `json:"running"`          //
	State     string `json:"state,omitempty"`  // in the words of the service manager: active (running)
	Detail    string `json:"detail,omitempty"` // what the process says of itself
	PID       int    `json:"pid,omitempty"`
	File      string `json:"file,omitempty"` // the unit
}

// ErrNotInstalled says that there is no such service.
var ErrNotInstalled = errors.New("is not installed")
