//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package relay

import "net"

// newKernelSource returns nil: there is no way here to wait on a socket
// without a buffer.
func newKernelSource(net.Conn, int, func() bool) source { return nil }

// Broken returns the error that broke c, without a wait and without reading;
// nil while c is well, and for connections that cannot tell.
func Broken(c net.Conn) error {
	if b, ok := c.(interface{ Broken() error }); ok {
		return b.Broken()
	}
	return nil
}
