package wg

import (
	"bytes"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wgexpose/wgexpose/internal/logbuf"
)

// probes tells packets of one protocol from others, and notes what it is told.
type probes struct {
	refused   chan refusal
	mu        sync.Mutex // guards suspected
	suspected []int
}

type refusal struct {
	to   netip.Addr
	size int
}

// probeProtocol is where a test's probes say what they are.
const probeProtocol = 253

func (p *probes) Probe(packet []byte) (netip.Addr, bool) {
	return netip.AddrFrom16([16]byte(packet[24:40])), packet[6] == probeProtocol
}

func (p *probes) Refused(to netip.Addr, size int) { p.refused <- refusal{to, size} }

func (p *probes) Suspect(size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspected = append(p.suspected, size)
}

func (p *probes) smallest() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, size := range p.suspected {
		if n == 0 || size < n {
			n = size
		}
	}
	return n
}

// Over a link with a small MTU, a probe that is too large does not leave, and it
// is told which; a smaller one arrives, and so does everything that is no probe,
// before, between and behind.
func TestProbesAreNotFragmented(t *testing.T) {
	for _, addr := range []netip.AddrPort{loopback4, loopback6} {
		told := &probes{refused: make(chan refusal, 16)}
		var a, b *node
		inSmallNetwork(t, 1300, func() {
			open := func(id byte, p Probes) *node {
				tun := newFakeTun()
				<-tun.events // see TestDevicesOverASmallMTU
				bind := UDP(addr)
				return openNodeWith(t, Config{Key: newKey(t), Tun: tun, Bind: Join(nil, bind), Probes: p}, id, tun, bind)
			}
			a, b = open(1, told), open(2, nil)
		})
		introduce(t, a, b, b.bind.LocalAddr())
		deliver(t, a, b, 0, 1420)
		probe := func(seq uint32, size int) []byte {
			p := packet(a, b, seq, size)
			p[6] = probeProtocol
			return p
		}
		for round := range uint32(3) {
			var want [][]byte
			for i, size := range []int{1420, -1420, 1420, -1200, 1420, 100, -9000, -1216} {
				seq := 1 + round*100 + uint32(i)
				p := packet(a, b, seq, max(size, -size))
				if size < 0 {
					p = probe(seq, -size)
				}
				if size > -1300 {
					want = append(want, p)
				}
				a.tun.out <- p
			}
			for i, p := range want {
				if got := receive(t, b); !bytes.Equal(got, p) {
					t.Fatalf("%v: packet %d arrived otherwise: %d bytes, want %d", addr, i, len(got), len(p))
				}
			}
			for _, size := range []int{1420, 9000} {
				if got, want := <-told.refused, (refusal{b.addr, size}); got != want {
					t.Errorf("%v: refused %v, want %v", addr, got, want)
				}
			}
		}
		// A run of large packets goes as one message, which the kernel refuses; then
		// one by one.
		for try := uint32(0); told.smallest() == 0; try++ {
			var run [][]byte
			for i := range uint32(20) {
				run = append(run, packet(a, b, 1000+100*try+i, 1420))
			}
			for _, p := range run {
				a.tun.out <- p
			}
			for range run {
				receive(t, b)
			}
			if !a.bind.open.Load().any().gso.Load() {
				t.Skip("this kernel has no UDP_SEGMENT")
			}
		}
		if n := told.smallest(); n < 1420-15 || n > 1420 {
			t.Errorf("%v: packets of %d bytes are suspected, want some 1420", addr, n)
		}
	}
}

// A probe that WireGuard drops is forgotten when its buffer is used again.
func TestLostProbesAreForgotten(t *testing.T) {
	w := &whole{probes: &probes{}}
	buf := make([]byte, 2000)
	packet := buf[16:1416]
	packet[6] = probeProtocol
	w.read(buf, packet)
	if w.count.Load() != 1 {
		t.Fatal("a probe is not noted")
	}
	if _, ok := w.take(buf[:100]); ok {
		t.Error("a smaller datagram in the buffer is taken for the probe")
	}
	w.read(buf, packet)
	packet[6] = 6
	w.read(buf, packet)
	if _, ok := w.take(buf); ok || w.count.Load() != 0 {
		t.Error("another packet in the buffer is taken for the probe")
	}
	all := make([][]byte, maxWhole+1)
	for i := range all {
		all[i] = make([]byte, 100)
		all[i][16+6] = probeProtocol
		w.read(all[i], all[i][16:])
	}
	if n := w.count.Load(); n > maxWhole {
		t.Errorf("%d probes are noted", n)
	}
}

// Without the right to go beyond the system's limit, the log tells once how to
// raise it.
func TestHintAboutSmallBuffers(t *testing.T) {
	var logged logbuf.Buffer
	first := UDPWith(loopback4, UDPOptions{Logger: textLogger(&logged)})
	b := Join(nil, first, UDPWith(loopback6, UDPOptions{Logger: textLogger(&logged)}))
	done := make(chan error, 1)
	size := 0
	go func() {
		// Never unlocked: the thread, which has lost the right, ends with this
		// goroutine.
		runtime.LockOSThread()
		done <- func() error {
			if err := dropNetAdmin(); err != nil {
				return err
			}
			for range 2 {
				if _, _, err := b.Open(0); err != nil {
					return err
				}
				size = first.open.Load().any().smallestBuffer()
				if err := b.Close(); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the socket does not open")
	}
	if size >= wantBuffer {
		t.Skip("this system's limit is high enough (net.core.rmem_max, net.core.wmem_max)")
	}
	const advice = "sysctl -w net.core.rmem_max=7340032 net.core.wmem_max=7340032"
	if n := strings.Count(logged.String(), advice); n != 1 {
		t.Errorf("buffers of %d bytes, and %d hints:\n%s", size, n, logged.String())
	}
}

// dropNetAdmin takes CAP_NET_ADMIN from this thread.
func dropNetAdmin() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	return unix.Capset(&header, &data[0])
}
