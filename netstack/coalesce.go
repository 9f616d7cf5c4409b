package netstack

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxJoined is the largest packet that join makes: an IPv6 packet's payload
// length has 16 bits (RFC 8200, section 3).
const maxJoined = header.IPv6MinimumSize + 1<<16 - 1

// tcpView is a TCP packet as join looks at it.
type tcpView struct {
	hdrLen  int // IPv6 and TCP headers
	payload int
	flags   header.TCPFlags
	seq     uint32
}

// viewTCP reads b's headers. It reports false for what is never joined: other
// protocols, extension headers, packets that carry no data or whose flags say
// more than ACK and PSH, and lengths that do not agree.
func viewTCP(b []byte) (tcpView, bool) {
	const ip = header.IPv6MinimumSize
	if len(b) < ip+header.TCPMinimumSize || b[0]>>4 != 6 || b[6] != uint8(header.TCPProtocolNumber) {
		return tcpView{}, false
	}
	if int(binary.BigEndian.Uint16(b[4:])) != len(b)-ip {
		return tcpView{}, false
	}
	t := header.TCP(b[ip:])
	v := tcpView{hdrLen: ip + int(t.DataOffset()), flags: t.Flags(), seq: t.SequenceNumber()}
	v.payload = len(b) - v.hdrLen
	if int(t.DataOffset()) < header.TCPMinimumSize || v.payload <= 0 {
		return tcpView{}, false
	}
	if v.flags&header.TCPFlagAck == 0 || v.flags&^(header.TCPFlagAck|header.TCPFlagPsh) != 0 {
		return tcpView{}, false
	}
	return v, true
}

// joinable counts the packets at the start of bufs that are one run of one
// connection and can be given to TCP as one segment, at least one. The rules
// are those of Linux's tcp_gro_receive (net/ipv4/tcp_offload.c): same
// addresses, ports, traffic class, acknowledgement, window and options,
// contiguous sequence numbers, equal sizes until a last that may be shorter,
// and PSH ends the run. It reports the bytes of payload too.
func joinable(bufs [][]byte, offset int) (n, payload int) {
	first := bufs[0][offset:]
	v, ok := viewTCP(first)
	if !ok {
		return 1, 0
	}
	n, payload = 1, v.payload
	if v.flags&header.TCPFlagPsh != 0 {
		return n, payload
	}
	for _, b := range bufs[1:] {
		next := b[offset:]
		w, ok := viewTCP(next)
		if !ok || w.hdrLen != v.hdrLen || w.seq != v.seq+uint32(payload) || w.payload > v.payload ||
			v.hdrLen+payload+w.payload > maxJoined || !sameHeaders(first[:v.hdrLen], next[:v.hdrLen]) {
			break
		}
		n++
		payload += w.payload
		if w.payload < v.payload || w.flags&header.TCPFlagPsh != 0 {
			break
		}
	}
	return n, payload
}

// sameHeaders tells whether two headers agree in all that a join would lose:
// everything but the payload length, the sequence number, PSH and the
// checksum.
func sameHeaders(a, b []byte) bool {
	const t = header.IPv6MinimumSize
	return bytes.Equal(a[:4], b[:4]) && // version, traffic class, flow label
		bytes.Equal(a[6:t+4], b[6:t+4]) && // next header to the ports
		bytes.Equal(a[t+8:t+13], b[t+8:t+13]) && // acknowledgement, data offset
		bytes.Equal(a[t+14:t+16], b[t+14:t+16]) && // window
		bytes.Equal(a[t+18:], b[t+18:]) // urgent pointer, options
}

// join makes one packet of bufs, of which joinable said that they are one run
// with that much payload. The checksum is left as it was in the first: the
// link says that checksums were verified, as WireGuard authenticated every
// byte.
func join(bufs [][]byte, offset, payload int) *stack.PacketBuffer {
	first := bufs[0][offset:]
	hdrLen := header.IPv6MinimumSize + int(header.TCP(first[header.IPv6MinimumSize:]).DataOffset())
	head := buffer.NewViewWithData(first[:hdrLen])
	last := header.TCP(bufs[len(bufs)-1][offset+header.IPv6MinimumSize:])
	header.IPv6(head.AsSlice()).SetPayloadLength(uint16(hdrLen - header.IPv6MinimumSize + payload))
	header.TCP(head.AsSlice()[header.IPv6MinimumSize:]).SetFlags(uint8(last.Flags()))

	body := buffer.NewViewSize(payload)
	out, n := body.AsSlice(), 0
	for _, b := range bufs {
		n += copy(out[n:], b[offset+hdrLen:])
	}
	return packet(head, body)
}

// single makes a packet of one buffer.
func single(b []byte) *stack.PacketBuffer {
	v, ok := viewTCP(b)
	if !ok {
		return packet(buffer.NewViewWithData(b), nil)
	}
	return packet(buffer.NewViewWithData(b[:v.hdrLen]), buffer.NewViewWithData(b[v.hdrLen:]))
}

// packet makes a packet of one or two views, which it owns. The headers are
// best in a view of their own: the stack copies the whole view that they are
// in, up to three times, because it looks at them while the packet is shared
// (PacketBuffer.headerView, Buffer.PullUp).
func packet(head, body *buffer.View) *stack.PacketBuffer {
	payload := buffer.MakeWithView(head)
	if body != nil {
		if err := payload.Append(body); err != nil {
			panic(err) // only for a view that is nil
		}
	}
	return stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: payload})
}
