package agent

import (
	"io"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// maxSegment is the size of the segments that c sends.
func maxSegment(t *testing.T, c net.Conn) (size int) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		size, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return size
}

// Both ends of what the agent connects send segments that get through
// everywhere, on loopback, too, whose MTU is 65,536.
func TestSegmentsOfStreams(t *testing.T) {
	sizes := make(chan int, 1)
	addr := server(t, func(c net.Conn) {
		sizes <- maxSegment(t, c)
		io.Copy(io.Discard, c)
	})
	c, err := dialer(t, NoProxy).connect(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end, size := range map[string]int{"agent": maxSegment(t, c), "edge": <-sizes} {
		if size > streamSegment {
			t.Errorf("the %s's segments have up to %d bytes, want %d", end, size, streamSegment)
		}
	}
}
