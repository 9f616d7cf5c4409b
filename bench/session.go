//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wgexpose/wgexpose/bench/link"
	"github.com/wgexpose/wgexpose/bench/process"
	"github.com/wgexpose/wgexpose/bench/procfs"
)

// session is one run of the benchmarks.
type session struct {
	config
	site   site
	report *Report
	out    io.Writer
}

// benchCase is a group of measurements that share a rig.
type benchCase struct {
	name string
	run  func(*session, context.Context) error
}

func cases() []benchCase {
	return []benchCase{
		{"bulk", (*session).bulk},
		{"echo", (*session).echo},
		{"connect", (*session).connect},
		{"https", (*session).https},
		{"first", (*session).first},
		{"handshake", (*session).handshake},
		{"idle", (*session).idle},
		{"memory", (*session).memory},
	}
}

func caseNames() []string {
	var names []string
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

func (s *session) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the benchmarks take too long"))
	defer cancel()
	s.site = loopback
	if s.cc != "" && !s.link {
		n, err := link.NewNamespace()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, n.Close()) }()
		if err := n.SetCongestion(s.cc); err != nil {
			return err
		}
		s.site.near, s.site.far = n, n
	}
	if err := s.describe(ctx); err != nil {
		return err
	}
	if s.link {
		err = s.runLink(ctx)
	} else {
		err = s.runCases(ctx)
	}
	s.report.Complete = err == nil
	return err
}

func (s *session) runCases(ctx context.Context) error {
	for _, c := range cases() {
		if len(s.only) > 0 && !slices.Contains(s.only, c.name) {
			continue
		}
		if err := c.run(s, ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// progress tells what is being done, on one line each.
func (s *session) progress(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.report.Started).Seconds(), fmt.Sprintf(format, args...))
}

// withRig runs f with a fresh rig.
func (s *session) withRig(ctx context.Context, f func(*rig) error, paths ...string) (err error) {
	r, err := newRig(ctx, s.config, s.site, paths...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	return f(r)
}

// others are the paths of further builds.
func (s *session) others() []string { return slices.Sorted(maps.Keys(s.against)) }

// turns lists the paths for a round, each round beginning with another one, so
// that none always follows the same.
func (s *session) turns(round int) []string {
	k := round % len(s.paths)
	return append(slices.Clone(s.paths[k:]), s.paths[:k]...)
}

// describe notes what it is measured on.
func (s *session) describe(ctx context.Context) error {
	version, err := process.Run(ctx, process.Config{Name: "wgexpose version", Path: s.binary, Args: []string{"version"}}, "")
	if err != nil {
		return err
	}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return err
	}
	m := Machine{
		Kernel: unix.ByteSliceToString(uname.Release[:]), CPU: cpuModel(), CPUs: runtime.NumCPU(),
		Go: runtime.Version(), Program: strings.TrimSpace(version),
		Congestion: sysctl("net.ipv4.tcp_congestion_control"),
		Rmem:       sysctl("net.core.rmem_max"), Wmem: sysctl("net.core.wmem_max"),
		TCPRmem: sysctl("net.ipv4.tcp_rmem"), TCPWmem: sysctl("net.ipv4.tcp_wmem"),
		GOGC: "100 (default)", Setting: "loopback",
	}
	if s.cc != "" {
		m.Congestion = s.cc
	}
	if s.link {
		m.Congestion = linkCongestion
		m.Setting = fmt.Sprintf("a link of %.0f Mbit/s", s.rate/1e6)
	}
	if m.LoadBefore, err = procfs.LoadAverage(); err != nil {
		return err
	}
	s.report.Machine = m
	return nil
}

// cpuModel is the first processor's name.
func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

// finish prints and writes the report, if anything was measured.
func (s *session) finish() error {
	if len(s.report.Samples) == 0 {
		return nil
	}
	load, err := procfs.LoadAverage()
	if err != nil {
		return err
	}
	s.report.Machine.LoadAfter = load
	s.report.Seconds = time.Since(s.report.Started).Seconds()
	s.report.conclude()
	if err := s.report.print(s.out); err != nil {
		return err
	}
	name, err := s.report.write(s.config.out)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "\nall samples: %s\n", name)
	return nil
}
