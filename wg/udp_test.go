package wg

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// openBind opens a bind and collects what it receives.
func openBind(t testing.TB, b conn.Bind) <-chan received {
	t.Helper()
	fns, port, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := b.(*UDPBind); port == 0 || ok && port != u.Port() {
		t.Fatalf("opened port %d; the bind is %+v", port, b)
	}
	got := make(chan received, 4096)
	ended := make(chan error, len(fns))
	for _, fn := range fns {
		go func() { ended <- collect(fn, got) }()
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		for range fns {
			if err := <-ended; err != net.ErrClosed {
				t.Errorf("a receive function ended with %v", err)
			}
		}
	})
	return got
}

// received is what one call of a receive function gave.
type received []datagram

type datagram struct {
	data string
	ep   conn.Endpoint
}

func collect(fn conn.ReceiveFunc, got chan<- received) error {
	bufs := make([][]byte, batchSize)
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	sizes, eps := make([]int, batchSize), make([]conn.Endpoint, batchSize)
	for {
		n, err := fn(bufs, sizes, eps)
		if err != nil {
			return err
		}
		var r received
		for i := range n {
			r = append(r, datagram{string(bufs[i][:sizes[i]]), eps[i]})
		}
		got <- r
	}
}

// take waits for n datagrams and returns them in order of arrival.
func take(t testing.TB, got <-chan received, n int) received {
	t.Helper()
	var all received
	for len(all) < n {
		select {
		case r := <-got:
			all = append(all, r...)
		case <-time.After(patience):
			t.Fatalf("%d of %d datagrams arrived", len(all), n)
		}
	}
	if len(all) > n {
		t.Fatalf("%d datagrams arrived, %d were sent", len(all), n)
	}
	return all
}

func endpoint(t testing.TB, b *UDPBind, addr netip.AddrPort) conn.Endpoint {
	t.Helper()
	ep, err := b.ParseEndpoint(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return ep
}

// datagrams makes one datagram of each size, all different.
func datagrams(sizes ...int) [][]byte {
	var all [][]byte
	for i, size := range sizes {
		b := make([]byte, size)
		for k := range b {
			b[k] = byte(i*31 + k)
		}
		all = append(all, b)
	}
	return all
}

func repeat(size, count int) []int {
	sizes := make([]int, count)
	for i := range sizes {
		sizes[i] = size
	}
	return sizes
}

// Whatever sizes go out in one Send arrive as they were, in order.
func TestBatches(t *testing.T) {
	batches := map[string][]int{
		"one":              {100},
		"equal":            repeat(1452, 64),
		"last is shorter":  append(repeat(1452, 9), 10),
		"last is longer":   append(repeat(1000, 9), 1001),
		"full batch":       repeat(1200, 128),
		"large":            {65507, 65000, 65507},
		"two large ones":   repeat(40000, 2),
		"mixed":            {148, 1452, 1452, 1452, 32, 32, 32, 1452, 96, 1452, 1452, 33, 34, 33},
		"shorter between":  {1452, 1452, 700, 1452, 1452, 1452},
		"single bytes":     repeat(1, 128),
		"more than a call": repeat(1452, 300),
	}
	for _, addr := range []netip.AddrPort{loopback4, loopback6} {
		for _, opts := range []UDPOptions{{}, {NoGSO: true}, {NoGRO: true}} {
			t.Run(fmt.Sprintf("%v %+v", addr.Addr(), opts), func(t *testing.T) {
				a, b := UDPWith(addr, opts), UDPWith(addr, opts)
				openBind(t, a)
				got := openBind(t, b)
				ep := endpoint(t, a, b.LocalAddr())
				for name, sizes := range batches {
					sent := datagrams(sizes...)
					if err := a.Send(sent, ep); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					for i, d := range take(t, got, len(sent)) {
						if d.data != string(sent[i]) {
							t.Fatalf("%s: datagram %d arrived otherwise", name, i)
						}
						if from := d.ep.(*Endpoint).AddrPort(); from != a.LocalAddr() {
							t.Fatalf("%s: from %v, want %v", name, from, a.LocalAddr())
						}
					}
				}
			})
		}
	}
}

func TestAnswersGoBackToEndpoints(t *testing.T) {
	for _, addr := range []netip.AddrPort{loopback4, loopback6} {
		b := UDP(addr)
		got := openBind(t, b)
		peer, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(b.LocalAddr()))
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		if _, err := peer.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		ep := take(t, got, 1)[0].ep
		local := peer.LocalAddr().(*net.UDPAddr).AddrPort()
		if ep.DstToString() != local.String() || ep.DstIP() != local.Addr() {
			t.Errorf("endpoint %v, want %v", ep.DstToString(), local)
		}
		if other := endpoint(t, b, local); !bytes.Equal(other.DstToBytes(), ep.DstToBytes()) {
			t.Error("one address has two cookies")
		}
		if err := b.Send([][]byte{[]byte("pong")}, ep); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if n, err := peer.Read(buf); err != nil || string(buf[:n]) != "pong" {
			t.Errorf("read %q, %v", buf[:n], err)
		}
	}
}

func TestReopen(t *testing.T) {
	for _, addr := range []netip.AddrPort{loopback4, {}} {
		b := UDP(addr)
		if err := b.Close(); err != nil {
			t.Errorf("close before open: %v", err)
		}
		_, port, err := b.Open(0)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Open(0); err != conn.ErrBindAlreadyOpen {
			t.Errorf("second open: %v", err)
		}
		ep := endpoint(t, b, netip.AddrPortFrom(loopback4.Addr(), port))
		if err := b.Send(datagrams(5), ep); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := b.Send(datagrams(5), ep); !errors.Is(err, net.ErrClosed) {
			t.Errorf("send while closed: %v", err)
		}
		if got := b.LocalAddr(); got != (netip.AddrPort{}) {
			t.Errorf("closed, and listens on %v", got)
		}
		fns, again, err := b.Open(port)
		if err != nil || again != port {
			t.Fatalf("opened %d, want %d; %v", again, port, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		for _, fn := range fns {
			if _, err := fn(make([][]byte, 1), make([]int, 1), make([]conn.Endpoint, 1)); err != net.ErrClosed {
				t.Errorf("receive after close: %v", err)
			}
		}
	}
}

// A device keeps its session and its port when its bind is opened again.
func TestBindUpdate(t *testing.T) {
	a, b := newNode(t, 1, UDP(loopback4)), newNode(t, 2, UDP(netip.AddrPort{}))
	introduce(t, a, b, netip.AddrPortFrom(loopback4.Addr(), b.Port()))
	deliver(t, a, b, 0, 100)
	before, port := peerOf(t, a, b), b.bind.Port()
	for seq := range uint32(5) {
		if err := b.dev.BindUpdate(); err != nil {
			t.Fatal(err)
		}
		if b.bind.Port() != port {
			t.Fatalf("port %d, was %d", b.bind.Port(), port)
		}
		deliver(t, a, b, seq, 1420)
		deliver(t, b, a, seq, 1420)
	}
	if got := peerOf(t, a, b).LastHandshake; got != before.LastHandshake {
		t.Error("there was another handshake")
	}
}

func TestPortInUse(t *testing.T) {
	first := UDP(netip.AddrPort{})
	openBind(t, first)
	for _, addr := range []netip.AddrPort{
		netip.AddrPortFrom(netip.IPv6Unspecified(), first.Port()),
		netip.AddrPortFrom(loopback4.Addr(), first.Port()),
		netip.AddrPortFrom(loopback6.Addr(), first.Port()),
	} {
		second := UDP(addr)
		if _, _, err := second.Open(0); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v: error %v, want %v", addr, err, syscall.EADDRINUSE)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	}
	// IPv6's port alone is taken: a failed open leaves nothing behind.
	v6, err := net.ListenUDP("udp6", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer v6.Close()
	port := v6.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	third := UDP(netip.AddrPortFrom(netip.Addr{}, port))
	if _, _, err := third.Open(0); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v, want %v", err, syscall.EADDRINUSE)
	}
	fourth := UDP(netip.AddrPortFrom(loopback4.Addr(), port))
	openBind(t, fourth)
}

func TestWrongFamilyAndType(t *testing.T) {
	b := UDP(loopback4)
	openBind(t, b)
	if err := b.Send(datagrams(5), endpoint(t, b, netip.MustParseAddrPort("[::1]:5"))); !errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Errorf("error %v", err)
	}
	if err := b.Send(datagrams(5), &conn.StdNetEndpoint{}); err != conn.ErrWrongEndpointType {
		t.Errorf("error %v", err)
	}
	if _, err := b.ParseEndpoint("example.com:5"); err == nil {
		t.Error("a name is an endpoint")
	}
	if _, err := b.ParseEndpoint("[fe80::1%no-such-interface]:5"); err == nil {
		t.Error("a zone that is not there is accepted")
	}
	ep := endpoint(t, b, netip.MustParseAddrPort("[::ffff:127.0.0.1]:5"))
	if got := ep.(*Endpoint).AddrPort(); got != netip.MustParseAddrPort("127.0.0.1:5") {
		t.Errorf("endpoint %v is not unmapped", got)
	}
}

func TestEndpointCache(t *testing.T) {
	var c endpointCache
	lookup := func(i int) *Endpoint {
		ep, err := c.lookup(endpointKey{dst: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 5)})
		if err != nil {
			t.Fatal(err)
		}
		return ep
	}
	talking := lookup(0)
	// A flood of addresses, among them now and then a packet of a peer.
	for i := 1; i < 20*cacheHalf; i++ {
		lookup(i)
		if i%1000 == 0 && lookup(0) != talking {
			t.Fatal("the flood drove out the peer")
		}
		if n := len(c.young) + len(c.old); n > 2*cacheHalf {
			t.Fatalf("%d entries", n)
		}
	}
	// A cleared source comes back with the next packet, in another object:
	// the cleared one stays cleared for whom it was cleared.
	talking.ClearSrc()
	fresh := lookup(0)
	if fresh == talking || fresh.srcCleared.Load() {
		t.Error("the cleared endpoint was handed out")
	}
	if lookup(0) != fresh {
		t.Error("and again")
	}
	if n := testing.AllocsPerRun(100, func() { lookup(0); lookup(20*cacheHalf - 1) }); n != 0 {
		t.Errorf("%v allocations for known endpoints", n)
	}
}

// BenchmarkBind moves batches of batchSize datagrams of a full packet's size from
// one bind to another, with at most one batch on the way.
func BenchmarkBind(b *testing.B) {
	for _, opts := range []UDPOptions{{}, {NoGSO: true, NoGRO: true}} {
		b.Run(fmt.Sprintf("%+v", opts), func(b *testing.B) {
			from, to := UDPWith(loopback4, opts), UDPWith(loopback4, opts)
			openBind(b, from)
			fns, _, err := to.Open(0)
			if err != nil {
				b.Fatal(err)
			}
			defer to.Close()
			ep := endpoint(b, from, to.LocalAddr())
			sent := datagrams(repeat(1452, batchSize)...)
			bufs := make([][]byte, batchSize)
			for i := range bufs {
				bufs[i] = make([]byte, 65535)
			}
			sizes, eps := make([]int, batchSize), make([]conn.Endpoint, batchSize)
			b.SetBytes(1452 * batchSize)
			b.ReportAllocs()
			for b.Loop() {
				if err := from.Send(sent, ep); err != nil {
					b.Fatal(err)
				}
				for n := 0; n < batchSize; {
					k, err := fns[0](bufs, sizes, eps)
					if err != nil {
						b.Fatal(err)
					}
					n += k
				}
			}
		})
	}
}

// BenchmarkDevices moves packets through two devices.
func BenchmarkDevices(b *testing.B) {
	for _, opts := range []UDPOptions{{}, {NoGSO: true, NoGRO: true}} {
		b.Run(fmt.Sprintf("%+v", opts), func(b *testing.B) {
			x, y := pair(b, UDPWith(loopback4, opts), UDPWith(loopback4, opts))
			deliver(b, x, y, 0, 100)
			p := packet(x, y, 1, 1420)
			tokens := make(chan struct{}, 256)
			b.SetBytes(1420)
			b.ReportAllocs()
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range tokens {
					receive(b, y)
				}
			}()
			for b.Loop() {
				tokens <- struct{}{}
				x.tun.out <- p
			}
			close(tokens)
			<-done
		})
	}
}
