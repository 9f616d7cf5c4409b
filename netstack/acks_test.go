package netstack

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// ackQueue is a queue by a clock of its own, and a connection whose acknowledgments wait
// in it.
type ackQueue struct {
	*queue
	clock      *faketime.ManualClock
	rng        *rand.Rand
	connection acker
}

func newAckQueue(t *testing.T) *ackQueue {
	a := &ackQueue{queue: newQueue(), clock: faketime.NewManualClock(), rng: rand.New(rand.NewPCG(1, 1))}
	a.acks.segment, a.acks.clock = 1000, a.clock
	t.Cleanup(a.close)
	return a
}

func (a *ackQueue) send(t *testing.T, p tcpPacket) {
	t.Helper()
	pkt := super(p, a.acks.segment, a.rng)
	defer pkt.DecRef()
	pkt.Hash, pkt.Owner = 7, &a.connection
	if err := a.push(pkt, anyPath); err != nil {
		t.Fatal(err)
	}
}

// left is up to where each packet acknowledges that has left since the last call.
func (a *ackQueue) left() (acks []uint32) {
	for _, p := range a.take(nil, batch) {
		acks = append(acks, header.TCP(p.pkt.TransportHeader().Slice()).AckNumber())
		p.pkt.DecRef()
	}
	return acks
}

// What waits, for what, and how long.
func TestAcknowledgmentsWait(t *testing.T) {
	timestamps := make([]byte, 12)
	ack := func(n uint32) tcpPacket {
		return tcpPacket{ack: n, flags: header.TCPFlagAck, options: timestamps}
	}
	data := func(n uint32) tcpPacket {
		p := ack(n)
		p.flags |= header.TCPFlagPsh
		p.payload = []byte("answer")
		return p
	}
	with := func(p tcpPacket, flags header.TCPFlags, options int) tcpPacket {
		p.flags |= flags
		p.options = make([]byte, options)
		return p
	}
	begin := ack(1 << 31) // the first one never waits
	at := func(n int32) uint32 { return 1<<31 + uint32(n) }

	for _, tc := range []struct {
		name  string
		first []tcpPacket
		at    []uint32 // acknowledged by what leaves at once
		after []uint32 // and by what leaves after the wait
	}{
		{name: "alone", first: []tcpPacket{begin, ack(at(10))}, at: []uint32{at(0)}, after: []uint32{at(10)}},
		{name: "with an answer", first: []tcpPacket{begin, ack(at(10)), data(at(10))}, at: []uint32{at(0), at(10)}},
		{name: "with an answer to more", first: []tcpPacket{begin, ack(at(10)), data(at(20))}, at: []uint32{at(0), at(20)}},
		{name: "with a FIN", first: []tcpPacket{begin, ack(at(10)), with(ack(at(10)), header.TCPFlagFin, 12)}, at: []uint32{at(0), at(10)}},
		{name: "two are one", first: []tcpPacket{begin, ack(at(10)), ack(at(20))}, at: []uint32{at(0)}, after: []uint32{at(20)}},
		{name: "until they are a segment", first: []tcpPacket{begin, ack(at(600)), ack(at(999)), ack(at(1000))}, at: []uint32{at(0), at(1000)}},
		{name: "a segment", first: []tcpPacket{begin, ack(at(1000))}, at: []uint32{at(0), at(1000)}},
		{name: "since the last that left", first: []tcpPacket{begin, data(at(900)), ack(at(1100))}, at: []uint32{at(0), at(900)}, after: []uint32{at(1100)}},
		{name: "repeated: something was lost, or the window moved", first: []tcpPacket{begin, ack(at(10)), ack(at(10)), ack(at(10))}, at: []uint32{at(0), at(10), at(10), at(10)}},
		{name: "nothing new", first: []tcpPacket{begin, ack(at(0))}, at: []uint32{at(0), at(0)}},
		{name: "older", first: []tcpPacket{begin, ack(at(-10))}, at: []uint32{at(0), at(-10)}},
		{name: "with ranges after a loss", first: []tcpPacket{begin, with(ack(at(10)), 0, 24)}, at: []uint32{at(0), at(10)}},
		{name: "around zero", first: []tcpPacket{ack(1<<32 - 5), ack(5)}, at: []uint32{1<<32 - 5}, after: []uint32{5}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := newAckQueue(t)
			for _, p := range tc.first {
				q.send(t, p)
			}
			if got := q.left(); !slices.Equal(got, tc.at) {
				t.Errorf("at once left %v, want %v", got, tc.at)
			}
			q.clock.Advance(ackWait - 1)
			if got := q.left(); len(got) > 0 {
				t.Errorf("%v left too early", got)
			}
			q.clock.Advance(ackWait + 1)
			if got := q.left(); !slices.Equal(got, tc.after) {
				t.Errorf("after the wait left %v, want %v", got, tc.after)
			}
			q.clock.Advance(10 * time.Second)
			if got := q.left(); len(got) > 0 {
				t.Errorf("%v left twice", got)
			}
		})
	}
}

// New bytes do not put off the acknowledgment of those before them.
func TestAcknowledgmentsWaitOnce(t *testing.T) {
	q := newAckQueue(t)
	left := 0
	const messages = 100
	for i := range uint32(messages) {
		q.send(t, tcpPacket{ack: 1 + i, flags: header.TCPFlagAck, options: make([]byte, 12)})
		left += len(q.left())
		q.clock.Advance(ackWait / 2)
	}
	if least := messages / 4; left < least || left > 2*least {
		t.Errorf("%d acknowledgments left for %d messages, want %d to %d", left, messages, least, 2*least)
	}
}

// What waits in vain does not wait again, until something would have come for it to
// go with. Messages that follow each other closely share an acknowledgment all the same.
func TestAcknowledgmentsThatNothingGoesWith(t *testing.T) {
	q := newAckQueue(t)
	send := func(n uint32, flags header.TCPFlags) {
		t.Helper()
		q.send(t, tcpPacket{ack: n, flags: header.TCPFlagAck | flags, options: make([]byte, 12)})
	}
	received := uint32(0)
	for _, step := range []struct {
		name   string
		pause  time.Duration // before the message
		answer time.Duration // after it; 0: none
		want   bool          // it is acknowledged at once
	}{
		{"the very first", time.Second, 0, true},
		{"a heartbeat", 2 * time.Second, 0, false},
		{"the next", 2 * time.Second, 0, true},
		{"another", 2 * time.Second, 0, true},
		{"one of many", ackWait, 0, false},
		{"and again", ackWait, 0, false},
		{"a heartbeat again", 2 * time.Second, 0, true},
		{"a question that is answered late", time.Second, ackWait, true},
		{"a question", time.Second, ackWait - 1, true},
		{"a question in a dialogue", time.Second, ackWait - 1, false},
		{"the next one", time.Second, ackWait - 1, false},
		{"one without an answer", time.Second, 0, false},
		{"and another one", time.Second, 0, true},
	} {
		q.clock.Advance(step.pause)
		q.left()
		received++
		send(received, 0)
		if got := len(q.left()) == 1; got != step.want {
			t.Errorf("%s: acknowledged at once: %t", step.name, got)
		}
		if step.answer == 0 {
			continue
		}
		q.clock.Advance(step.answer)
		send(received, header.TCPFlagPsh)
		if got := len(q.left()); got != 1 {
			t.Errorf("%s: %d packets with the answer", step.name, got)
		}
	}
}

// timeless wires two stacks for which time stands still, so that no wait ends, and
// counts the packets between them.
func timeless(t *testing.T) (a, b *Stack, packets *atomic.Int64) {
	packets = new(atomic.Int64)
	a, b = wiredWith(t, Config{clock: faketime.NewManualClock()}, func(bufs [][]byte) [][]byte {
		packets.Add(int64(len(bufs)))
		return bufs
	})
	return a, b, packets
}

// A dialogue takes one packet for each message, and no connection waits for
// ever for what the other end holds back.
func TestDialogueSendsNothingButMessages(t *testing.T) {
	a, b, packets := timeless(t)
	client, server := connected(t, a, b)
	say := func() {
		mustWrite(t, client, "question")
		mustRead(t, server, "question")
		mustWrite(t, server, "the answer")
		mustRead(t, client, "the answer")
	}
	say() // the first are acknowledged at once
	before := packets.Load()
	const rounds = 50
	for range rounds {
		say()
	}
	// What is under way when the count is read belongs to the last round.
	if n := packets.Load() - before; n > 2*rounds+2 {
		t.Errorf("%d packets for %d messages", n, 2*rounds)
	}
}

// What was received is acknowledged before the device ends, though the wait is not
// over: the other end would send it again for minutes.
func TestFlush(t *testing.T) {
	a, b, packets := timeless(t)
	client, server := connected(t, a, b)
	mustWrite(t, client, "question")
	mustRead(t, server, "question")
	mustWrite(t, server, "the first answer is acknowledged at once")
	mustRead(t, client, "the first answer is acknowledged at once")
	mustWrite(t, server, "the last answer")
	mustRead(t, client, "the last answer")
	// A segment is acknowledged before the endpoint, which is locked for it, is
	// free again.
	var free tcpip.CongestionControlOption
	if terr := client.ep.GetSockOpt(&free); terr != nil {
		t.Fatal(terr)
	}
	a.link.queue.mu.Lock()
	held := len(a.link.queue.acks.waiting)
	a.link.queue.mu.Unlock()
	if held != 1 {
		t.Fatalf("%d acknowledgments wait, want one", held)
	}
	b.Flush(time.Minute)
	before := packets.Load()
	a.Flush(time.Minute)
	if n := packets.Load() - before; n != 1 {
		t.Errorf("%d packets left, want the acknowledgment", n)
	}
	if err := a.Device().Close(); err != nil {
		t.Fatal(err)
	}
	a.Flush(time.Minute) // there is nothing to wait for any more
}
