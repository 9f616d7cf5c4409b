package netwatch

import (
	"context"
	"io"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// In a network namespace of the test's own, the loopback interface comes up.
func TestKernelTells(t *testing.T) {
	opened := make(chan error, 1)
	raise := make(chan struct{})
	raised := make(chan error, 1)
	source := make(chan io.ReadCloser, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			opened <- err
			return
		}
		s, err := open()
		if err != nil {
			opened <- err
			return
		}
		control, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			opened <- err
			return
		}
		defer unix.Close(control)
		source <- s
		opened <- nil
		<-raise
		raised <- raiseLoopback(control)
	}()
	if err := within(t, opened, "namespace"); err != nil {
		t.Skipf("a network namespace needs root: %v", err)
	}
	s := <-source
	calls := started(t, func(ctx context.Context, changed func()) error { return follow(ctx, s, changed) })
	close(raise)
	if err := within(t, raised, "interface"); err != nil {
		t.Fatal(err)
	}
	within(t, calls, "call")
}

func raiseLoopback(control int) error {
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(control, unix.SIOCGIFFLAGS, ifr); err != nil {
		return err
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(control, unix.SIOCSIFFLAGS, ifr)
}
