package netstack

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"gvisor.dev/gvisor/pkg/refs"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// anyPath is one that leaves the size of packets to TCP.
var anyPath = &Path{limit: MaxMTU}

// A flow that sends a packet now and then waits behind no more than the turn
// that is under way, however many bulk flows there are.
func TestSparseFlowGoesFirst(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	q := newQueue()
	defer q.close()
	push := func(hash uint32, payload int) {
		p := randomPacket(rng, 0)
		p.payload = make([]byte, payload)
		pkt := super(p, 1348, rng)
		pkt.Hash = hash
		if err := q.push(pkt, anyPath); err != nil {
			t.Fatal(err)
		}
		pkt.DecRef()
	}
	const bulk, turn = 32, quantum/1348 + 1
	for hash := uint32(1); hash <= bulk; hash++ {
		for range 30 {
			push(hash, 60000)
		}
	}
	take := func(n int) []uint32 {
		var hashes []uint32
		for _, p := range q.take(nil, n) {
			for range p.count {
				hashes = append(hashes, p.pkt.Hash)
			}
			p.pkt.DecRef()
		}
		return hashes
	}
	for range 3 * bulk { // every bulk flow had its first turn
		take(turn)
	}
	push(1000, 100)
	push(0, 0) // no flow: first of all
	got := take(2)
	if got[0] != 0 || got[1] != 1000 {
		t.Fatalf("sent flows %v first, want 0 and then 1000", got)
	}

	// And the bulk flows share equally.
	counts := map[uint32]int{}
	for _, h := range take(bulk * turn * 4) {
		counts[h]++
	}
	for hash := uint32(1); hash <= bulk; hash++ {
		if n := counts[hash]; n < turn*3 || n > turn*5 {
			t.Errorf("flow %d sent %d packets of about %d", hash, n, turn*4)
		}
	}
}

func TestQueueKeepsEachFlowInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	q := newQueue()
	defer q.close()
	next, seen := map[uint32]uint32{}, map[uint32]uint32{}
	drain := func(max int) {
		for _, p := range q.take(nil, max) {
			seq := header.TCP(p.pkt.TransportHeader().Slice()).SequenceNumber()<<16 + uint32(p.start)
			if last, ok := seen[p.pkt.Hash]; ok && seq <= last {
				t.Fatalf("flow %d: %d after %d", p.pkt.Hash, seq, last)
			}
			seen[p.pkt.Hash] = seq
			p.pkt.DecRef()
		}
	}
	for range 5000 {
		hash := uint32(1 + rng.IntN(20))
		p := randomPacket(rng, 20000)
		next[hash]++
		p.seq = next[hash]
		pkt := super(p, 1348, rng)
		pkt.Hash = hash
		if err := q.push(pkt, anyPath); err != nil {
			t.Fatal(err)
		}
		pkt.DecRef()
		if rng.IntN(3) == 0 {
			drain(1 + rng.IntN(batch))
		}
	}
	for q.fresh.head != nil || q.bulk.head != nil {
		drain(batch)
	}
	if len(seen) != 20 {
		t.Fatalf("%d flows came out, want 20", len(seen))
	}
}

func TestQueueBoundsWhatIsNotTCP(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	q := newQueue()
	defer q.close()
	refused := 0
	for range flowLossy + 10 {
		pkt := super(randomPacket(rng, 10), 1348, rng)
		pkt.Hash, pkt.TransportProtocolNumber = 7, header.UDPProtocolNumber
		if err := q.push(pkt, anyPath); err != nil {
			if _, ok := err.(*tcpip.ErrNoBufferSpace); !ok {
				t.Fatal(err)
			}
			refused++
		}
		pkt.DecRef()
	}
	if refused != 10 || q.drops != 10 {
		t.Fatalf("refused %d, counted %d, want 10", refused, q.drops)
	}
}

// Every packet buffer is released, wherever it was when the stack closed.
func TestEveryPacketIsReleased(t *testing.T) {
	if os.Getenv("NETSTACK_LEAK_CHILD") == "" {
		// gVisor's count covers the whole process, so it gets one of its
		// own.
		cmd := exec.Command(os.Args[0], "-test.run=^TestEveryPacketIsReleased$", "-test.v")
		cmd.Env = append(os.Environ(), "NETSTACK_LEAK_CHILD=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	refs.SetLeakMode(refs.LeaksPanic)
	t.Run("traffic", func(t *testing.T) {
		TestBulkArrivesWhole(t)
		TestStorm(t)
	})
	t.Run("left in the queue", func(t *testing.T) {
		s, err := Open(Config{Addr: addrA})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(addrB, 80))
		}()
		<-s.link.queue.wake // its SYN is queued, and nobody reads
		cancel()
		<-done
		s.Close()
	})
	t.Run("acknowledgments that wait", func(t *testing.T) {
		TestAcknowledgmentsWait(t)
		TestDialogueSendsNothingButMessages(t)
	})
	refs.DoLeakCheck()
}

// A node that provokes a RST with every packet does not starve the others.
func TestPacketsWithoutAFlowHaveAShare(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	q := newQueue()
	defer q.close()
	refused := 0
	push := func(hash uint32) {
		pkt := super(randomPacket(rng, 0), 1320, rng)
		pkt.Hash = hash
		if err := q.push(pkt, anyPath); err != nil {
			refused++
		}
		pkt.DecRef()
	}
	for range urgentMost + 10 {
		push(0)
	}
	push(7)
	if refused != 10 {
		t.Errorf("refused %d packets, want 10", refused)
	}
	pieces := q.take(nil, batch)
	if n := len(pieces); n != urgentShare+1 || pieces[n-1].pkt.Hash != 7 {
		t.Errorf("a batch of %d packets, want %d without a flow and one of a flow", n, urgentShare)
	}
	for _, p := range pieces {
		p.pkt.DecRef()
	}
}
