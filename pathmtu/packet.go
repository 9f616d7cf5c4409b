package pathmtu

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// A probe and its answer are ICMPv6 informational messages of the two types
// that are kept for experiments (RFC 4443, section 2.1), which nodes that do
// not know them discard without an answer (section 2.4).
//
//	IPv6 header                                     40 bytes
//	type: 200 probe, 201 answer; code 0; checksum    4
//	token, drawn at random                           8
//	length of the probe, in the answer               4
//	zeros, in the probe                              up to its length
const (
	typeProbe  = 200
	typeAnswer = 201

	ipv6Header  = 40
	nextICMPv6  = 58
	hopLimit    = 64
	messageSize = 16
	answerSize  = ipv6Header + messageSize
)

// message is a probe or an answer.
type message struct {
	from, to netip.Addr
	answer   bool
	token    uint64
	size     int // of the probe's packet, in bytes
}

// bytes is the packet.
func (m message) bytes() []byte {
	n, typ, said := m.size, byte(typeProbe), 0
	if m.answer {
		n, typ, said = answerSize, typeAnswer, m.size
	}
	b := make([]byte, n)
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(n-ipv6Header))
	b[6], b[7] = nextICMPv6, hopLimit
	from, to := m.from.As16(), m.to.As16()
	copy(b[8:], from[:])
	copy(b[24:], to[:])
	icmp := b[ipv6Header:]
	icmp[0] = typ
	binary.BigEndian.PutUint64(icmp[4:], m.token)
	binary.BigEndian.PutUint32(icmp[12:], uint32(said))
	binary.BigEndian.PutUint16(icmp[2:], icmpChecksum(b))
	return b
}

var errNoProbe = errors.New("neither a probe nor an answer")

// parse reads a packet that was received.
func parse(b []byte) (message, error) {
	if len(b) < answerSize || len(b) > 1<<16-1 || b[0]>>4 != 6 || b[6] != nextICMPv6 ||
		int(binary.BigEndian.Uint16(b[4:])) != len(b)-ipv6Header {
		return message{}, errNoProbe
	}
	icmp := b[ipv6Header:]
	m := message{
		from: netip.AddrFrom16([16]byte(b[8:24])), to: netip.AddrFrom16([16]byte(b[24:40])),
		token: binary.BigEndian.Uint64(icmp[4:]), size: len(b),
	}
	switch {
	case icmp[0] == typeProbe && icmp[1] == 0:
	case icmp[0] == typeAnswer && icmp[1] == 0 && len(b) == answerSize:
		m.answer = true
		m.size = int(binary.BigEndian.Uint32(icmp[12:]))
	default:
		return message{}, errNoProbe
	}
	if checksum(b) != 0xffff {
		return message{}, errors.New("its checksum is wrong")
	}
	return m, nil
}

// isProbe tells a probe without a close look.
func isProbe(b []byte) bool {
	return len(b) >= answerSize && b[0]>>4 == 6 && b[6] == nextICMPv6 && b[ipv6Header] == typeProbe
}

// icmpChecksum is that of a packet whose checksum is still zero.
func icmpChecksum(b []byte) uint16 { return ^checksum(b) }

// checksum sums an ICMPv6 packet and its pseudo-header (RFC 8200, section 8.1).
func checksum(b []byte) uint16 {
	sum := uint64(nextICMPv6) + uint64(len(b)-ipv6Header)
	for p := b[8:]; len(p) > 0; { // the addresses, then the message
		if len(p) == 1 {
			sum += uint64(p[0]) << 8
			break
		}
		sum += uint64(binary.BigEndian.Uint16(p))
		p = p[2:]
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
