//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package relay

import "net"

// newKernelSource returns nil: there is no way here to wait on a socket
// without a buffer.
func newKernelSource(net.Conn, func() bool) source { return nil }

// waitReset blocks after the end of reading until the connection breaks, and
// returns the error. It returns nil at once for a connection that cannot tell.
func waitReset(c net.Conn) error {
	if w, ok := c.(interface{ WaitReset() error }); ok {
		return w.WaitReset()
	}
	return nil
}
