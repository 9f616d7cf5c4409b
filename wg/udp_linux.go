package wg

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// batchSize is the most packets that one call receives or sends.
const batchSize = conn.IdealBatchSize

const (
	// maxSegments is the most datagrams in one message: UDP_MAX_SEGMENTS of
	// include/linux/udp.h was 64 before it was 128.
	maxSegments = 64
	// maxPayload is the most bytes in one message, for both families:
	// 65535 less an IPv4 and a UDP header.
	maxPayload = 65535 - 20 - 8
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

// rx is the receiving side of a socket.
//
// Messages are received into buffers of its own, which stay warm in the cache,
// and copied from there: a message of many datagrams has to be taken apart
// anyway. What does not fit into the caller's packets waits for the next call.
type rx struct {
	sock   *socket
	hdrs   [rxMessages]mmsghdr
	iovs   [rxMessages]unix.Iovec
	names  [rxMessages]unix.RawSockaddrInet6 // has room for IPv4 too
	ctrl   [rxMessages][controlWords]uint64
	memory []byte // rxMessages × rxBuffer; only pages that were used are resident
	cache  endpointCache

	// what was received last
	messages int // messages received
	next     int // the first message that is not yet wholly handed out
	offset   int // bytes of it that are
	err      error

	attempt func(fd uintptr) bool
}

func (r *rx) init(s *socket) {
	r.sock = s
	r.memory = make([]byte, rxMessages*rxBuffer)
	r.attempt = r.recvmmsg
	for i := range r.hdrs {
		r.iovs[i].Base = &r.memory[i*rxBuffer]
		r.iovs[i].SetLen(rxBuffer)
		h := &r.hdrs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = (*byte)(unsafe.Pointer(&r.ctrl[i]))
	}
}

// receive implements conn.ReceiveFunc.
func (s *socket) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	r := &s.rx
	for {
		if r.next >= r.messages {
			r.messages, r.next, r.offset, r.err = 0, 0, 0, nil
			if err := s.raw.Read(r.attempt); err != nil {
				return 0, err
			}
			if r.err != nil {
				return 0, r.err
			}
		}
		if n := r.handOut(bufs, sizes, eps); n > 0 {
			return n, nil
		}
	}
}

func (r *rx) recvmmsg(fd uintptr) bool {
	for i := range r.hdrs {
		// The kernel has put the lengths of what it wrote there.
		r.hdrs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		r.hdrs[i].hdr.SetControllen(controlWords * 8)
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs)), rxMessages, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			r.messages = int(n)
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			r.err = errno
			return true
		}
	}
}

// handOut copies datagrams to the caller's packets until either end.
func (r *rx) handOut(bufs [][]byte, sizes []int, eps []conn.Endpoint) int {
	n := 0
	for n < len(bufs) && r.next < r.messages {
		m := &r.hdrs[r.next]
		data := r.memory[r.next*rxBuffer:][:m.n]
		key, segment := r.describe(r.next)
		if segment <= 0 || segment > len(data) {
			segment = len(data)
		}
		ep, err := r.cache.lookup(key)
		if err != nil || len(data) == 0 {
			r.next, r.offset = r.next+1, 0 // not from a peer that could be answered
			continue
		}
		for n < len(bufs) && r.offset < len(data) {
			end := min(r.offset+segment, len(data))
			sizes[n] = copy(bufs[n], data[r.offset:end])
			eps[n] = ep
			r.offset = end
			n++
		}
		if r.offset == len(data) {
			r.next, r.offset = r.next+1, 0
		}
	}
	return n
}

// describe reads what came with message i: where it came from and to, and the
// size of its segments, 0 if it is a single datagram.
func (r *rx) describe(i int) (key endpointKey, segment int) {
	name := &r.names[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	switch name.Family {
	case unix.AF_INET:
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		key.dst = netip.AddrPortFrom(netip.AddrFrom4(name.Addr), port)
	case unix.AF_INET6:
		key.dst = netip.AddrPortFrom(netip.AddrFrom16(name.Addr), port)
		key.scope = name.Scope_id
	}
	control := unsafe.Slice((*byte)(unsafe.Pointer(&r.ctrl[i])), controlWords*8)
	control = control[:min(int(r.hdrs[i].hdr.Controllen), len(control))]
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			segment = int(binary.NativeEndian.Uint32(data)) // an int, udp_cmsg_recv in include/linux/udp.h
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			key.src, key.ifindex = netip.AddrFrom4(info.Spec_dst), uint32(info.Ifindex)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			key.src, key.ifindex = netip.AddrFrom16(info.Addr), info.Ifindex
		}
		control = rest
	}
	return key, segment
}

// wireEndpoint is an endpoint as the kernel reads it.
type wireEndpoint struct {
	name    unix.RawSockaddrInet6 // or RawSockaddrInet4
	nameLen uint32
	info    [controlWords]uint64 // a control message with PKTINFO
	infoLen int                  // bytes; 0: none
}

func (w *wireEndpoint) init(key endpointKey) {
	addr := key.dst.Addr()
	if addr.Is4() {
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(&w.name))
		*name = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: addr.As4()}
		w.nameLen = unix.SizeofSockaddrInet4
	} else {
		w.name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: addr.As16(), Scope_id: key.scope}
		w.nameLen = unix.SizeofSockaddrInet6
	}
	// Port is at the same place in both.
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&w.name.Port))[:], key.dst.Port())

	if !key.src.IsValid() {
		return
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&w.info))
	data := unsafe.Add(unsafe.Pointer(&w.info), unix.CmsgLen(0))
	if addr.Is4() {
		*(*unix.Inet4Pktinfo)(data) = unix.Inet4Pktinfo{Ifindex: int32(key.ifindex), Spec_dst: key.src.As4()}
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		w.infoLen = unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	} else {
		*(*unix.Inet6Pktinfo)(data) = unix.Inet6Pktinfo{Ifindex: key.ifindex, Addr: key.src.As16()}
		h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		w.infoLen = unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
}

// tx is one sending of up to batchSize datagrams to one endpoint. The kernel
// gathers them from the caller's buffers; nothing is copied here.
type tx struct {
	sock     *socket
	hdrs     [batchSize]mmsghdr
	iovs     [batchSize]unix.Iovec // one for each datagram
	ctrl     [batchSize][controlWords]uint64
	first    [batchSize + 1]int // of each message, the index of its first datagram
	messages int

	// one call of sendmmsg
	done  int // messages sent
	errno syscall.Errno

	attempt func(fd uintptr)
}

func newTx(s *socket) *tx {
	t := &tx{sock: s}
	t.attempt = t.sendmmsg
	return t
}

// send sends all of bufs that can be sent, and returns the first error.
func (s *socket) send(bufs [][]byte, ep *Endpoint) error {
	t := s.tx.Get().(*tx)
	defer s.tx.Put(t)
	var first error
	for batch := range slices.Chunk(bufs, batchSize) {
		if err := t.send(batch, ep); first == nil {
			first = err
		}
	}
	t.release()
	return first
}

func (t *tx) send(bufs [][]byte, ep *Endpoint) error {
	var first error
	var deadline time.Time
	gso := t.sock.gso.Load()
	t.plan(bufs, ep, gso)
	for t.done < t.messages {
		if err := t.sock.raw.Control(t.attempt); err != nil {
			return err // closed
		}
		if t.errno == 0 {
			continue
		}
		failed := bufs[t.first[t.done]:]
		segments := t.first[t.done+1] - t.first[t.done]
		switch errno := t.errno; {
		case errno == unix.EINTR:

		case errno == unix.EAGAIN:
			// Room comes within a packet's time on the wire; the
			// poller would tell only once half of the buffer is free
			// (sock_writeable in include/net/sock.h).
			now := time.Now()
			if deadline.IsZero() {
				deadline = now.Add(sendPatience)
			} else if now.After(deadline) {
				return errSendBufferFull
			}
			time.Sleep(time.Millisecond / 2)

		case ep.hasSrc() && sourceGone(errno):
			ep.ClearSrc()
			bufs = failed
			t.plan(bufs, ep, gso)

		case segments > 1 && gsoRefused(errno):
			if errno == unix.EIO {
				t.sock.gso.Store(false)
				t.sock.bind.logger().Info("a network device refuses segmentation offload; sending one datagram at a time", "err", errno)
			} else {
				ep.limitSegments(len(failed[0]))
			}
			gso = false // for the rest of this batch
			bufs = failed
			t.plan(bufs, ep, gso)

		case errno == unix.EMSGSIZE:
			if first == nil {
				first = errno
			}
			t.done++ // larger than this path takes; the others may not be

		default:
			return errno
		}
	}
	return first
}

// sourceGone reports whether errno may mean that the source address or the
// interface that an endpoint insists on is no longer there.
func sourceGone(errno syscall.Errno) bool {
	switch errno {
	case unix.EINVAL, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EADDRNOTAVAIL, unix.ENODEV, unix.ENXIO:
		return true
	}
	return false
}

// gsoRefused reports whether errno may mean that a super-datagram cannot go
// this way: EIO without checksum offload or with IPsec; EMSGSIZE, formerly
// EINVAL, with segments larger than the path's MTU, which single datagrams may
// exceed, by fragments (udp_send_skb in net/ipv4/udp.c).
func gsoRefused(errno syscall.Errno) bool {
	return errno == unix.EIO || errno == unix.EMSGSIZE || errno == unix.EINVAL
}

// limitSegments notes that segments of size bytes are too large.
func (e *Endpoint) limitSegments(size int) {
	for {
		limit := e.segmentLimit.Load()
		if limit != 0 && int(limit) <= size || e.segmentLimit.CompareAndSwap(limit, int32(size)) {
			return
		}
	}
}

// plan lays bufs out as messages: with gso, runs of datagrams of one size, of
// which the last may be shorter, as one.
func (t *tx) plan(bufs [][]byte, ep *Endpoint, gso bool) {
	limit := int(ep.segmentLimit.Load())
	hasSrc := ep.hasSrc()
	t.messages, t.done = 0, 0
	for i := 0; i < len(bufs); {
		size := len(bufs[i])
		count, total := 1, size
		if gso && size > 0 && (limit == 0 || size < limit) {
			for i+count < len(bufs) && count < maxSegments {
				n := len(bufs[i+count])
				if n == 0 || n > size || total+n > maxPayload {
					break
				}
				count, total = count+1, total+n
				if n < size {
					break
				}
			}
		}
		t.add(bufs[i:i+count], i, ep, hasSrc)
		i += count
	}
	t.first[t.messages] = len(bufs)
}

func (t *tx) add(segments [][]byte, first int, ep *Endpoint, hasSrc bool) {
	m := t.messages
	t.messages++
	t.first[m] = first
	for k, b := range segments {
		iov := &t.iovs[first+k]
		iov.Base = unsafe.SliceData(b)
		iov.SetLen(len(b))
	}
	control := 0
	if hasSrc {
		t.ctrl[m] = ep.wire.info
		control = ep.wire.infoLen
	}
	if len(segments) > 1 {
		at := unsafe.Add(unsafe.Pointer(&t.ctrl[m]), control)
		h := (*unix.Cmsghdr)(at)
		h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		h.SetLen(unix.CmsgLen(2))
		*(*uint16)(unsafe.Add(at, unix.CmsgLen(0))) = uint16(len(segments[0]))
		control += unix.CmsgSpace(2)
	}
	h := &t.hdrs[m].hdr
	h.Name = (*byte)(unsafe.Pointer(&ep.wire.name))
	h.Namelen = ep.wire.nameLen
	h.Iov = &t.iovs[first]
	h.SetIovlen(len(segments))
	h.Control = nil
	if control > 0 {
		h.Control = (*byte)(unsafe.Pointer(&t.ctrl[m]))
	}
	h.SetControllen(control)
}

// sendmmsg sends what is left. An error of a message after the first is not
// told until that message is the first.
func (t *tx) sendmmsg(fd uintptr) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&t.hdrs[t.done])), uintptr(t.messages-t.done), unix.MSG_DONTWAIT, 0, 0)
	t.errno = errno
	if errno == 0 {
		t.done += int(n)
	}
}

// release drops the references to the caller's buffers.
func (t *tx) release() {
	for i := range t.iovs {
		t.iovs[i].Base = nil
	}
}
