//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package inspect

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wgexpose/wgexpose/relay"
)

// tapState is what a tap knows of its connection beside the traffic.
type tapState struct {
	sentFIN  atomic.Bool
	isClosed atomic.Bool

	once    sync.Once
	raw     syscall.RawConn // nil: no kernel socket
	attempt func(fd uintptr) bool
	err     error // what attempt found; one goroutine reads a connection
}

// close notes that this end closed the connection.
func (t *tapState) close() { t.isClosed.Store(true) }

// wait blocks until a kernel socket can be read. The poller is edge-triggered,
// so the socket itself is asked each time it wakes.
func (t *tapState) wait(c net.Conn) error {
	t.once.Do(func() {
		t.raw = relay.KernelSocket(c)
		t.attempt = t.peek
	})
	if t.raw == nil {
		return nil
	}
	t.err = nil
	if err := t.raw.Read(t.attempt); err != nil {
		return err
	}
	return t.err
}

// peek reports whether Read would return, with bytes, an end, or an error. It
// keeps an error, because asking takes it away.
func (t *tapState) peek(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK)
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case nil:
			return true
		}
		t.err = os.NewSyscallError("recvfrom", err)
		return true
	}
}

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
