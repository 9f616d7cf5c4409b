//go:build linux

package load

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func pid() int { return os.Getpid() }

// setCongestion returns a net.Dialer's Control that chooses the TCP congestion
// control.
func setCongestion(algorithm string) func(network, address string, c syscall.RawConn) error {
	return control(func(fd int) error {
		if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, algorithm); err != nil {
			return fmt.Errorf("use %s: %w", algorithm, err)
		}
		return nil
	})
}

// lateBind makes a bound socket take its port only when it connects. Otherwise
// one port cannot serve connections to two targets, and they run out.
func lateBind(_, _ string, c syscall.RawConn) error {
	return control(func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1))
	})("", "", c)
}

func control(set func(fd int) error) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var inner error
		if err := c.Control(func(fd uintptr) { inner = set(int(fd)) }); err != nil {
			return err
		}
		return inner
	}
}
