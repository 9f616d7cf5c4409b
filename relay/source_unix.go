//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package relay

import (
	"crypto/tls"
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
	tcp     bool
	most    int // bytes at once
	sentFIN func() bool

	// what attempt found; attempt is made once, a closure a read would
	// be an allocation a read
	attempt func(fd uintptr) bool
	b       *buffer
	n       int
	err     error
}

// newKernelSource returns nil where KernelSocket does. most is how many bytes are read
// at once, bufferSize or less.
func newKernelSource(c net.Conn, most int, sentFIN func() bool) source {
	raw := KernelSocket(c)
	if raw == nil {
		return nil
	}
	_, tcp := c.(*net.TCPConn)
	s := &kernelSource{raw: raw, tcp: tcp, most: most, sentFIN: sentFIN}
	s.attempt = s.tryRead
	return s
}

// KernelSocket returns nil for anything but the two socket types themselves. A
// type that embeds one of them has SyscallConn too, and may hold bytes that it has
// read ahead.
func KernelSocket(c net.Conn) syscall.RawConn {
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
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(int(fd), b[:s.most]) })
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
	return s.tcp && !Connected(fd) && !s.sentFIN()
}

// Connected is false once a TCP socket has left all states that have a peer.
func Connected(fd int) bool {
	_, err := unix.Getpeername(fd)
	return err != unix.ENOTCONN && err != unix.EINVAL // EINVAL: Darwin
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// Broken returns the error that broke c, without a wait and without reading;
// nil while c is well, and for connections that cannot tell.
func Broken(c net.Conn) error {
	switch c := c.(type) {
	case interface{ Broken() error }:
		return c.Broken()
	case *tls.Conn:
		return Broken(c.NetConn())
	case *net.TCPConn:
		raw := KernelSocket(c)
		if raw == nil {
			return nil
		}
		var found error
		// Control fails on a closed descriptor, which is not c's breaking.
		_ = raw.Control(func(fd uintptr) {
			// The socket's error may also be a passing one of ICMP,
			// which leaves it connected; and asking takes it away.
			if Connected(int(fd)) {
				return
			}
			errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && errno != 0 {
				found = os.NewSyscallError("getsockopt", syscall.Errno(errno))
			}
		})
		return found
	}
	return nil
}
