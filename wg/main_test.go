package wg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/wgexpose/wgexpose/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen soon; it is met only by a hang. It is
// longer than WireGuard's first retry, 5 s.
const patience = 30 * time.Second

var (
	loopback4 = netip.MustParseAddrPort("127.0.0.1:0")
	loopback6 = netip.MustParseAddrPort("[::1]:0")
)

// fakeTun is a tun.Device whose packets are a test's.
type fakeTun struct {
	out    chan []byte // from the test, to be read by the device
	in     chan []byte // written by the device
	events chan tun.Event
	once   sync.Once
	closed chan struct{}
	reads  atomic.Int32 // begun; with it, what was read before has been taken care of
}

const fakeMTU = 1420

func newFakeTun() *fakeTun {
	t := &fakeTun{
		out:    make(chan []byte, 256),
		in:     make(chan []byte, 256),
		events: make(chan tun.Event, 1),
		closed: make(chan struct{}),
	}
	t.events <- tun.EventUp // as real ones do; wireguard-go then calls Up by itself
	return t
}

func (t *fakeTun) File() *os.File           { return nil }
func (t *fakeTun) MTU() (int, error)        { return fakeMTU, nil }
func (t *fakeTun) Name() (string, error)    { return "fake", nil }
func (t *fakeTun) Events() <-chan tun.Event { return t.events }
func (t *fakeTun) BatchSize() int           { return conn.IdealBatchSize }

func (t *fakeTun) Close() error {
	t.once.Do(func() {
		close(t.closed)
		close(t.events)
	})
	return nil
}

func (t *fakeTun) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	t.reads.Add(1)
	n := 0
	take := func(p []byte) { sizes[n] = copy(bufs[n][offset:], p); n++ }
	select {
	case <-t.closed:
		return 0, os.ErrClosed
	case p := <-t.out:
		take(p)
	}
	for n < len(bufs) {
		select {
		case p := <-t.out:
			take(p)
		default:
			return n, nil
		}
	}
	return n, nil
}

func (t *fakeTun) Write(bufs [][]byte, offset int) (int, error) {
	for i, b := range bufs {
		select {
		case <-t.closed:
			return i, os.ErrClosed
		case t.in <- bytes.Clone(b[offset:]):
		}
	}
	return len(bufs), nil
}

// node is a device with all that a test needs to know of it.
type node struct {
	*Device
	key  keys.Private
	pub  keys.Public
	tun  *fakeTun
	bind *UDPBind
	addr netip.Addr // inner
}

// newNode opens a device with the inner address fd00::id, on a loopback
// address of its own unless a bind is given.
func newNode(t testing.TB, id byte, bind *UDPBind) *node {
	t.Helper()
	return openNode(t, id, bind, bind, newKey(t))
}

// openNode is newNode with a wrapped bind and a key.
func openNode(t testing.TB, id byte, bind *UDPBind, wrapped conn.Bind, key keys.Private) *node {
	t.Helper()
	return openNodeOn(t, newFakeTun(), id, bind, wrapped, key)
}

// openNodeOn is openNode with a TUN device.
func openNodeOn(t testing.TB, tun *fakeTun, id byte, bind *UDPBind, wrapped conn.Bind, key keys.Private) *node {
	t.Helper()
	return openNodeWith(t, Config{Key: key, Tun: tun, Bind: wrapped}, id, tun, bind)
}

// openNodeWith is openNode with a configuration, to which the logger is added.
func openNodeWith(t testing.TB, cfg Config, id byte, tun *fakeTun, bind *UDPBind) *node {
	t.Helper()
	n := &node{key: cfg.Key, pub: cfg.Key.Public(), tun: tun, bind: bind}
	n.addr = netip.AddrFrom16([16]byte{0: 0xfd, 15: id})
	cfg.Logger = testLogger(t)
	var err error
	n.Device, err = Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func newKey(t testing.TB) keys.Private {
	t.Helper()
	key, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// testLogger logs warnings to the test's output.
func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// pair returns two devices that know each other; a has b's endpoint.
func pair(t testing.TB, bindA, bindB *UDPBind) (a, b *node) {
	t.Helper()
	a, b = newNode(t, 1, bindA), newNode(t, 2, bindB)
	introduce(t, a, b, b.bind.LocalAddr())
	return a, b
}

// introduce makes a and b peers; a reaches b at endpoint.
func introduce(t testing.TB, a, b *node, endpoint netip.AddrPort) {
	t.Helper()
	setPeer(t, a, Peer{Key: b.pub, Endpoint: endpoint, AllowedIPs: host(b)})
	setPeer(t, b, Peer{Key: a.pub, AllowedIPs: host(a)})
}

func host(n *node) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(n.addr, 128)} }

func setPeer(t testing.TB, n *node, p Peer) {
	t.Helper()
	if err := n.SetPeer(p); err != nil {
		t.Fatal(err)
	}
}

func peerOf(t testing.TB, n, peer *node) PeerStatus {
	t.Helper()
	s, ok, err := n.Peer(peer.pub)
	if err != nil || !ok {
		t.Fatalf("peer: %v, %v", ok, err)
	}
	return s
}

// packet is an IPv6 packet of size bytes from one node to another; its content
// follows from seq.
func packet(from, to *node, seq uint32, size int) []byte {
	p := make([]byte, size)
	p[0] = 6 << 4
	binary.BigEndian.PutUint16(p[4:], uint16(size-40))
	p[6] = 59 // no next header
	src, dst := from.addr.As16(), to.addr.As16()
	copy(p[8:], src[:])
	copy(p[24:], dst[:])
	if size >= 44 {
		binary.BigEndian.PutUint32(p[40:], seq)
		for i := 44; i < size; i++ {
			p[i] = byte(seq) + byte(i)
		}
	}
	return p
}

// deliver sends a packet and asserts that it arrives.
func deliver(t testing.TB, from, to *node, seq uint32, size int) {
	t.Helper()
	want := packet(from, to, seq, size)
	from.tun.out <- want
	if got := receive(t, to); !bytes.Equal(got, want) {
		t.Fatalf("packet %d of %d bytes arrived otherwise", seq, size)
	}
}

func receive(t testing.TB, n *node) []byte {
	t.Helper()
	select {
	case p := <-n.tun.in:
		return p
	case <-time.After(patience):
		t.Fatal("no packet arrived")
		panic("unreachable")
	}
}

// eventually waits until ok, for state that nothing announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// exchange sends count packets of mixed sizes each way at once, with at most
// so many on the way that the smallest socket buffer holds them, and asserts
// that all arrive in order.
func exchange(t testing.TB, a, b *node, count int) {
	t.Helper()
	const window = 64
	sizes := []int{40, 1420, 1420, 1420, 1420, 1420, 1420, 100, 1280, 1280, 1280, 41, 60, 1420, 999}
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	for _, way := range [2][2]*node{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		tokens := make(chan struct{}, window)
		wg.Go(func() {
			for seq := range count {
				select {
				case tokens <- struct{}{}:
				case <-time.After(patience):
					return // the receiver has told why
				}
				from.tun.out <- packet(from, to, uint32(seq), sizes[seq%len(sizes)])
			}
		})
		wg.Go(func() {
			for seq := range count {
				select {
				case got := <-to.tun.in:
					if want := packet(from, to, uint32(seq), sizes[seq%len(sizes)]); !bytes.Equal(got, want) {
						errs <- fmt.Errorf("packet %d to %v arrived otherwise", seq, to.addr)
						return
					}
				case <-time.After(patience):
					errs <- fmt.Errorf("packet %d to %v did not arrive", seq, to.addr)
					return
				}
				<-tokens
			}
		})
	}
	wg.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	if err := errors.Join(all...); err != nil {
		t.Fatal(err)
	}
}
