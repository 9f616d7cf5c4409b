// Package listening tells which TCP ports of this machine programs listen on,
// without connecting to any of them.
//
//	there, known := listening.Serves(netip.MustParseAddrPort("127.0.0.1:8089"))
//	if table, _ := listening.Read(); known && !there {
//		fmt.Println("nobody listens there; but:", table.Others(4))
//	}
//
// It is known on Linux alone, where the kernel is asked by sock_diag(7), or else
// /proc/net/tcp and tcp6 are read (see proc(5)); elsewhere both say that it is not.
package listening

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Socket is one that listens.
type Socket struct {
	Addr  netip.AddrPort
	inode string
}

// Table is all sockets that listen, at one moment.
type Table []Socket

// Has reports whether a connection to addr would find somebody. An unspecified
// IPv6 address is taken to stand for IPv4, too, as it does unless its program
// chose otherwise.
func (t Table) Has(addr netip.AddrPort) bool {
	return slices.ContainsFunc(t, func(s Socket) bool {
		if s.Addr.Port() != addr.Port() {
			return false
		}
		a, want := s.Addr.Addr(), addr.Addr().Unmap()
		return a == want || a.IsUnspecified() && (a.Is6() || want.Is4())
	})
}

// OnLoopback are the loopback addresses that have somebody on a port.
func (t Table) OnLoopback(port uint16) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range t {
		if s.Addr.Port() == port && s.Addr.Addr().IsLoopback() && !slices.Contains(out, s.Addr) {
			out = append(out, s.Addr)
		}
	}
	return out
}

// listenState is that of a listening socket (TCP_LISTEN in the kernel's
// include/net/tcp_states.h).
const listenState = "0A"

// maxFile bounds what is read of a table, in bytes: 150 of them are one socket.
const maxFile = 16 << 20

// parse reads a table as the kernel prints it: after a heading, lines of fields,
// of which the second is the local address, the fourth the state and the tenth
// the inode. Listening sockets stand before all others.
func parse(r io.Reader) (Table, error) {
	var out Table
	lines := bufio.NewScanner(io.LimitReader(r, maxFile))
	for first := true; lines.Scan(); first = false {
		fields := bytes.Fields(lines.Bytes())
		if first || len(fields) < 10 {
			continue
		}
		if string(fields[3]) != listenState {
			continue
		}
		addr, err := parseAddr(string(fields[1]))
		if err != nil {
			return nil, err
		}
		out = append(out, Socket{Addr: addr, inode: string(fields[9])})
	}
	return out, lines.Err()
}

// parseAddr reads 0100007F:1F90: 32-bit words in hexadecimal, each as the machine
// holds it, which is little-endian wherever this is used.
func parseAddr(text string) (netip.AddrPort, error) {
	host, port, ok := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	if !ok || err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("read the address %q: not as the kernel writes one", text)
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read the address %q: %w", text, err)
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}
