package netstack

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// tcpPacket is what the tests know of one TCP packet.
type tcpPacket struct {
	seq, ack uint32
	flags    header.TCPFlags
	window   uint16
	options  []byte
	tclass   uint8
	srcPort  uint16
	payload  []byte
}

// bytes is the plain reference: the packet as RFC 8200 and RFC 9293 say.
func (p tcpPacket) bytes() []byte {
	tcpLen := header.TCPMinimumSize + len(p.options)
	b := make([]byte, header.IPv6MinimumSize+tcpLen+len(p.payload))
	ip := header.IPv6(b)
	ip.Encode(&header.IPv6Fields{
		TrafficClass: p.tclass, PayloadLength: uint16(tcpLen + len(p.payload)),
		TransportProtocol: header.TCPProtocolNumber, HopLimit: 64,
		SrcAddr: tcpip.AddrFrom16(addrA.As16()), DstAddr: tcpip.AddrFrom16(addrB.As16()),
	})
	t := header.TCP(b[header.IPv6MinimumSize:])
	t.Encode(&header.TCPFields{
		SrcPort: p.srcPort, DstPort: 1, SeqNum: p.seq, AckNum: p.ack,
		DataOffset: uint8(tcpLen), Flags: p.flags, WindowSize: p.window,
	})
	copy(t[header.TCPMinimumSize:], p.options)
	copy(t[tcpLen:], p.payload)
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(t)))
	t.SetChecksum(^checksum.Checksum(t, sum))
	return b
}

// super builds the packet that the stack would hand over for p, its payload
// in views of random sizes and its checksum partial.
func super(p tcpPacket, mss int, rng *rand.Rand) *stack.PacketBuffer {
	var payload buffer.Buffer
	for rest := p.payload; len(rest) > 0; {
		n := 1 + rng.IntN(len(rest))
		payload.Append(buffer.NewViewWithData(rest[:n]))
		rest = rest[n:]
	}
	whole := p.bytes()
	tcpLen := header.TCPMinimumSize + len(p.options)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv6MinimumSize + tcpLen + rng.IntN(40),
		Payload:            payload,
	})
	tcp := header.TCP(pkt.TransportHeader().Push(tcpLen))
	copy(tcp, whole[header.IPv6MinimumSize:])
	tcp.SetChecksum(0xdead)
	copy(pkt.NetworkHeader().Push(header.IPv6MinimumSize), whole)
	pkt.TransportProtocolNumber = header.TCPProtocolNumber
	pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv6, NeedsCsum: true, MSS: uint16(mss)}
	pkt.Hash = rng.Uint32()
	return pkt
}

// cut is the plain reference for emitTCP.
func cut(p tcpPacket, mss int) [][]byte {
	var out [][]byte
	for start := 0; start == 0 || start < len(p.payload); start += mss {
		q := p
		q.seq = p.seq + uint32(start)
		end := min(start+mss, len(p.payload))
		q.payload = p.payload[start:end]
		if start > 0 {
			q.flags &^= header.TCPFlagCwr
		}
		if end < len(p.payload) {
			q.flags &^= header.TCPFlagFin | header.TCPFlagPsh
		}
		out = append(out, q.bytes())
	}
	return out
}

func randomPacket(rng *rand.Rand, maxPayload int) tcpPacket {
	p := tcpPacket{
		seq: rng.Uint32(), ack: rng.Uint32(), window: uint16(rng.Uint32()), tclass: uint8(rng.IntN(4)),
		srcPort: uint16(1 + rng.IntN(3)), flags: header.TCPFlagAck,
		options: make([]byte, 4*rng.IntN(11)),
		payload: make([]byte, rng.IntN(maxPayload+1)),
	}
	for _, f := range []header.TCPFlags{header.TCPFlagPsh, header.TCPFlagFin, header.TCPFlagCwr, header.TCPFlagEce} {
		if rng.IntN(3) == 0 {
			p.flags |= f
		}
	}
	for i := range p.options {
		p.options[i] = byte(rng.Uint32())
	}
	for i := range p.payload {
		p.payload[i] = byte(rng.Uint32())
	}
	return p
}

// What Read emits for any segment, in batches of any size, is byte for byte
// what the reference cuts.
func TestCutAgreesWithReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		p := randomPacket(rng, 60000)
		if rng.IntN(4) == 0 {
			p.payload = p.payload[:min(len(p.payload), 3)]
		}
		mss := 1 + rng.IntN(1400)
		if len(p.payload)/mss > 500 {
			mss = len(p.payload) / 500
		}
		want := cut(p, mss)

		q := newQueue()
		pkt := super(p, mss, rng)
		if err := q.push(pkt, anyPath); err != nil {
			t.Fatal(err)
		}
		pkt.DecRef()
		var got [][]byte
		for {
			pieces := q.take(nil, 1+rng.IntN(batch))
			if len(pieces) == 0 {
				break
			}
			for _, pc := range pieces {
				bufs, sizes := make([][]byte, pc.count), make([]int, pc.count)
				for i := range bufs {
					bufs[i] = make([]byte, 7+2000)
				}
				n, err := emit(pc, bufs, sizes, 7)
				if err != nil || n != pc.count {
					t.Fatalf("round %d: emitted %d of %d: %v", round, n, pc.count, err)
				}
				for i := range n {
					got = append(got, bufs[i][7:7+sizes[i]])
				}
				pc.pkt.DecRef()
			}
		}
		if len(got) != len(want) {
			t.Fatalf("round %d: %d packets, want %d (payload %d, MSS %d)", round, len(got), len(want), len(p.payload), mss)
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("round %d packet %d of %d:\n got %x\nwant %x", round, i, len(want), got[i][:60], want[i][:60])
			}
		}
	}
}

func TestEmitRefusesASmallBuffer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pkt := super(randomPacket(rng, 3000), 1000, rng)
	defer pkt.DecRef()
	sizes := make([]int, 8)
	bufs := make([][]byte, 8)
	for i := range bufs {
		bufs[i] = make([]byte, 50)
	}
	step, count := (&queued{pkt: pkt, path: anyPath}).cut()
	if _, err := emit(piece{pkt: pkt, step: step, count: count}, bufs, sizes, 0); err == nil {
		t.Fatal("a packet larger than its buffer was emitted")
	}
}

// Whatever comes in one batch, the joined packets carry the same bytes of
// each connection in the same order, and a join happens only between packets
// that differ in nothing that it would lose.
func TestJoinLosesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	joins := 0
	for range 3000 {
		var bufs [][]byte
		for range 1 + rng.IntN(4) {
			run := cut(randomPacket(rng, 8000), 1+rng.IntN(1400))
			if rng.IntN(4) == 0 { // something amiss in the middle of a run
				i := rng.IntN(len(run))
				run[i][rng.IntN(len(run[i]))] ^= 1 << rng.IntN(8)
			}
			if rng.IntN(6) == 0 && len(run) > 2 {
				run = append(run[:1], run[2:]...) // a lost packet
			}
			bufs = append(bufs, run...)
		}
		for i := 0; i < len(bufs); {
			n, payload := joinable(bufs[i:], 0)
			if n < 1 || i+n > len(bufs) {
				t.Fatalf("joinable says %d of %d", n, len(bufs)-i)
			}
			if n > 1 {
				joins++
				checkJoin(t, bufs[i:i+n], payload)
			}
			i += n
		}
	}
	if joins < 1000 {
		t.Fatalf("only %d joins: the test tests nothing", joins)
	}
}

func checkJoin(t *testing.T, bufs [][]byte, payload int) {
	t.Helper()
	pkt := join(bufs, 0, payload)
	defer pkt.DecRef()
	got := pkt.ToView().AsSlice()
	first := header.TCP(bufs[0][40:])
	hdr := 40 + int(first.DataOffset())
	var data []byte
	var flags header.TCPFlags
	for i, b := range bufs {
		tcp := header.TCP(b[40:])
		if i < len(bufs)-1 && len(b) != len(bufs[0]) {
			t.Fatalf("packet %d of %d has another size", i, len(bufs))
		}
		if tcp.SequenceNumber() != first.SequenceNumber()+uint32(len(data)) {
			t.Fatalf("packet %d is not contiguous", i)
		}
		if !bytes.Equal(b[:4], bufs[0][:4]) || !bytes.Equal(b[6:44], bufs[0][6:44]) || tcp.AckNumber() != first.AckNumber() ||
			tcp.WindowSize() != first.WindowSize() || !bytes.Equal(tcp.Options(), first.Options()) {
			t.Fatalf("packet %d differs from the first in what the join loses", i)
		}
		data = append(data, b[hdr:]...)
		flags |= tcp.Flags()
	}
	if !bytes.Equal(got[hdr:], data) {
		t.Fatal("the payload changed")
	}
	if int(binary.BigEndian.Uint16(got[4:])) != len(got)-40 {
		t.Fatal("the payload length is wrong")
	}
	if header.TCP(got[40:]).Flags() != flags {
		t.Fatalf("flags %v, want %v", header.TCP(got[40:]).Flags(), flags)
	}
}

// FuzzWrite gives any bytes to the checks that see a packet first.
func FuzzWrite(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 8 {
		f.Add(randomPacket(rng, 200).bytes(), randomPacket(rng, 200).bytes())
	}
	f.Add([]byte{}, []byte{0x60})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		for _, p := range [][]byte{a, b} {
			admit(p)
		}
		if n, payload := joinable([][]byte{a, b}, 0); n == 2 {
			checkJoin(t, [][]byte{a, b}, payload)
		}
	})
}
