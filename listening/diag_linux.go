package listening

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The question and the answer of sock_diag(7), in the machine's byte order but for
// ports and addresses (include/uapi/linux/inet_diag.h).
const (
	diagRequest  = 56 // struct inet_diag_req_v2: family, protocol, ext, pad, states, inet_diag_sockid
	diagReply    = 72 // struct inet_diag_msg
	diagStates   = 4  // in the request: a bit for each state
	diagPort     = 4  // in the reply: inet_diag_sockid.idiag_sport
	diagAddr     = 8  // idiag_src
	diagInode    = 68
	tcpListen    = 10 // TCP_LISTEN, include/net/tcp_states.h
	diagPatience = 2 * time.Second
)

// ask asks the kernel for the sockets of a family that listen. It has those in a
// table of their own, while /proc/net/tcp takes a walk through all connections,
// some milliseconds even where there are none.
func ask(family uint8) (Table, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	defer unix.Close(fd)
	patience := unix.NsecToTimeval(int64(diagPatience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	req := make([]byte, unix.NLMSG_HDRLEN+diagRequest)
	binary.NativeEndian.PutUint32(req, uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.NLMSG_HDRLEN:]
	body[0], body[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[diagStates:], 1<<tcpListen)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	var out Table
	buf := make([]byte, 8<<10) // what the kernel fills at once: NLMSG_GOODSIZE is less on all machines
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("sock_diag: %w", err)
		}
		more, done, err := replies(buf[:n], family)
		if err != nil {
			return nil, err
		}
		if out = append(out, more...); done {
			return out, nil
		}
	}
}

// replies reads what the kernel sent at once.
func replies(b []byte, family uint8) (out Table, done bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, false, fmt.Errorf("sock_diag: %w", err)
	}
	for _, m := range messages {
		switch m.Header.Type {
		case unix.NLMSG_DONE:
			return out, true, nil
		case unix.NLMSG_ERROR:
			code := int32(0)
			if len(m.Data) >= 4 {
				code = int32(binary.NativeEndian.Uint32(m.Data))
			}
			return nil, false, fmt.Errorf("sock_diag: %w", os.NewSyscallError("netlink", syscall.Errno(-code)))
		}
		if len(m.Data) < diagReply {
			return nil, false, fmt.Errorf("sock_diag: an answer of %d bytes, want %d", len(m.Data), diagReply)
		}
		size := 4
		if family == unix.AF_INET6 {
			size = 16
		}
		addr, _ := netip.AddrFromSlice(m.Data[diagAddr : diagAddr+size])
		out = append(out, Socket{
			Addr:  netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(m.Data[diagPort:])),
			inode: strconv.FormatUint(uint64(binary.NativeEndian.Uint32(m.Data[diagInode:])), 10),
		})
	}
	return out, false, nil
}
