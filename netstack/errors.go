package netstack

import (
	"io"
	"net"
	"os"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// translate turns gVisor's error into the one that the net package gives for
// the same event, so that errors.Is(err, syscall.ECONNRESET) and its like
// hold for connections of either kind.
func translate(err tcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *tcpip.ErrClosedForReceive:
		return io.EOF
	case *tcpip.ErrClosedForSend:
		return syscall.EPIPE
	case *tcpip.ErrConnectionReset:
		return syscall.ECONNRESET
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	case *tcpip.ErrAborted, *tcpip.ErrConnectionAborted:
		return syscall.ECONNABORTED
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *tcpip.ErrHostUnreachable:
		return syscall.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return syscall.ENETUNREACH
	case *tcpip.ErrNotConnected:
		return syscall.ENOTCONN
	case *tcpip.ErrPortInUse:
		return syscall.EADDRINUSE
	case *tcpip.ErrNoPortAvailable:
		return syscall.EADDRNOTAVAIL
	case *tcpip.ErrBadLocalAddress:
		return syscall.EADDRNOTAVAIL
	case *tcpip.ErrInvalidEndpointState:
		return net.ErrClosed
	}
	return &stackError{err}
}

// stackError is a gVisor error that has no counterpart in package syscall.
type stackError struct{ err tcpip.Error }

func (e *stackError) Error() string { return e.err.String() }

// errDeadline is what a Read or Write past its deadline returns; it is a
// net.Error whose Timeout is true.
var errDeadline = os.ErrDeadlineExceeded
