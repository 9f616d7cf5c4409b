package listening

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// More of the question and the answer.
const (
	diagAskPort = 8  // in the request: inet_diag_sockid.idiag_sport
	diagAskAddr = 12 // idiag_src
	diagCookie  = 48 // idiag_cookie
	diagState   = 1  // in the reply: idiag_state
)

// Serves reports whether a connection to addr would find somebody, and whether that
// is known. It asks for one socket, as the kernel does when a connection comes,
// which costs a sixth of a Table.
func Serves(addr netip.AddrPort) (there, known bool) {
	there, err := lookup(addr)
	if err == nil {
		return there, true
	}
	table, known := Read() // a sandbox may have no sock_diag
	return table.Has(addr), known
}

// lookup asks for the socket that a connection to addr would find.
//
// None of its calls waits: the kernel answers a question, which is no dump, while it is
// being sent. So the scheduler is not told of them; one that it is told of in a process
// that rests wakes its monitor thread, which then stays about for longer than the whole
// look takes.
func lookup(addr netip.AddrPort) (bool, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return false, fmt.Errorf("sock_diag: %w", err)
	}
	defer unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) // nothing of it is to be written yet
	req := question(addr)
	if _, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&req[0])), uintptr(len(req))); errno != 0 {
		return false, fmt.Errorf("sock_diag: %w", errno)
	}
	buf := make([]byte, 1<<10) // an answer has some 150 bytes
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if errno != 0 {
		return false, fmt.Errorf("sock_diag: %w", errno)
	}
	return answer(buf[:n])
}

// question asks for the socket at addr that takes connections from anywhere.
func question(addr netip.AddrPort) []byte {
	req := make([]byte, unix.NLMSG_HDRLEN+diagRequest)
	binary.NativeEndian.PutUint32(req, uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST)
	body := req[unix.NLMSG_HDRLEN:]
	body[0], body[1] = unix.AF_INET, unix.IPPROTO_TCP
	if addr.Addr().Is6() {
		body[0] = unix.AF_INET6
	}
	binary.BigEndian.PutUint16(body[diagAskPort:], addr.Port())
	copy(body[diagAskAddr:], addr.Addr().AsSlice())
	for i := range 8 {
		body[diagCookie+i] = 0xff // INET_DIAG_NOCOOKIE: any
	}
	return req
}

// answer reads what the kernel says to a question.
func answer(b []byte) (there bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return false, fmt.Errorf("sock_diag: %w", err)
	}
	if len(messages) != 1 {
		return false, fmt.Errorf("sock_diag: %d answers, want one", len(messages))
	}
	m := messages[0]
	switch {
	case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
		errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
		if errno == unix.ENOENT {
			return false, nil
		}
		return false, fmt.Errorf("sock_diag: %w", errno)
	case m.Header.Type != unix.SOCK_DIAG_BY_FAMILY || len(m.Data) < diagReply:
		return false, fmt.Errorf("sock_diag: an answer of type %d and %d bytes", m.Header.Type, len(m.Data))
	}
	return m.Data[diagState] == tcpListen, nil
}
