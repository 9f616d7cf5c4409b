//go:build linux

// Package process runs the programs of a benchmark and ends them for certain.
//
//	edge, err := process.Start(process.Config{Name: "edge", Path: binary, Args: []string{"edge", "--json"}})
//	defer edge.Stop()
//	line, err := edge.Await(ctx, func(line []byte) bool { return bytes.Contains(line, []byte(`"ready"`)) })
//
// Each program is a process group of its own, so that a terminal's Ctrl-C goes
// to the benchmark alone, which then stops them in order. If the benchmark is
// killed, the kernel kills them.
package process

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// grace is how long a program may take to end after SIGTERM.
const grace = 5 * time.Second

// shown is how much of a program's standard error an error carries, in bytes.
const shown = 2 << 10

// Config is what to run.
type Config struct {
	Name string // for errors
	Path string
	Args []string
	Dir  string
	// Env is the whole environment. nil: this process's.
	Env []string
	// Start starts the command, for instance in a network namespace. nil:
	// (*exec.Cmd).Start.
	Start func(*exec.Cmd) error
}

// Process is a running program. Its methods may be called from any goroutine.
type Process struct {
	name string
	cmd  *exec.Cmd

	in    io.WriteCloser
	inMu  sync.Mutex // guards in
	ended chan struct{}

	mu      sync.Mutex    // guards all below
	changed chan struct{} // closed and replaced on each change
	lines   [][]byte      // of standard output, not yet taken
	stderr  []byte        // its end
	closed  bool          // standard output has ended
}

// Start runs a program until Stop.
func Start(cfg Config) (*Process, error) {
	p := &Process{name: cfg.Name, ended: make(chan struct{}), changed: make(chan struct{})}
	p.cmd = exec.Command(cfg.Path, cfg.Args...)
	p.cmd.Dir, p.cmd.Env = cfg.Dir, cfg.Env
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	start := cfg.Start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := start(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { p.readLines(stdout) })
	reading.Go(func() { p.readErrors(stderr) })
	go func() {
		defer close(p.ended)
		reading.Wait()
		_ = p.cmd.Wait() // ProcessState has it all
	}()
	return p, nil
}

func (p *Process) readLines(r io.Reader) {
	b := bufio.NewReader(r)
	for {
		line, err := b.ReadBytes('\n')
		p.mu.Lock()
		if line = bytes.TrimSpace(line); len(line) > 0 {
			p.lines = append(p.lines, line)
		}
		p.closed = err != nil
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *Process) readErrors(r io.Reader) {
	b := make([]byte, 4096)
	for {
		n, err := r.Read(b)
		p.mu.Lock()
		p.stderr = append(p.stderr, b[:n]...)
		if extra := len(p.stderr) - shown; extra > shown {
			p.stderr = append(p.stderr[:0], p.stderr[extra:]...)
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Send writes v as a line of JSON to the program's standard input.
func (p *Process) Send(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	p.inMu.Lock()
	defer p.inMu.Unlock()
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return p.Failure(fmt.Errorf("write to %s: %w", p.name, err))
	}
	return nil
}

// CloseInput ends the program's standard input.
func (p *Process) CloseInput() error {
	p.inMu.Lock()
	defer p.inMu.Unlock()
	return p.in.Close()
}

// ErrEnded is why there is no further line.
var ErrEnded = errors.New("it has ended")

// Next returns the next line of standard output. When the program has ended
// its error says how, and satisfies errors.Is with ErrEnded.
func (p *Process) Next(ctx context.Context) ([]byte, error) {
	for {
		p.mu.Lock()
		if len(p.lines) > 0 {
			line := p.lines[0]
			p.lines = p.lines[1:]
			p.mu.Unlock()
			return line, nil
		}
		closed, changed := p.closed, p.changed
		p.mu.Unlock()
		if closed {
			return nil, p.Failure(ErrEnded)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, p.Failure(context.Cause(ctx))
		}
	}
}

// Await returns the next line that match accepts, and drops those before.
func (p *Process) Await(ctx context.Context, match func(line []byte) bool) ([]byte, error) {
	for {
		line, err := p.Next(ctx)
		if err != nil || match(line) {
			return line, err
		}
	}
}

// Failure adds to err what the program had to say.
func (p *Process) Failure(err error) error {
	state := ""
	select {
	case <-p.ended:
		state = " (" + p.cmd.ProcessState.String() + ")"
	case <-time.After(100 * time.Millisecond): // one that fails may be about to
	}
	p.mu.Lock()
	said := strings.TrimSpace(string(p.stderr))
	p.mu.Unlock()
	if said != "" {
		said = "; it said: " + said
	}
	return fmt.Errorf("%s%s: %w%s", p.name, state, err, said)
}

// Stop ends the program and all that it started: SIGTERM, then after some time
// SIGKILL. It returns when the program has ended, and may be called again.
func (p *Process) Stop() {
	p.signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
	}
	p.signal(syscall.SIGKILL)
	<-p.ended
	_ = p.CloseInput() // closed already when the program was waited for
}

// signal reaches the whole group, unless the program was waited for: then its
// number may belong to others.
func (p *Process) signal(s syscall.Signal) {
	select {
	case <-p.ended:
	default:
		_ = syscall.Kill(-p.PID(), s) // fails when all of it has ended just now
	}
}

// Run runs a program to its end and returns its standard output.
func Run(ctx context.Context, cfg Config, stdin string) (string, error) {
	p, err := Start(cfg)
	if err != nil {
		return "", err
	}
	defer p.Stop()
	p.inMu.Lock()
	_, err = io.WriteString(p.in, stdin)
	p.inMu.Unlock()
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
		return "", p.Failure(err)
	}
	if err := p.CloseInput(); err != nil && !errors.Is(err, os.ErrClosed) {
		return "", p.Failure(err)
	}
	var out strings.Builder
	for {
		line, err := p.Next(ctx)
		if errors.Is(err, ErrEnded) {
			break
		}
		if err != nil {
			return out.String(), err
		}
		out.Write(line)
		out.WriteByte('\n')
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		return out.String(), p.Failure(context.Cause(ctx))
	}
	if !p.cmd.ProcessState.Success() {
		return out.String(), p.Failure(ErrEnded)
	}
	return out.String(), nil
}
