//go:build linux

package link

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace without a name: a machine of its own as far
// as addresses, ports, routes and TCP settings go. The kernel takes it away
// when it is closed and no process runs in it any more.
type Namespace struct {
	work chan func()
	done chan struct{}
	once sync.Once
}

// ErrClosed is returned after Close.
var ErrClosed = errors.New("link: it is closed")

// NewNamespace makes a namespace with nothing in it but a loopback device,
// which is up. It needs CAP_SYS_ADMIN.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{work: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go n.serve(ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return n, nil
}

// serve is the one goroutine in the namespace. It never unlocks its thread,
// which therefore ends with it and is never used for anything else.
func (n *Namespace) serve(ready chan<- error) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		ready <- fmt.Errorf("make a network namespace (this takes root): %w", err)
		return
	}
	if err := setFlags("lo", unix.IFF_UP); err != nil {
		ready <- err
		return
	}
	ready <- nil
	for {
		select {
		case f := <-n.work:
			f()
		case <-n.done:
			return
		}
	}
}

// Do runs f in the namespace: on a thread that is in it. Sockets that f opens
// stay in it; goroutines that f starts do not begin in it.
func (n *Namespace) Do(f func() error) error {
	result := make(chan error, 1)
	select {
	case n.work <- func() { result <- f() }:
		return <-result
	case <-n.done:
		return ErrClosed
	}
}

// Start starts a command in the namespace. A Pdeathsig of it is safe: the
// thread that starts it lives until Close.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Sysctl sets a value of the namespace, such as "net.ipv4.tcp_no_metrics_save".
func (n *Namespace) Sysctl(name, value string) error {
	return n.Do(func() error {
		// /proc/sys/net shows the namespace of the thread that looks.
		path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		return nil
	})
}

const (
	congestion        = "net.ipv4.tcp_congestion_control"
	allowedCongestion = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"
)

// SetCongestion chooses the TCP congestion control, such as "cubic", of all
// sockets that are opened in the namespace later.
//
// A namespace may choose only among those that the machine allows to everyone.
// If the algorithm is not one of them, it is allowed for a moment: this is a
// setting of the machine, and is put back before SetCongestion returns.
func (n *Namespace) SetCongestion(algorithm string) error {
	err := n.Sysctl(congestion, algorithm)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	before, err := os.ReadFile(allowedCongestion)
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(before)), algorithm) {
		return n.Sysctl(congestion, algorithm)
	}
	if err := os.WriteFile(allowedCongestion, fmt.Appendf(nil, "%s %s", strings.TrimSpace(string(before)), algorithm), 0o644); err != nil {
		return fmt.Errorf("allow %s: %w", algorithm, err)
	}
	err = n.Sysctl(congestion, algorithm)
	if back := os.WriteFile(allowedCongestion, before, 0o644); back != nil && err == nil {
		err = fmt.Errorf("put %s back: %w", allowedCongestion, back)
	}
	return err
}

// Close lets go of the namespace. Processes in it keep it until they end.
func (n *Namespace) Close() error {
	n.once.Do(func() { close(n.done) })
	return nil
}
