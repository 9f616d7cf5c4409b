package netstack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// However often the path changes its size while a segment waits, its bytes
// leave once each, in order, in packets of no more than the size of that moment,
// and each packet is what the reference says.
func TestCutFollowsThePath(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for round := range 1000 {
		p := randomPacket(rng, 60000)
		p.flags |= header.TCPFlagPsh | header.TCPFlagFin | header.TCPFlagCwr
		mss := 500 + rng.IntN(1400)
		path := &Path{limit: 1420}
		q := newQueue()
		pkt := super(p, mss, rng)
		if err := q.push(pkt, path); err != nil {
			t.Fatal(err)
		}
		pkt.DecRef()
		headers := header.IPv6MinimumSize + header.TCPMinimumSize + len(p.options)
		sent := 0
		for {
			size := []int{0, MinMTU, 1420, 1500, 9000, 65472}[rng.IntN(6)]
			path.SetSize(size)
			most := size
			if size == 0 {
				most = min(1420, mss+headers)
			}
			pieces := q.take(nil, 1+rng.IntN(9))
			if len(pieces) == 0 {
				break
			}
			for _, pc := range pieces {
				bufs, sizes := make([][]byte, pc.count), make([]int, pc.count)
				for i := range bufs {
					bufs[i] = make([]byte, MaxMTU)
				}
				n, err := emit(pc, bufs, sizes, 0)
				pc.pkt.DecRef()
				if err != nil || n != pc.count {
					t.Fatalf("round %d: emitted %d of %d: %v", round, n, pc.count, err)
				}
				for i, size := range sizes {
					if size > most {
						t.Fatalf("round %d: a packet of %d bytes on a path for %d", round, size, most)
					}
					want := p
					want.seq += uint32(sent)
					k := size - headers
					want.payload = p.payload[sent : sent+k]
					if sent > 0 {
						want.flags &^= header.TCPFlagCwr
					}
					if sent += k; sent < len(p.payload) {
						want.flags &^= header.TCPFlagFin | header.TCPFlagPsh
					}
					if !bytes.Equal(bufs[i][:size], want.bytes()) {
						t.Fatalf("round %d: the packet before byte %d of %d is not what it should be", round, sent, len(p.payload))
					}
				}
			}
		}
		if sent != len(p.payload) {
			t.Fatalf("round %d: %d bytes left, of %d", round, sent, len(p.payload))
		}
	}
}

// A connection whose segment size was agreed while the path was large goes on
// when it shrinks, and uses it when it grows, though the stack learns of neither.
func TestTransferOverAChangingPath(t *testing.T) {
	var limit, largest atomic.Int64
	limit.Store(65535)
	a, b := wired(t, func(bufs [][]byte) [][]byte {
		var through [][]byte
		for _, p := range bufs {
			n := int64(len(p) - 16)
			if n > limit.Load() {
				continue
			}
			largest.Store(max(n, largest.Load()))
			through = append(through, p)
		}
		return through
	})
	path, err := a.Path(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	if err != nil {
		t.Fatal(err)
	}
	path.SetSize(9000)
	client, server := connected(t, a, b)
	data := make([]byte, 16<<20)
	rng := rand.New(rand.NewPCG(3, 3))
	for i := 0; i < len(data); i += 8 {
		binary.NativeEndian.PutUint64(data[i:], rng.Uint64())
	}
	var sender sync.WaitGroup
	sender.Go(func() {
		if _, err := client.Write(data); err != nil {
			t.Error(err)
		}
		if err := client.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	defer sender.Wait()
	sum := sha256.New()
	read := func(n int64) {
		t.Helper()
		if _, err := io.CopyN(sum, server, n); err != nil {
			t.Fatal(err)
		}
	}
	read(4 << 20)
	if n := largest.Load(); n <= 1420 || n > 9000 {
		t.Errorf("packets of %d bytes on a path for 9,000", n)
	}
	limit.Store(1232) // what is under way is lost
	path.SetSize(1232)
	read(4 << 20)
	limit.Store(65535)
	largest.Store(0)
	path.SetSize(65452)
	read(4 << 20)
	if n := largest.Load(); n <= 9000 {
		t.Errorf("packets of %d bytes on a path for 65,452", n)
	}
	a.ForgetPath(netip.PrefixFrom(netip.IPv6Unspecified(), 0), path)
	limit.Store(1420)
	if _, err := io.Copy(sum, server); err != nil {
		t.Fatal(err)
	}
	if [32]byte(sum.Sum(nil)) != sha256.Sum256(data) {
		t.Error("other bytes arrived than were sent")
	}
}

// The smallest MTU is less than gVisor's IPv6 takes.
func TestSmallestMTU(t *testing.T) {
	var largest atomic.Int64
	a, b := wiredWith(t, Config{MTU: MinMTU}, func(bufs [][]byte) [][]byte {
		for _, p := range bufs {
			largest.Store(max(int64(len(p)-16), largest.Load()))
		}
		return bufs
	})
	client, server := connected(t, a, b)
	var sender sync.WaitGroup
	sender.Go(func() {
		if _, err := client.Write(make([]byte, 1<<20)); err != nil {
			t.Error(err)
		}
	})
	defer sender.Wait()
	if _, err := io.CopyN(io.Discard, server, 1<<20); err != nil {
		t.Fatal(err)
	}
	if n := largest.Load(); n > MinMTU || n < MinMTU-100 {
		t.Errorf("the largest packet has %d bytes, want up to %d", n, MinMTU)
	}
	for _, mtu := range []int{MinMTU - 1, MaxMTU + 1, -1} {
		if err := (Config{Addr: addrA, MTU: mtu}).Validate(); err == nil {
			t.Errorf("an MTU of %d is accepted", mtu)
		}
	}
}

// Paths are found by the destination's node, and one for everything has them all.
func TestPathOfAPacket(t *testing.T) {
	s, err := Open(Config{Addr: addrA})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	open := func(prefix string) *Path {
		t.Helper()
		p, err := s.Path(netip.MustParsePrefix(prefix))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	check := func(what string, want *Path) {
		t.Helper()
		pkt := super(tcpPacket{}, 1000, rand.New(rand.NewPCG(1, 1))) // to addrB
		defer pkt.DecRef()
		if s.link.paths.of(pkt) != want {
			t.Error(what)
		}
	}
	check("no path is known, and one was found", &s.link.paths.unknown)
	open("fd00:3::/80")
	check("the path of another node was found", &s.link.paths.unknown)
	toB := netip.PrefixFrom(addrB, 80)
	first := open(toB.String())
	check("the node's path was not found", first)
	second := open(toB.String())
	s.ForgetPath(toB, first)
	check("a path that was replaced took the other one along", second)
	s.ForgetPath(toB, second)
	check("a path was found that was forgotten", &s.link.paths.unknown)
	all := open("::/0")
	check("the path to everywhere was not found", all)
	for _, bad := range []string{"fd00:3::/64", "10.0.0.0/8", "::/1"} {
		if _, err := s.Path(netip.MustParsePrefix(bad)); err == nil {
			t.Errorf("there is a path to %s", bad)
		}
	}
}

// A watch tells once of the first packet that is larger.
func TestWatch(t *testing.T) {
	p := new(Path)
	calls := 0
	p.left([]int{9000})
	p.Watch(1200, func() { calls++ })
	p.left([]int{1200, 40})
	if calls != 0 {
		t.Error("told of packets that are no larger")
	}
	p.left([]int{40, 1201})
	p.left([]int{1300})
	if calls != 1 {
		t.Errorf("told %d times, want once", calls)
	}
	p.Watch(1200, func() { calls++ })
	p.Watch(0, nil)
	p.left([]int{1300})
	if calls != 1 {
		t.Error("told of a packet after the end")
	}
}

// Probes and their answers pass the stack by, in both directions.
func TestProbesAreNotTheStacks(t *testing.T) {
	got := make(chan []byte, 1)
	a, err := Open(Config{Addr: addrA, Probes: func(p []byte) { got <- bytes.Clone(p) }})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	probe := make([]byte, 1300)
	probe[0], probe[6], probe[40] = 6<<4, uint8(header.ICMPv6ProtocolNumber), 200
	binary.BigEndian.PutUint16(probe[4:], uint16(len(probe)-40))
	if err := a.Send(probe); err != nil {
		t.Fatal(err)
	}
	bufs, sizes := [][]byte{make([]byte, 2000)}, []int{0}
	if n, err := a.Device().Read(bufs, sizes, 16); n != 1 || err != nil || !bytes.Equal(bufs[0][16:16+sizes[0]], probe) {
		t.Fatalf("read %d packets, the first of %d bytes: %v", n, sizes[0], err)
	}
	if _, err := a.Device().Write([][]byte{probe}, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-got, probe) {
		t.Error("another packet came than was sent")
	}
	if n := a.Stats().PacketsReceived; n != 0 {
		t.Errorf("the stack got %d packets", n)
	}
	for _, bad := range [][]byte{nil, make([]byte, 39), make([]byte, MaxMTU+1)} {
		if err := a.Send(bad); err == nil {
			t.Errorf("sent a packet of %d bytes", len(bad))
		}
	}
}

// Of large packets, fewer are on their way at a time.
func TestLargePacketsOnTheirWay(t *testing.T) {
	l := newLink(DefaultMTU, nil, slog.New(slog.DiscardHandler))
	for mean, want := range map[int]int64{0: inFlight, 40: inFlight, 1420: inFlight, 8192: inFlight, 16384: 256, 65536: 64, 1 << 20: inFlightLeast} {
		l.mean = mean
		if got := l.most(); got != want {
			t.Errorf("%d packets of %d bytes, want %d", got, mean, want)
		}
	}
}
