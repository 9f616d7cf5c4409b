package netstack

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Lengths of the overlay's node prefix, in bytes: one node owns one /80.
const nodePrefixBytes = 10

// admit tells whether an inbound packet may reach the stack.
//
// Spoofing, which lets the stack send from visitors' addresses, also switches
// off gVisor's check that an ICMPv6 error comes from somewhere the
// connection's packets went, so that one node could cripple another's
// connections with forged errors. Therefore an ICMPv6 error gets in only when
// its sender and the destination of the packet that it quotes are one node (a
// common /80), Packet Too Big never (the link's MTU is constant and the
// overlay has no router), and other ICMPv6 only as echo, since a link of two
// ends has no neighbours to discover (RFC 4443, RFC 4861).
func admit(b []byte) bool {
	if len(b) < header.IPv6MinimumSize || b[0]>>4 != 6 {
		return false
	}
	if int(binary.BigEndian.Uint16(b[4:]))+header.IPv6MinimumSize > len(b) {
		return false
	}
	switch b[6] {
	case uint8(header.TCPProtocolNumber):
		return true
	case uint8(header.ICMPv6ProtocolNumber):
		return admitICMP(b)
	}
	// The stack has no other protocol. Extension headers, fragments among
	// them, have no use in the overlay, and each is a way around the checks
	// above.
	return false
}

func admitICMP(b []byte) bool {
	msg := b[header.IPv6MinimumSize:]
	if len(msg) < header.ICMPv6MinimumSize {
		return false
	}
	switch header.ICMPv6Type(msg[0]) {
	case header.ICMPv6EchoRequest, header.ICMPv6EchoReply:
		return true
	case header.ICMPv6DstUnreachable, header.ICMPv6TimeExceeded, header.ICMPv6ParamProblem:
	default:
		return false
	}
	quoted := msg[header.ICMPv6ErrorHeaderSize:]
	if len(quoted) < header.IPv6MinimumSize {
		return false
	}
	sender, destination := b[8:8+nodePrefixBytes], quoted[24:24+nodePrefixBytes]
	return bytes.Equal(sender, destination)
}
