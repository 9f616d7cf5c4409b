package wg

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

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
	memory []byte // see rxMemory; nil before the first receive, and when the socket has been retired
	cache  endpointCache

	// what was received last
	messages int // messages received
	next     int // the first message that is not yet wholly handed out
	offset   int // bytes of it that are
	err      error
	few      bool // it was one message, as in a process that rests

	attempt func(fd uintptr) bool
}

// rxMemory is what closed sockets of a bind received into, for those that are
// opened after them: an agent opens new ones with every change of its networks,
// and 4 MiB each time were most of its garbage.
type rxMemory struct {
	mu   sync.Mutex // guards free
	free [][]byte   // of rxMessages × rxBuffer; only pages that were used are resident
}

func (m *rxMemory) get() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := len(m.free) - 1
	if last < 0 {
		return make([]byte, rxMessages*rxBuffer)
	}
	b := m.free[last]
	m.free[last] = nil
	m.free = m.free[:last]
	return b
}

// put keeps b, unless there is some for a socket of each family already.
func (m *rxMemory) put(b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.free) < 2 {
		m.free = append(m.free, b)
	}
}

func (r *rx) init(s *socket) {
	r.sock = s
	r.cache.via = s.bind
	r.attempt = r.recvmmsg
	for i := range r.hdrs {
		r.iovs[i].SetLen(rxBuffer)
		h := &r.hdrs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = (*byte)(unsafe.Pointer(&r.ctrl[i]))
	}
}

// use has messages received into memory.
func (r *rx) use(memory []byte) {
	r.memory = memory
	for i := range r.iovs {
		r.iovs[i].Base = &memory[i*rxBuffer]
	}
}

// receive implements conn.ReceiveFunc.
func (s *socket) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	r := &s.rx
	for {
		if r.memory == nil {
			r.use(s.bind.memory.get())
		}
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

// retire gives the memory of a closed socket back to its bind. It is for the
// goroutine that has received.
func (s *socket) retire() {
	r := &s.rx
	if r.memory == nil {
		return
	}
	s.bind.memory.put(r.memory)
	r.memory, r.messages, r.next, r.offset = nil, 0, 0, 0
	for i := range r.iovs {
		r.iovs[i].Base = nil
	}
}

func (r *rx) recvmmsg(fd uintptr) bool {
	for i := range r.hdrs {
		// The kernel has put the lengths of what it wrote there.
		r.hdrs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		r.hdrs[i].hdr.SetControllen(controlWords * 8)
	}
	for {
		var n uintptr
		var errno syscall.Errno
		if r.few { // see tx.sendmmsg
			n, _, errno = unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs)), rxMessages, unix.MSG_DONTWAIT, 0, 0)
		} else {
			n, _, errno = unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs)), rxMessages, unix.MSG_DONTWAIT, 0, 0)
		}
		switch errno {
		case 0:
			r.messages = int(n)
			r.few = n == 1
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
