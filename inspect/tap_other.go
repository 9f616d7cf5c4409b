//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package inspect

import (
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

// tapState is what a tap knows of its connection beside the traffic.
type tapState struct {
	sentFIN  atomic.Bool
	isClosed atomic.Bool
}

// close notes that this end closed the connection.
func (t *tapState) close() { t.isClosed.Store(true) }

// wasReset is false: an end is an end here.
func (t *tapState) wasReset(net.Conn) bool { return false }

func resetError() error { return os.NewSyscallError("read", syscall.ECONNRESET) }
