package netstack

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// ip6 is an IPv6 packet with any next header and payload.
func ip6(next uint8, src, dst string, payload []byte) []byte {
	b := make([]byte, header.IPv6MinimumSize+len(payload))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = next, 64
	s, d := netip.MustParseAddr(src).As16(), netip.MustParseAddr(dst).As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	copy(b[header.IPv6MinimumSize:], payload)
	return b
}

func icmp6(kind header.ICMPv6Type, src string, quotedDst string) []byte {
	quoted := ip6(uint8(header.TCPProtocolNumber), "fd00::1", quotedDst, make([]byte, 20))
	return ip6(uint8(header.ICMPv6ProtocolNumber), src, "fd00::1", append([]byte{byte(kind), 0, 0, 0, 0, 0, 0, 0}, quoted...))
}

func TestAdmit(t *testing.T) {
	const (
		edge    = "fd11:2222:3333:0:1::1"
		agent   = "fd11:2222:3333:0:100:0:0:1" // node 0x100
		tunnel  = "fd11:2222:3333:0:100:1:0:7" // a tunnel of the same node
		another = "fd11:2222:3333:0:200:1:0:7"
	)
	tcp := uint8(header.TCPProtocolNumber)
	tests := []struct {
		name string
		pkt  []byte
		want bool
	}{
		{"TCP", ip6(tcp, agent, edge, make([]byte, 20)), true},
		{"UDP", ip6(17, agent, edge, make([]byte, 8)), false},
		{"echo request", icmp6(header.ICMPv6EchoRequest, agent, another), true},
		{"unreachable from the node the packet went to", icmp6(header.ICMPv6DstUnreachable, agent, tunnel), true},
		{"unreachable from another node", icmp6(header.ICMPv6DstUnreachable, agent, another), false},
		{"parameter problem from another node", icmp6(header.ICMPv6ParamProblem, agent, another), false},
		{"time exceeded from another node", icmp6(header.ICMPv6TimeExceeded, agent, another), false},
		{"packet too big from another node", icmp6(header.ICMPv6PacketTooBig, agent, another), false},
		{"packet too big, even from the node itself", icmp6(header.ICMPv6PacketTooBig, agent, tunnel), false},
		{"router advertisement", icmp6(header.ICMPv6RouterAdvert, agent, tunnel), false},
		{"neighbour advertisement", icmp6(header.ICMPv6NeighborAdvert, agent, tunnel), false},
		{"redirect", icmp6(header.ICMPv6RedirectMsg, agent, tunnel), false},
		{"ICMPv6 behind a hop-by-hop header", ip6(0, agent, edge, append([]byte{58, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 60)...)), false},
		{"ICMPv6 behind a destination options header", ip6(60, agent, edge, append([]byte{58, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 60)...)), false},
		{"ICMPv6 in fragments", ip6(44, agent, edge, append([]byte{58, 0, 0, 1, 0, 0, 0, 0}, make([]byte, 60)...)), false},
		{"TCP in fragments", ip6(44, agent, edge, append([]byte{tcp, 0, 0, 1, 0, 0, 0, 0}, make([]byte, 60)...)), false},
		{"UDP in fragments", ip6(44, agent, edge, append([]byte{17, 0, 0, 1, 0, 0, 0, 0}, make([]byte, 60)...)), false},
		{"IPv4", make([]byte, 60), false},
		{"nothing", nil, false},
		{"a short header", ip6(tcp, agent, edge, nil)[:30], false},
		{"a length beyond the packet", ip6(tcp, agent, edge, make([]byte, 40))[:60], false},
		{"an error that quotes too little", icmp6(header.ICMPv6DstUnreachable, agent, tunnel)[:60], false},
	}
	for _, test := range tests {
		if got := admit(test.pkt); got != test.want {
			t.Errorf("%s: admitted %t, want %t", test.name, got, test.want)
		}
	}
	// The last but one claims its full length; with its own length right it
	// must be refused for what it quotes.
	short := icmp6(header.ICMPv6DstUnreachable, agent, tunnel)[:60]
	binary.BigEndian.PutUint16(short[4:], uint16(len(short)-header.IPv6MinimumSize))
	if admit(short) {
		t.Error("an error that quotes no whole header was admitted")
	}
}
