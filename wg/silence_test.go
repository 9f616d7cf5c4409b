package wg

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// tap is a bind that keeps what it sends, and what comes in.
type tap struct {
	*UDPBind
	mu       sync.Mutex // guards what follows
	sent     [][]byte
	received [][]byte
}

func (b *tap) Send(bufs [][]byte, ep conn.Endpoint) error {
	err := b.UDPBind.Send(bufs, ep)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range bufs {
		b.sent = append(b.sent, bytes.Clone(p))
	}
	return err
}

func (b *tap) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, port, err := b.UDPBind.Open(port)
	for i, fn := range fns {
		fns[i] = func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			n, err := fn(bufs, sizes, eps)
			b.mu.Lock()
			defer b.mu.Unlock()
			for i := range n {
				b.received = append(b.received, bytes.Clone(bufs[i][:sizes[i]]))
			}
			return n, err
		}
	}
	return fns, port, err
}

// firstSent returns the first message of a type that the bind has sent.
func (b *tap) firstSent(t *testing.T, kind uint32) []byte {
	t.Helper()
	var found []byte
	eventually(t, "the message is sent", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, p := range b.sent {
			if binary.LittleEndian.Uint32(p) == kind {
				found = p
				return true
			}
		}
		return false
	})
	return found
}

// Packets of anybody but a peer get no answer, whatever they look like, also
// from one that knows the edge's public key, and so can make what looks like the
// first message of a handshake.
func TestStrangersHearNothing(t *testing.T) {
	edge := newNode(t, 1, UDP(loopback4))
	target := edge.bind.LocalAddr()

	// A peer that has spoken, so that there are packets to repeat.
	known := &tap{UDPBind: UDP(loopback4)}
	a := openNode(t, 2, known.UDPBind, known, newKey(t))
	introduce(t, a, edge, target)
	deliver(t, a, edge, 0, 100)

	var strangers []*tap
	for id := range byte(5) {
		s := &tap{UDPBind: UDP(loopback4)}
		n := openNode(t, 10+id, s.UDPBind, s, newKey(t))
		setPeer(t, n, Peer{Key: edge.pub, Endpoint: target})
		if err := n.Handshake(edge.pub); err != nil {
			t.Fatal(err)
		}
		s.firstSent(t, device.MessageInitiationType)
		strangers = append(strangers, s)
	}

	attacker := listenUDP(t)
	defer attacker.Close()
	throw(t, attacker, target, known.firstSent(t, device.MessageInitiationType))
	throw(t, attacker, target, known.firstSent(t, device.MessageTransportType))
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{0, 1, 3, 4, 31, 32, 33, 64, 92, 148, 149, 1452, 9000, 65507} {
		p := make([]byte, size)
		random.Read(p)
		throw(t, attacker, target, p)
		for kind := range uint32(6) {
			if size >= 4 {
				binary.LittleEndian.PutUint32(p, kind)
				throw(t, attacker, target, p)
			}
		}
	}

	assertAllDealtWith(t, edge)
	assertNothingCame(t, attacker)
	for i, s := range strangers {
		s.mu.Lock()
		if len(s.received) > 0 {
			t.Errorf("stranger %d was sent %x", i, s.received)
		}
		s.mu.Unlock()
	}
	// The peer whose packets were repeated has not been moved.
	if got := peerOf(t, edge, a).Endpoint; got != a.bind.LocalAddr() {
		t.Errorf("endpoint %v, want %v", got, a.bind.LocalAddr())
	}
	deliver(t, edge, a, 9, 100)
}

// A flood does not make the edge talk either. (One by somebody who has its
// public key would: WireGuard's cookies, each smaller than what it answers.)
func TestFloodIsNotAnswered(t *testing.T) {
	edge := newNode(t, 1, UDP(loopback4))
	attacker := listenUDP(t)
	defer attacker.Close()
	random := rand.NewChaCha8([32]byte{2})
	sizes := map[uint32]int{
		device.MessageInitiationType:  device.MessageInitiationSize,
		device.MessageResponseType:    device.MessageResponseSize,
		device.MessageCookieReplyType: device.MessageCookieReplySize,
		device.MessageTransportType:   1452,
	}
	p := make([]byte, 1452)
	for range 20_000 {
		for kind, size := range sizes {
			random.Read(p[:size])
			binary.LittleEndian.PutUint32(p, kind)
			throw(t, attacker, edge.bind.LocalAddr(), p[:size])
		}
	}
	assertAllDealtWith(t, edge)
	assertNothingCame(t, attacker)
}

func throw(t *testing.T, from *net.UDPConn, to netip.AddrPort, p []byte) {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort(p, to); err != nil {
		t.Fatal(err)
	}
}

// assertAllDealtWith returns when edge has dealt with all that was sent to it
// before: it takes the messages of handshakes in order, so two peers that begin
// now and get through are behind everything else.
func assertAllDealtWith(t *testing.T, edge *node) {
	t.Helper()
	for id := range byte(2) {
		n := newNode(t, 100+id, UDP(loopback4))
		introduce(t, n, edge, edge.bind.LocalAddr())
		deliver(t, n, edge, 0, 100)
		deliver(t, edge, n, 0, 100)
	}
}

// assertNothingCame sends a packet to c itself and asserts that it is the first
// that c receives.
func assertNothingCame(t *testing.T, c *net.UDPConn) {
	t.Helper()
	own := []byte("own")
	self := addrOf(c)
	if _, err := c.WriteToUDPAddrPort(own, self); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65535)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	if from != self || !bytes.Equal(buf[:n], own) {
		t.Errorf("%v answered %x", from, buf[:n])
	}
}

// A peer's packets from an inner address that is not its own are dropped.
func TestPeerCannotUseAnothersAddress(t *testing.T) {
	edge := newNode(t, 1, UDP(loopback4))
	a, b := newNode(t, 2, UDP(loopback4)), newNode(t, 3, UDP(loopback4))
	for _, n := range []*node{a, b} {
		introduce(t, n, edge, edge.bind.LocalAddr())
		setPeer(t, n, Peer{Key: edge.pub, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("::/0")}})
		deliver(t, n, edge, 0, 100)
	}
	a.tun.out <- packet(b, edge, 1, 100) // a pretends to be b
	for seq := range uint32(5) {
		deliver(t, a, edge, 10+seq, 100) // in a's order, so the forged one was first
	}
}
