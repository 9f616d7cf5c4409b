//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// kernelSource reads a kernel socket through its descriptor, so that it can
// wait without a buffer.
//
// Go's poller is edge-triggered (EPOLLET, EV_CLEAR): it tells that bytes have
// arrived, not that there are bytes, so waiting is right only after the socket
// itself has said EAGAIN. Each wait therefore begins with an attempt, and the
// attempt is the read itself, in a buffer borrowed for it and given back on
// EAGAIN: one system call for each chunk, where a MSG_PEEK before each read
// would make it two.
type kernelSource struct {
	raw     syscall.RawConn
	sentFIN func() bool

	// what attempt found; attempt is made once, a closure a read would
	// be an allocation a read
	attempt func(fd uintptr) bool
	b       *buffer
	n       int
	err     error
}

// newKernelSource returns nil for anything but the two socket types
// themselves. A type that embeds one of them has SyscallConn too, and may hold
// bytes that it has read ahead.
func newKernelSource(c net.Conn, sentFIN func() bool) source {
	raw := rawConn(c)
	if raw == nil {
		return nil
	}
	s := &kernelSource{raw: raw, sentFIN: sentFIN}
	s.attempt = s.tryRead
	return s
}

func rawConn(c net.Conn) syscall.RawConn {
	var sc syscall.Conn
	switch c := c.(type) {
	case *net.TCPConn:
		sc = c
	case *net.UnixConn:
		sc = c
	default:
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil // a zero conn; Read tells the same
	}
	return raw
}

func (s *kernelSource) read() (*buffer, int, error) {
	s.b, s.n, s.err = nil, 0, nil
	if err := s.raw.Read(s.attempt); err != nil {
		return nil, 0, err
	}
	b := s.b
	s.b = nil
	return b, s.n, s.err
}

func (s *kernelSource) tryRead(fd uintptr) bool {
	b := buffers.borrow()
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(int(fd), b[:]) })
	if n > 0 {
		s.b, s.n = b, n
		return true
	}
	buffers.giveBack(b)
	switch {
	case err == unix.EAGAIN:
		return false
	case err != nil:
		s.err = os.NewSyscallError("read", err)
	case s.wasReset(int(fd)):
		s.err = os.NewSyscallError("read", unix.ECONNRESET)
	default:
		s.err = io.EOF
	}
	return true
}

// wasReset tells whether an end of reading is in truth a reset. The kernel
// reports a reset once, to whichever call comes first (Linux: sock_error in
// include/net/sock.h); when that was the other goroutine's write, this read
// sees a clean end. The socket is then not connected any more, which after a
// true FIN takes a FIN of ours as well.
func (s *kernelSource) wasReset(fd int) bool {
	_, err := unix.Getpeername(fd)
	return (errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.EINVAL)) && !s.sentFIN()
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// waitReset blocks after the end of reading until the connection breaks, and
// returns the error, or until it is closed on this side (net.ErrClosed). It
// returns nil at once for a connection that cannot tell.
func waitReset(c net.Conn) error {
	if w, ok := c.(interface{ WaitReset() error }); ok {
		return w.WaitReset()
	}
	raw := rawConn(c)
	if raw == nil {
		return nil
	}
	var broken error
	var one [1]byte
	err := raw.Read(func(fd uintptr) bool {
		_, err := ignoringEINTR(func() (int, error) {
			n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK)
			return n, err
		})
		// The end of reading is still there, and asking again would
		// spin; the poller wakes on the next edge, which is the reset.
		if err == nil || err == unix.EAGAIN {
			return false
		}
		broken = os.NewSyscallError("recvfrom", err)
		return true
	})
	if err != nil {
		return err
	}
	return broken
}
