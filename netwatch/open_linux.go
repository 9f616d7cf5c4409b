package netwatch

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// groups are the changes that the kernel is asked to tell, rtnetlink(7).
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// open subscribes to changes of the network namespace that the calling thread
// is in.
func open() (io.ReadCloser, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to changes of the network: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "netlink"), nil // non-blocking, so with the poller, and Close ends Read
}

func overrun(err error) bool { return errors.Is(err, unix.ENOBUFS) }
