package wg

import (
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tx is one sending of up to sendSize datagrams to one endpoint. The kernel
// gathers them from the caller's buffers; nothing is copied here.
type tx struct {
	sock     *socket
	hdrs     [sendSize]mmsghdr
	iovs     [sendSize]unix.Iovec // one for each datagram
	ctrl     [sendSize][controlWords]uint64
	first    [sendSize + 1]int // of each message, the index of its first datagram
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
	for batch := range slices.Chunk(bufs, sendSize) {
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
				t.sock.bind.whole.Load().suspect(len(failed[0]))
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

// smallDatagram is one that is sent in no time, in bytes.
const smallDatagram = 1500

// sendmmsg sends what is left. An error of a message after the first is not
// told until that message is the first.
//
// Of a single small datagram the scheduler is not told: that would wake its monitor
// thread in a process that rests, which costs more than sending it.
func (t *tx) sendmmsg(fd uintptr) {
	var n uintptr
	var errno syscall.Errno
	if first := t.first[t.done]; t.done+1 == t.messages && first+1 == t.first[t.messages] && t.iovs[first].Len <= smallDatagram {
		n, _, errno = unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&t.hdrs[t.done])), 1, unix.MSG_DONTWAIT, 0, 0)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&t.hdrs[t.done])), uintptr(t.messages-t.done), unix.MSG_DONTWAIT, 0, 0)
	}
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
