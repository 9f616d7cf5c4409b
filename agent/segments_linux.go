package agent

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// streamSegment is the largest TCP segment of a stream in bytes, without IP and
// TCP headers: what fits the least MTU of IPv6 (RFC 8200, section 5), with
// options.
const streamSegment = 1280 - 40 - 20

// limitSegments has both ends of a connection that is about to be made send
// segments that get through everywhere: this one because it was told to, the
// other one because it is told so in the SYN (tcp(7), TCP_MAXSEG). Linux notices
// a path that drops larger packets in silence only where net.ipv4.tcp_mtu_probing
// was turned on.
func limitSegments(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, streamSegment)
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("limit segments to %d bytes: %w", streamSegment, err)
	}
	return nil
}
