package netstack

import (
	"encoding/binary"
	"fmt"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxHeaders bounds the network and transport headers that a packet from
// the stack has: IPv6's fixed header and the largest TCP header. The stack
// sends no extension headers but the fragment header, and that only in
// packets that are not cut here.
const maxHeaders = header.IPv6MinimumSize + header.TCPHeaderMaximumSize

// headersOf is how many bytes of headers each packet has that pkt is cut into.
func headersOf(pkt *stack.PacketBuffer) int {
	return len(pkt.NetworkHeader().Slice()) + len(pkt.TransportHeader().Slice())
}

// emit writes the packets of p to bufs, each at offset, and their lengths to
// sizes. It reports how many it wrote, which is p.count unless a packet does
// not fit its buffer.
func emit(p piece, bufs [][]byte, sizes []int, offset int) (int, error) {
	r := newPacketReader(p.pkt)
	if p.step == 0 {
		n, err := r.whole(bufs[0][offset:])
		if err != nil {
			return 0, err
		}
		sizes[0] = n
		return 1, nil
	}
	return emitTCP(p, &r, bufs, sizes, offset)
}

// emitTCP cuts a TCP segment into packets of at most p.step payload bytes, as a
// network card would (Linux: tcp_gso_segment in net/ipv4/tcp_offload.c): the
// sequence number moves on, FIN and PSH stay on the last, CWR on the first,
// and each gets its own length and checksum. The stack left a partial
// checksum in the header, so a segment that needs no cutting comes this way
// too.
func emitTCP(p piece, r *packetReader, bufs [][]byte, sizes []int, offset int) (int, error) {
	var room [maxHeaders]byte
	hdrLen := headersOf(p.pkt)
	if hdrLen > maxHeaders {
		return 0, fmt.Errorf("cut a TCP segment: headers of %d bytes", hdrLen)
	}
	hdr := room[:hdrLen]
	r.read(hdr)
	ip := header.IPv6(hdr)
	tcp := header.TCP(hdr[header.IPv6MinimumSize:])
	tcpLen := hdrLen - header.IPv6MinimumSize
	payload := p.pkt.Data().Size()
	seq := tcp.SequenceNumber()
	flags := tcp.Flags()
	addrs := checksum.Checksum(hdr[8:40], uint16(header.TCPProtocolNumber))

	r.skip(p.start)
	for i := range p.count {
		start := p.start + i*p.step
		n := min(p.step, payload-start)
		buf := bufs[i][offset:]
		if len(buf) < hdrLen+n {
			return i, fmt.Errorf("cut a TCP segment: %d bytes do not fit a buffer of %d", hdrLen+n, len(buf))
		}
		f := flags
		if start != 0 {
			f &^= header.TCPFlagCwr
		}
		if start+n != payload {
			f &^= header.TCPFlagFin | header.TCPFlagPsh
		}
		ip.SetPayloadLength(uint16(tcpLen + n))
		tcp.SetSequenceNumber(seq + uint32(start))
		tcp.SetFlags(uint8(f))
		tcp.SetChecksum(0)
		copy(buf, hdr)
		r.read(buf[hdrLen : hdrLen+n])
		sum := checksum.Combine(addrs, uint16(tcpLen+n))
		sum = checksum.Checksum(buf[header.IPv6MinimumSize:hdrLen+n], sum)
		binary.BigEndian.PutUint16(buf[header.IPv6MinimumSize+header.TCPChecksumOffset:], ^sum)
		sizes[i] = hdrLen + n
	}
	return p.count, nil
}

// packetReader reads a packet's bytes in order, from its network header on,
// out of the views that share them with TCP's send buffer.
type packetReader struct {
	view *buffer.View
	rest []byte // unread part of view
}

func newPacketReader(pkt *stack.PacketBuffer) packetReader {
	views, skip := pkt.AsViewList()
	r := packetReader{view: views.Front()}
	if r.view != nil {
		r.rest = r.view.AsSlice()
	}
	r.skip(skip)
	return r
}

// fill makes rest non-empty unless the packet is at its end.
func (r *packetReader) fill() {
	for len(r.rest) == 0 && r.view != nil {
		if r.view = r.view.Next(); r.view != nil {
			r.rest = r.view.AsSlice()
		}
	}
}

func (r *packetReader) skip(n int) {
	for n > 0 {
		r.fill()
		if r.view == nil {
			return
		}
		k := min(n, len(r.rest))
		r.rest = r.rest[k:]
		n -= k
	}
}

func (r *packetReader) read(p []byte) int {
	n := 0
	for n < len(p) {
		r.fill()
		if r.view == nil {
			break
		}
		k := copy(p[n:], r.rest)
		r.rest = r.rest[k:]
		n += k
	}
	return n
}

// whole reads all that is left into p.
func (r *packetReader) whole(p []byte) (int, error) {
	n := r.read(p)
	r.fill()
	if r.view != nil {
		return 0, fmt.Errorf("read a packet: it does not fit a buffer of %d bytes", len(p))
	}
	return n, nil
}
