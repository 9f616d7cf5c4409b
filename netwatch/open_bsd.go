//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package netwatch

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// open subscribes to the messages of the routing socket, route(4).
func open() (io.ReadCloser, error) {
	fd, err := unix.Socket(unix.AF_ROUTE, unix.SOCK_RAW, unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("open a routing socket: %w", err)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("open a routing socket: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "route"), nil
}

func overrun(err error) bool { return errors.Is(err, unix.ENOBUFS) }
