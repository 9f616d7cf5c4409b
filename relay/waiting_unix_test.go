//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package relay

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// waiter is a connection that is waited on through WaitReadable.
type waiter struct {
	net.Conn
	waits chan struct{} // one for each wait
}

func (w *waiter) WaitReadable() error {
	w.waits <- struct{}{}
	var found error
	err := KernelSocket(w.Conn).Read(func(fd uintptr) bool {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
		if n < 0 && err == syscall.EAGAIN {
			return false
		}
		found = err
		return true
	})
	return errors.Join(err, found)
}

func TestWaitReadableComesBeforeABuffer(t *testing.T) {
	client, a := tcpPair(t)
	b, server := tcpPair(t)
	w := &waiter{a, make(chan struct{}, 100)}
	done := start(t, t.Context(), w, b)
	<-w.waits
	send(t, client, "ping")
	expect(t, server, "ping")
	<-w.waits
	eventually(t, "all buffers are back", func() bool { return buffers.out.Load() == 0 })
	Abort(client)
	if got := wait(t, done); !errors.Is(got.err, syscall.ECONNRESET) {
		t.Errorf("error %v, want a reset", got.err)
	}
	expectReset(t, server)
}
