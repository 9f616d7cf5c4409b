package wg

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// pathsNode is a node on a bind of several ways.
func pathsNode(t testing.TB, id byte, streams *Streams, udp ...*UDPBind) (*node, *Paths) {
	t.Helper()
	paths := Join(streams, udp...)
	return openNode(t, id, udp[0], paths, newKey(t)), paths
}

// The first message goes to all that it is aimed at, and the one that works
// becomes the way: the first is a hole, the second is a peer, the third is of a
// family without a socket.
func TestAimFindsTheWay(t *testing.T) {
	a, paths := pathsNode(t, 1, nil, UDP(loopback4))
	b := newNode(t, 2, UDP(loopback4))
	hole := listenUDP(t)
	defer hole.Close()
	introduce(t, a, b, addrOf(hole))
	var targets []conn.Endpoint
	for _, addr := range []netip.AddrPort{addrOf(hole), b.bind.LocalAddr(), netip.MustParseAddrPort("[2001:db8::1]:1")} {
		ep, err := paths.At(addr)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, ep)
	}
	paths.Aim(targets...)
	deliver(t, a, b, 1, 100)
	if got := peerOf(t, a, b).Endpoint; got != b.bind.LocalAddr() {
		t.Errorf("endpoint %v, want %v", got, b.bind.LocalAddr())
	}
	if err := hole.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	if n, err := hole.Read(buf); err != nil || !isInitiation(buf[:n]) {
		t.Errorf("the hole got %d bytes, %v", n, err)
	}
}

// Both sides are told of a handshake, and not of the packets after it.
func TestShaking(t *testing.T) {
	a, pathsA := pathsNode(t, 1, nil, UDP(loopback4))
	b, pathsB := pathsNode(t, 2, nil, UDP(loopback4))
	introduce(t, a, b, b.bind.LocalAddr())
	introduce(t, b, a, netip.AddrPort{})
	deliver(t, a, b, 1, 100)
	deliver(t, b, a, 2, 100)
	for name, paths := range map[string]*Paths{"caller": pathsA, "called": pathsB} {
		select {
		case <-paths.Shaking():
		default:
			t.Errorf("the %s is not told of the handshake", name)
		}
	}
	deliver(t, a, b, 3, 100)
	deliver(t, b, a, 4, 100)
	for name, paths := range map[string]*Paths{"caller": pathsA, "called": pathsB} {
		select {
		case <-paths.Shaking():
			t.Errorf("the %s is told of a handshake that was none", name)
		default:
		}
	}
}

// A device with several UDP addresses answers from the one that was called, and
// begins on all when it knows a peer's address from its configuration alone.
func TestSeveralAddresses(t *testing.T) {
	second := UDP(netip.MustParseAddrPort("127.0.0.2:0"))
	b, _ := pathsNode(t, 2, nil, UDP(loopback4), second)
	a := newNode(t, 1, UDP(loopback4))
	introduce(t, a, b, second.LocalAddr())
	exchange(t, a, b, 50)
	if got := peerOf(t, a, b).Endpoint; got != second.LocalAddr() {
		t.Errorf("answers come from %v, not from %v, which was called", got, second.LocalAddr())
	}

	hear := listenUDP(t)
	defer hear.Close()
	c := newNode(t, 3, UDP(loopback4))
	setPeer(t, b, Peer{Key: c.pub, Endpoint: addrOf(hear), AllowedIPs: host(c)})
	if err := b.Handshake(c.pub); err != nil {
		t.Fatal(err)
	}
	if err := hear.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var from []netip.AddrPort
	for buf := make([]byte, 2048); len(from) < 2; {
		_, addr, err := hear.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("heard from %v: %v", from, err)
		}
		if !slices.Contains(from, addr) {
			from = append(from, addr)
		}
	}
}

// New sockets keep the session, and the peer follows to the new port.
func TestRebind(t *testing.T) {
	a, b := pair(t, UDP(loopback4), UDP(loopback4))
	exchange(t, a, b, 50)
	before := peerOf(t, b, a)
	for seq := range uint32(3) {
		was := a.bind.LocalAddr()
		if err := a.Rebind(); err != nil {
			t.Fatal(err)
		}
		deliver(t, a, b, seq, 100)
		deliver(t, b, a, seq, 100)
		got := peerOf(t, b, a)
		if got.Endpoint == was || got.Endpoint != a.bind.LocalAddr() {
			t.Errorf("the peer is at %v for b; it was at %v and is at %v", got.Endpoint, was, a.bind.LocalAddr())
		}
		if got.LastHandshake != before.LastHandshake {
			t.Error("there was another handshake")
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Rebind(); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// Strangers get nothing out of a stream, and soon not even the connection.
func TestStreamsAndStrangers(t *testing.T) {
	initiation := message(device.MessageInitiationType, device.MessageInitiationSize)
	for name, c := range map[string]struct {
		send []byte
		want error
	}{
		"silence":              {nil, ErrNoHandshake},
		"HTTP":                 {[]byte("GET / HTTP/1.1\r\n" + string(make([]byte, 20000))), ErrNotWireGuard},
		"no packet":            {frame(make([]byte, 100)), ErrNotWireGuard},
		"short":                {frame([]byte{1, 0, 0}), ErrNotWireGuard},
		"empty":                {frame(nil), ErrNotWireGuard},
		"wrong length":         {frame(initiation[:147]), ErrNotWireGuard},
		"data first":           {frame(message(device.MessageTransportType, 100)), ErrNoHandshake},
		"a stranger's message": {slices.Concat(frame(initiation), frame(initiation)), ErrNoHandshake},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streams := newTestStreams(t)
			pathsNode(t, 2, streams, UDP(loopback4))
			here, there := net.Pipe()
			defer here.Close()
			st, err := streams.Attach(there, loopback4, StreamOptions{Probation: 300 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			over := make(chan error, 1)
			go func() { over <- st.Run(context.Background()) }()
			got := make(chan []byte, 1)
			go func() {
				p, _ := io.ReadAll(here)
				got <- p
			}()
			here.Write(c.send) // may be cut off
			if err := ended(t, over); !errors.Is(err, c.want) {
				t.Errorf("it ended with %v, want %v", err, c.want)
			}
			if p := <-got; len(p) > 0 {
				t.Errorf("it was answered with %d bytes", len(p))
			}
		})
	}
}

// A pinned endpoint stays the peer's, whichever way the peer's packets come.
func TestPin(t *testing.T) {
	streamsA, streamsB := newTestStreams(t), newTestStreams(t)
	a, pathsA := pathsNode(t, 1, streamsA, UDP(loopback4))
	b, pathsB := pathsNode(t, 2, streamsB, UDP(loopback4))
	introduce(t, a, b, b.bind.LocalAddr())
	exchange(t, a, b, 50)
	udp, err := pathsA.At(b.bind.LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	pathsA.Pin(udp)
	// b sends over a stream from now on, whatever it hears.
	_, st, _, _ := joined(t, streamsA, streamsB, StreamOptions{}, StreamOptions{})
	pathsB.Pin(st.Endpoint())
	deliver(t, a, b, 1, 100)
	for seq := range uint32(10) {
		deliver(t, b, a, seq, 1000)
		deliver(t, a, b, seq, 1000)
	}
	if !peerOf(t, b, a).Stream {
		t.Error("b does not use the stream")
	}
	if got := peerOf(t, a, b); got.Stream || got.Endpoint != b.bind.LocalAddr() {
		t.Errorf("a has followed to %+v", got)
	}
}

// An agent that we know passes the probation.
func TestProbationEndsWithTheHandshake(t *testing.T) {
	streamsA, streamsB := newTestStreams(t), newTestStreams(t)
	a, paths := pathsNode(t, 1, streamsA, UDP(loopback4))
	b, _ := pathsNode(t, 2, streamsB, UDP(loopback4))
	introduce(t, a, b, netip.MustParseAddrPort("127.0.0.1:9"))
	probation := time.Second
	passed := make(chan struct{})
	st, _, over, _ := joined(t, streamsA, streamsB, StreamOptions{}, StreamOptions{Probation: probation, Answered: func() { close(passed) }})
	paths.Aim(st.Endpoint())
	deliver(t, a, b, 1, 100)
	<-passed
	select {
	case err := <-over:
		t.Fatalf("it ended: %v", err)
	case <-time.After(2 * probation):
	}
	exchange(t, a, b, 50)
}
