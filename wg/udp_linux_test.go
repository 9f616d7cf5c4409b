package wg

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/wgexpose/wgexpose/internal/logbuf"
)

// One Send of a run of equal datagrams is one message of the kernel, and
// arrives with one call.
func TestSegmentsTravelTogether(t *testing.T) {
	for _, addr := range []netip.AddrPort{loopback4, loopback6} {
		a, b := UDP(addr), UDP(addr)
		openBind(t, a)
		got := openBind(t, b)
		if !a.open.Load().any().gso.Load() {
			t.Skip("this kernel has no UDP_SEGMENT")
		}
		ep := endpoint(t, a, b.LocalAddr())
		if err := a.Send(datagrams(append(repeat(1000, 63), 10)...), ep); err != nil {
			t.Fatal(err)
		}
		if n := len(<-got); n != 64 {
			t.Errorf("the first call received %d datagrams, want 64", n)
		}
	}
}

// any is the socket of a bind with one.
func (s *sockets) any() *socket {
	if s.v4 != nil {
		return s.v4
	}
	return s.v6
}

func TestPlan(t *testing.T) {
	b := UDP(loopback4)
	openBind(t, b)
	tx := newTx(b.open.Load().any())
	for name, c := range map[string]struct {
		sizes []int
		gso   bool
		limit int32
		want  []int // datagrams in each message
	}{
		"none":              {nil, true, 0, nil},
		"one":               {[]int{5}, true, 0, []int{1}},
		"off":               {repeat(5, 3), false, 0, []int{1, 1, 1}},
		"run":               {repeat(5, 3), true, 0, []int{3}},
		"65":                {repeat(5, 65), true, 0, []int{64, 1}},
		"shorter ends":      {[]int{5, 5, 4, 5, 5}, true, 0, []int{3, 2}},
		"longer begins":     {[]int{5, 6, 6}, true, 0, []int{1, 2}},
		"empty":             {[]int{0, 0, 5, 0}, true, 0, []int{1, 1, 1, 1}},
		"payload":           {repeat(1452, 64), true, 0, []int{45, 19}},
		"largest":           {[]int{65507, 65507}, true, 0, []int{1, 1}},
		"at the limit":      {repeat(1452, 3), true, 1452, []int{1, 1, 1}},
		"below the limit":   {repeat(1451, 3), true, 1452, []int{3}},
		"around the limit":  {[]int{1452, 1400, 1400, 1452}, true, 1452, []int{1, 2, 1}},
		"all that there is": {repeat(400, sendSize), true, 0, []int{64, 64}},
	} {
		t.Run(name, func(t *testing.T) {
			ep := endpoint(t, b, netip.MustParseAddrPort("127.0.0.1:5")).(*Endpoint)
			ep.segmentLimit.Store(c.limit)
			tx.plan(datagrams(c.sizes...), ep, c.gso)
			var got []int
			for m := range tx.messages {
				got = append(got, tx.first[m+1]-tx.first[m])
			}
			if len(got) != len(c.want) {
				t.Fatalf("messages of %v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Fatalf("messages of %v, want %v", got, c.want)
				}
			}
		})
	}
}

func TestLimitSegments(t *testing.T) {
	var ep Endpoint
	for _, size := range []int{1452, 1500, 1300, 1400} {
		ep.limitSegments(size)
	}
	if got := ep.segmentLimit.Load(); got != 1300 {
		t.Errorf("limit %d, want the smallest that failed", got)
	}
}

// A packet that came to one of a machine's addresses is answered from it.
func TestAnswersComeFromTheAddressThatWasCalled(t *testing.T) {
	for _, c := range []struct{ called, elsewhere string }{{"127.0.0.2", "127.0.0.3"}} {
		b := UDP(netip.AddrPort{})
		got := openBind(t, b)
		peer, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback4))
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		answer := func(to string) (netip.AddrPort, *Endpoint) {
			t.Helper()
			if _, err := peer.WriteToUDPAddrPort([]byte("ping"), netip.AddrPortFrom(netip.MustParseAddr(to), b.Port())); err != nil {
				t.Fatal(err)
			}
			ep := take(t, got, 1)[0].ep.(*Endpoint)
			return send(t, b, peer, ep), ep
		}
		from, ep := answer(c.called)
		if from.Addr().String() != c.called || ep.SrcIP().String() != c.called {
			t.Errorf("answered from %v, source %v; want %v", from, ep.SrcIP(), c.called)
		}
		if from, _ := answer(c.elsewhere); from.Addr().String() != c.elsewhere {
			t.Errorf("answered from %v, want %v", from, c.elsewhere)
		}
		// Without a source, the system chooses, until the next packet.
		ep.ClearSrc()
		if from := send(t, b, peer, ep); from.Addr() != loopback4.Addr() || ep.SrcIP().IsValid() {
			t.Errorf("answered from %v, want %v", from, loopback4.Addr())
		}
		if from, _ := answer(c.called); from.Addr().String() != c.called {
			t.Errorf("answered from %v, want %v again", from, c.called)
		}
	}
}

// A source that this machine no longer has is given up, not insisted upon.
func TestSourceThatIsGone(t *testing.T) {
	b := UDP(netip.AddrPort{})
	openBind(t, b)
	peer, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback4))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	ep, err := newEndpoint(endpointKey{
		dst: peer.LocalAddr().(*net.UDPAddr).AddrPort(),
		src: netip.MustParseAddr("192.0.2.1"), ifindex: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if from := send(t, b, peer, ep); from.Addr() != loopback4.Addr() {
		t.Errorf("sent from %v", from)
	}
	if ep.hasSrc() {
		t.Error("the source is still there")
	}
}

// send sends a run of datagrams and returns the address that they came from.
func send(t *testing.T, b *UDPBind, peer *net.UDPConn, ep *Endpoint) netip.AddrPort {
	t.Helper()
	sent := datagrams(100, 100, 50)
	if err := b.Send(sent, ep); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 200)
	var from netip.AddrPort
	for _, want := range sent {
		n, addr, err := peer.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != string(want) {
			t.Fatalf("received %d bytes, %v", n, err)
		}
		from = addr
	}
	return from
}

// inSmallNetwork runs f in a network namespace of its own, whose only
// interface is a loopback with the given MTU. Sockets that f opens belong to it
// for good.
func inSmallNetwork(t *testing.T, mtu uint32, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with this goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		if err := loopbackUp(mtu); err != nil {
			done <- err
			return
		}
		f()
		done <- nil
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		t.Skip("this needs the right to make a network namespace")
	} else if err != nil {
		t.Fatal(err)
	}
}

func loopbackUp(mtu uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint32(mtu)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, ifr); err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOOPBACK)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// Where segments are larger than the interface's MTU, the kernel refuses the
// super-datagram and takes single ones, which it fragments.
func TestSmallMTU(t *testing.T) {
	for _, addr := range []netip.AddrPort{loopback4, loopback6} {
		var a, b *UDPBind
		var got <-chan received
		inSmallNetwork(t, 1300, func() {
			a, b = UDP(addr), UDP(addr)
			openBind(t, a)
			got = openBind(t, b)
		})
		ep := endpoint(t, a, b.LocalAddr()).(*Endpoint)
		for range 2 {
			sent := datagrams(append(repeat(1452, 60), 100)...)
			if err := a.Send(sent, ep); err != nil {
				t.Fatal(err)
			}
			for i, d := range take(t, got, len(sent)) {
				if d.data != string(sent[i]) {
					t.Fatalf("datagram %d arrived otherwise", i)
				}
			}
		}
		if limit := ep.segmentLimit.Load(); limit != 1452 {
			t.Errorf("segments are limited to less than %d, want 1452", limit)
		}
		// Smaller ones still go together.
		if err := a.Send(datagrams(repeat(1200, 50)...), ep); err != nil {
			t.Fatal(err)
		}
		if n := len(<-got); n != 50 {
			t.Errorf("the first call received %d datagrams, want 50", n)
		}
	}
}

// Whole devices over a link with a small MTU.
func TestDevicesOverASmallMTU(t *testing.T) {
	var a, b *node
	inSmallNetwork(t, 1300, func() {
		open := func(id byte) *node {
			tun := newFakeTun()
			// At this event, wireguard-go opens the sockets on a goroutine of its
			// own, whose thread is not in this network.
			<-tun.events
			bind := UDP(loopback4)
			return openNodeOn(t, tun, id, bind, bind, newKey(t))
		}
		a, b = open(1), open(2)
	})
	introduce(t, a, b, b.bind.LocalAddr())
	deliver(t, a, b, 0, 1420)
	exchange(t, a, b, 2000)
}

// A datagram that is too large is lost alone.
func TestTooLarge(t *testing.T) {
	a, b := UDP(loopback4), UDP(loopback4)
	openBind(t, a)
	got := openBind(t, b)
	sent := datagrams(100, 65535, 200)
	if err := a.Send(sent, endpoint(t, a, b.LocalAddr())); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("error %v, want %v", err, unix.EMSGSIZE)
	}
	all := take(t, got, 2)
	if all[0].data != string(sent[0]) || all[1].data != string(sent[2]) {
		t.Error("other datagrams arrived than the small ones")
	}
}

func TestSocketBuffers(t *testing.T) {
	var logged logbuf.Buffer
	b := UDPWith(loopback4, UDPOptions{Logger: textLogger(&logged)})
	for range 3 {
		if _, _, err := b.Open(0); err != nil {
			t.Fatal(err)
		}
		n := b.open.Load().any().smallestBuffer()
		if n <= 0 {
			t.Errorf("buffers of %d bytes", n)
		}
		if hints, want := strings.Count(logged.String(), "net.core.rmem_max"), n < wantBuffer; (hints == 1) != want {
			t.Errorf("buffers of %d bytes, %d hints", n, hints)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The kernel's layouts, which Go's must equal.
func TestLayouts(t *testing.T) {
	if got, want := unsafe.Sizeof(mmsghdr{}), unsafe.Sizeof(unix.Msghdr{})+unsafe.Sizeof(uintptr(0)); got != want {
		t.Errorf("mmsghdr takes %d bytes, want %d", got, want)
	}
	need := unix.CmsgSpace(unix.SizeofInet6Pktinfo) + unix.CmsgSpace(4)
	if controlWords*8 < need {
		t.Errorf("control messages have %d bytes and need %d", controlWords*8, need)
	}
}

// What a closed socket received into is received into by the next: an agent
// opens new ones whenever its network changes.
func TestReopenedSocketsUseTheSameMemory(t *testing.T) {
	b := UDP(netip.AddrPort{})
	seen := make(map[*byte]bool)
	for range 5 {
		fns, port, err := b.Open(0)
		if err != nil {
			t.Fatal(err)
		}
		s := b.open.Load()
		var ended sync.WaitGroup
		arrived := make(chan struct{}, 1)
		for _, fn := range fns {
			ended.Go(func() {
				bufs, sizes, eps := datagrams(repeat(2000, batchSize)...), make([]int, batchSize), make([]conn.Endpoint, batchSize)
				for {
					if _, err := fn(bufs, sizes, eps); err != nil {
						return
					}
					select {
					case arrived <- struct{}{}:
					default: // of a stranger
					}
				}
			})
		}
		for _, socket := range []*socket{s.v4, s.v6} {
			if socket == nil {
				continue
			}
			addr := loopback4.Addr()
			if socket.v6 {
				addr = loopback6.Addr()
			}
			if err := b.Send(datagrams(100), endpoint(t, b, netip.AddrPortFrom(addr, port))); err != nil {
				t.Fatal(err)
			}
			<-arrived
			seen[&socket.rx.memory[0]] = true
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		ended.Wait()
	}
	if len(seen) > 2 {
		t.Errorf("five times two sockets received into %d pieces of memory", len(seen))
	}
}

// Steady traffic makes no garbage for each datagram.
func TestHotPathAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops items from pools")
	}
	a, b := UDP(loopback4), UDP(loopback4)
	a.setWhole(&whole{probes: new(probes)})
	openBind(t, a)
	fns, _, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ep := endpoint(t, a, b.LocalAddr())
	sent := datagrams(repeat(1000, 64)...)
	bufs := datagrams(repeat(2000, batchSize)...)
	sizes, eps := make([]int, batchSize), make([]conn.Endpoint, batchSize)
	n := testing.AllocsPerRun(200, func() {
		if err := a.Send(sent, ep); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < len(sent); {
			k, err := fns[0](bufs, sizes, eps)
			if err != nil {
				t.Fatal(err)
			}
			got += k
		}
	})
	if n >= 1 {
		t.Errorf("%v allocations for 64 datagrams there and back", n)
	}
}
