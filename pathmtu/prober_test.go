package pathmtu

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	addrA = netip.MustParseAddr("fd00:1::1")
	addrB = netip.MustParseAddr("fd00:2::1")
)

// way is a path's other side, as the netstack is.
type way struct {
	mu    sync.Mutex // guards what follows
	size  int
	above int
	watch func()
	lost  func()
}

func (w *way) SetSize(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.size = n
}

func (w *way) Watch(n int, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.above, w.watch = n, f
}

func (w *way) OnTimeout(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = f
}

// timeout is a connection's.
func (w *way) timeout() {
	w.mu.Lock()
	f := w.lost
	w.mu.Unlock()
	if f != nil {
		f()
	}
}

// send is a data packet on its way.
func (w *way) send(size int) {
	w.mu.Lock()
	f := w.watch
	if f == nil || size <= w.above {
		f = nil
	} else {
		w.watch = nil
	}
	w.mu.Unlock()
	if f != nil {
		f()
	}
}

func (w *way) now() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}

// net joins two probers; packets take 20 ms.
type network struct {
	mu      sync.Mutex // guards what follows
	through int
	probes  int
	a, b    *Prober
}

func newNetwork(t *testing.T, through int) *network {
	n := &network{through: through}
	n.a = New(Config{Local: addrA, Default: 1420, Send: func(p []byte) error { return n.carry(p, func() *Prober { return n.b }) }})
	n.b = New(Config{Local: addrB, Default: 1420, Send: func(p []byte) error { return n.carry(p, func() *Prober { return n.a }) }})
	return n
}

func (n *network) carry(p []byte, to func() *Prober) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if isProbe(p) {
		n.probes++
	}
	if len(p) <= n.through {
		p = bytes.Clone(p)
		time.AfterFunc(20*time.Millisecond, func() { to().Receive(p) })
	}
	return nil
}

func (n *network) set(through int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.through = through
}

func (n *network) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.probes
}

// Each end finds out its own direction, follows the path while data is sent,
// and asks nothing while none is, or after the end.
func TestProbersFollowThePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 8940)
		wayA, wayB := new(way), new(way)
		a, b := n.a.Open(addrB, wayA, 0), n.b.Open(addrA, wayB, 0)
		time.Sleep(time.Minute)
		if wayA.now() != 8924 || wayB.now() != 8924 {
			t.Errorf("sizes %d and %d, want 8924", wayA.now(), wayB.now())
		}
		if size := a.Size(); size != 8924 {
			t.Errorf("size %d", size)
		}
		n.set(1300)
		asked := n.count()
		time.Sleep(time.Hour)
		if n.count() != asked {
			t.Errorf("%d probes on an idle path", n.count()-asked)
		}
		for range 2000 { // only a sends
			wayA.send(wayA.now())
			time.Sleep(time.Millisecond)
		}
		if wayA.now() != 1296 || wayB.now() != 8924 {
			t.Errorf("sizes %d and %d, want 1296 and 8924", wayA.now(), wayB.now())
		}
		n.b.Refused(addrA, 8000)
		time.Sleep(5 * time.Second)
		if wayB.now() != 1296 {
			t.Errorf("size %d after a refusal, want 1296", wayB.now())
		}
		n.set(1436)
		b.Restart(0)
		if wayB.now() != 0 {
			t.Errorf("size %d after a restart, want none", wayB.now())
		}
		time.Sleep(time.Minute)
		if wayB.now() != 1436 {
			t.Errorf("size %d after a restart, want 1436", wayB.now())
		}
		a.Close()
		b.Close()
		asked = n.count()
		wayA.send(9000)
		a.Restart(0)
		n.a.Refused(addrB, 1250)
		time.Sleep(time.Hour)
		if n.count() != asked {
			t.Error("a closed path is asked for")
		}
	})
}

// A timeout has packets small at once, and large again after a round trip if
// nothing is wrong with them.
func TestTimeoutsAreDoubts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 8940)
		w := new(way)
		path := n.a.Open(addrB, w, 0)
		w.timeout() // before anything is known
		time.Sleep(time.Minute)
		w.timeout()
		if w.now() != Base {
			t.Errorf("packets of %d bytes right after a timeout, want %d", w.now(), Base)
		}
		if size := path.Size(); size != 8924 {
			t.Errorf("the size is said to be %d, want 8924", size)
		}
		time.Sleep(41 * time.Millisecond)
		w.timeout() // it was confirmed just now
		if w.now() != 8924 {
			t.Errorf("packets of %d bytes after a round trip, want 8924", w.now())
		}
		n.set(1300)
		time.Sleep(time.Second)
		w.timeout()
		for range 10 {
			if w.now() > 1300 {
				t.Errorf("packets of %d bytes into a black hole", w.now())
			}
			time.Sleep(100 * time.Millisecond)
			w.timeout()
		}
		time.Sleep(10 * time.Second)
		if w.now() != 1296 {
			t.Errorf("packets of %d bytes in the end, want 1296", w.now())
		}
		path.Close()
		w.timeout()
	})
}

// After an outage of any length the size is what it was.
func TestOutage(t *testing.T) {
	for _, d := range []time.Duration{time.Second, 10 * time.Second, time.Minute, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, 8940)
			w := new(way)
			path := n.a.Open(addrB, w, 0)
			defer path.Close()
			time.Sleep(time.Minute)
			n.set(0)
			for end := time.Now().Add(d); time.Now().Before(end); {
				w.send(w.now())
				w.timeout()
				time.Sleep(time.Second)
			}
			n.set(8940)
			for range 100 {
				w.send(w.now())
				time.Sleep(10 * time.Millisecond)
			}
			if w.now() != 8924 {
				t.Errorf("packets of %d bytes after %v without a path, want 8924", w.now(), d)
			}
		})
	}
}

// A size that is known is not asked for, whatever happens, until the other end
// asks.
func TestKnownSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1436)
		wayA, wayB := new(way), new(way)
		a, b := n.a.Open(addrB, wayA, Stream), n.b.Open(addrA, wayB, Stream)
		defer a.Close()
		defer b.Close()
		for range 100 {
			wayA.send(wayA.now())
			wayA.timeout()
			n.a.Refused(addrB, 1300)
			n.a.Suspect(1300)
			time.Sleep(time.Second)
		}
		if n.count() != 0 || wayA.now() != Stream || wayB.now() != Stream || !a.Known() {
			t.Errorf("%d probes, sizes %d and %d, want none and %d", n.count(), wayA.now(), wayB.now(), Stream)
		}
		a.Restart(0)
		time.Sleep(10 * time.Second)
		if wayA.now() != 1436 || wayB.now() != 1436 || a.Known() || b.Known() {
			t.Errorf("sizes %d and %d, want 1436", wayA.now(), wayB.now())
		}
	})
}

// An end that has no path of its own to the other one answers all the same.
func TestAnswersWithoutAPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1436)
		w := new(way)
		defer n.a.Open(addrB, w, 0).Close()
		time.Sleep(time.Minute)
		if w.now() != 1436 {
			t.Errorf("size %d, want 1436", w.now())
		}
	})
}

// When the system has refused something to somebody, the paths in use that it may
// have been are asked at once.
func TestSuspicion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1436)
		w := new(way)
		defer n.a.Open(addrB, w, 0).Close()
		time.Sleep(time.Minute)
		asked := n.count()
		n.a.Suspect(1400) // idle
		if n.count() != asked {
			t.Error("an idle path is asked")
		}
		w.send(1436)
		time.Sleep(100 * time.Millisecond)
		asked = n.count()
		n.a.Suspect(1437)
		if n.count() != asked {
			t.Error("a path is asked that sends nothing so large")
		}
		n.a.Suspect(1436)
		if n.count() != asked+1 {
			t.Errorf("%d probes, want one", n.count()-asked)
		}
	})
}

func TestPackets(t *testing.T) {
	for _, m := range []message{
		{from: addrA, to: addrB, token: 1, size: answerSize},
		{from: addrA, to: addrB, token: 1 << 63, size: 1420},
		{from: addrA, to: addrB, token: 7, size: Max},
		{from: addrB, to: addrA, answer: true, token: 7, size: Max},
	} {
		b := m.bytes()
		if got, err := parse(b); err != nil || got != m {
			t.Errorf("%+v becomes %+v, %v", m, got, err)
		}
		if !m.answer && len(b) != m.size || m.answer && len(b) != answerSize {
			t.Errorf("%+v has %d bytes", m, len(b))
		}
		if to, ok := new(Prober).Probe(b); ok == m.answer || ok && to != m.to {
			t.Errorf("%+v: a probe to %v, %v", m, to, ok)
		}
		for i := range min(len(b), 100) {
			bad := slices.Clone(b)
			bad[i] ^= 1
			// The traffic class, the flow label and the hop limit are nobody's
			// concern.
			if got, err := parse(bad); err == nil && i != 0 && i != 1 && i != 2 && i != 3 && i != 7 {
				t.Errorf("bit of byte %d changed: %+v", i, got)
			}
		}
	}
	for _, b := range [][]byte{nil, make([]byte, answerSize-1), make([]byte, answerSize), make([]byte, 1<<16)} {
		if _, err := parse(b); err == nil {
			t.Errorf("%d zeros are a probe", len(b))
		}
		if _, ok := new(Prober).Probe(b); ok {
			t.Errorf("%d zeros are a probe", len(b))
		}
	}
}

// The checksum is the one of RFC 4443, as computed by hand for a small packet.
func TestChecksum(t *testing.T) {
	b := message{from: netip.IPv6Loopback(), to: netip.IPv6Loopback(), token: 0x0102030405060708, size: answerSize}.bytes()
	// 1 + 1 of the addresses, 16 of the length, 58 of the protocol, the type
	// and the token.
	sum := 1 + 1 + 16 + 58 + 200<<8 + 0x0102 + 0x0304 + 0x0506 + 0x0708
	if got := binary.BigEndian.Uint16(b[ipv6Header+2:]); int(got) != 0xffff-sum {
		t.Errorf("checksum %04x, want %04x", got, 0xffff-sum)
	}
}

// What is not for this node, or not to be understood, has no effect.
func TestReceiveIgnoresTheRest(t *testing.T) {
	sent := 0
	p := New(Config{Local: addrA, Default: 1420, Send: func([]byte) error { sent++; return nil }})
	p.Receive(nil)
	p.Receive(message{from: addrB, to: addrB, token: 1, size: 1300}.bytes())
	p.Receive(message{from: addrB, to: addrA, answer: true, token: 1, size: 1300}.bytes())
	if sent != 0 {
		t.Errorf("%d packets were sent", sent)
	}
	p.Receive(message{from: addrB, to: addrA, token: 1, size: 1300}.bytes())
	if sent != 1 {
		t.Errorf("%d answers to a probe", sent)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(message{from: addrB, to: addrA, token: 1, size: 100}.bytes())
	f.Add(message{from: addrB, to: addrA, answer: true, token: 1, size: 1300}.bytes())
	f.Add([]byte{0x60})
	p := New(Config{Local: addrA, Default: 1420, Send: func(b []byte) error {
		if len(b) != answerSize {
			f.Errorf("an answer of %d bytes", len(b))
		}
		return nil
	}})
	f.Fuzz(func(t *testing.T, b []byte) {
		p.Probe(b)
		p.Receive(b)
	})
}
