package wg

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

const (
	// batchSize is the most packets that one call receives: as many as the
	// kernel joins to one message (UDP_GRO_CNT_MAX in net/ipv4/udp_offload.c).
	// wireguard-go holds that many buffers of 64 KiB for each receive function,
	// whether anything comes or not.
	batchSize = 64
	// sendSize is the most packets that one call sends.
	sendSize = conn.IdealBatchSize
)

const (
	// maxSegments is the most datagrams in one message: UDP_MAX_SEGMENTS of
	// include/linux/udp.h was 64 before it was 128.
	maxSegments = 64
	// maxPayload is the most bytes in one message of several datagrams, for
	// both families: with UDP, IP and Ethernet headers it must stay below a
	// device's gso_max_size, 65,536 for most, loopback among them. Beyond it
	// the kernel cuts the message itself, packet by packet, and the receiver
	// gets no large one (gso_features_check in net/core/dev.c).
	maxPayload = 65535 - 14 - 40 - 8
	// rxMessages is the most messages that one system call receives, each of
	// up to maxSegments datagrams.
	rxMessages = 32
	rxBuffer   = 1 << 16
	// controlWords holds, in 8-byte words, the control messages of one
	// message: the larger PKTINFO and a segment size.
	controlWords = 9
)

// socket is one UDP socket, read by one goroutine and written by many.
//
// It calls recvmmsg and sendmmsg itself: golang.org/x/net's ReadBatch makes a
// net.UDPAddr of each message, and its WriteBatch lets one goroutine at a time
// send.
type socket struct {
	bind *UDPBind
	conn *net.UDPConn
	raw  syscall.RawConn
	v6   bool

	rx rx
	tx sync.Pool // of *tx
	// fragments is held for reading while datagrams are sent that may be
	// fragmented, and for writing while one that may not.
	fragments sync.RWMutex
	// gso is false when super-datagrams are not to be sent, by option, by
	// the kernel's age, or since a device refused.
	gso atomic.Bool
}

func (b *UDPBind) wrap(c *net.UDPConn, v6 bool) (*socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{bind: b, conn: c, raw: raw, v6: v6}
	s.tx.New = func() any { return newTx(s) }
	err = raw.Control(func(fd uintptr) {
		_, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
		s.gso.Store(err == nil && !b.opts.NoGSO)
		if !b.opts.NoGRO {
			// Kernels that cannot read it back (before 5.12) are those
			// whose GRO has known faults: off again.
			err := unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1)
			if on, rerr := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO); err == nil && (rerr != nil || on != 1) {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 0)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	s.rx.init(s)
	return s, nil
}

// configure prepares a socket before it is bound.
func configure(fd uintptr, network string, wildcard bool) error {
	s := int(fd)
	// FORCE goes beyond net.core.*mem_max and takes CAP_NET_ADMIN; without
	// it, the other is cut to the limit. How much it became is read later.
	if unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wantBuffer) != nil {
		_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUF, wantBuffer)
	}
	if unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, wantBuffer) != nil {
		_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_SNDBUF, wantBuffer)
	}
	if !wildcard {
		return nil // the source is the address that it is bound to
	}
	if network == "udp4" {
		return unix.SetsockoptInt(s, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	return unix.SetsockoptInt(s, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// smallestBuffer is the bytes that the smaller of the two buffers may hold; 0
// when that is not known.
func (s *socket) smallestBuffer() int {
	smallest := 0
	err := s.raw.Control(func(fd uintptr) {
		for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
			n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option)
			if err != nil {
				continue
			}
			n /= 2 // the kernel doubles it for its own needs, socket(7)
			if smallest == 0 || n < smallest {
				smallest = n
			}
		}
	})
	if err != nil {
		return 0
	}
	return smallest
}

// setDontFragment forbids or allows fragments. Forbidden are those that routers
// make and those that this machine makes, of packets that are larger than the
// interface takes or, as somebody may have told it in a forged ICMP message, the
// path (ip(7), IP_MTU_DISCOVER; RFC 8899, section 4.6.1).
func (s *socket) setDontFragment(on bool) error {
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_WANT
	if on {
		value = unix.IP_PMTUDISC_PROBE
	}
	if s.v6 { // the values are the same
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	var err error
	if cerr := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), level, option, value)
	}); cerr != nil {
		return cerr
	}
	return err
}

func (s *socket) port() uint16 { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

func (s *socket) close() error { return s.conn.Close() }

func (s *socket) setMark(mark uint32) error {
	var err error
	if cerr := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	}); cerr != nil {
		return cerr
	}
	return err
}

// mmsghdr is struct mmsghdr of recvmmsg(2). Go aligns it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received or sent
}
