//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package inspect

import (
	"net"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/wgexpose/wgexpose/relay"
)

// tapState is what a tap knows of its connection beside the traffic.
type tapState struct {
	sentFIN  atomic.Bool
	isClosed atomic.Bool
}

// close notes that this end closed the connection.
func (t *tapState) close() { t.isClosed.Store(true) }

// wasReset tells whether an end of reading is in truth a reset that the kernel
// told to a write: the socket is then not connected any more, which after a
// true FIN takes a FIN of ours as well.
func (t *tapState) wasReset(c net.Conn) bool {
	tcp, ok := c.(*net.TCPConn)
	if !ok || t.sentFIN.Load() {
		return false
	}
	raw := relay.KernelSocket(tcp)
	if raw == nil {
		return false
	}
	reset := false
	// Control fails on a closed descriptor, which is no reset.
	_ = raw.Control(func(fd uintptr) { reset = !relay.Connected(int(fd)) })
	return reset
}

func resetError() error { return os.NewSyscallError("read", unix.ECONNRESET) }
