package wg

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

func newTestStreams(t testing.TB) *Streams {
	s := NewStreams()
	t.Cleanup(func() { s.Close() })
	return s
}

// joined makes a stream between two sets over TCP, and returns its ends, and
// what Run of each returned once it has.
func joined(t testing.TB, a, b *Streams, oa, ob StreamOptions) (endA, endB *Stream, overA, overB <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ca, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cb, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	endA, overA = running(t, a, ca, oa)
	endB, overB = running(t, b, cb, ob)
	return endA, endB, overA, overB
}

func running(t testing.TB, s *Streams, c net.Conn, o StreamOptions) (*Stream, <-chan error) {
	t.Helper()
	st, err := s.Attach(c, c.RemoteAddr().(*net.TCPAddr).AddrPort(), o)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- st.Run(context.Background()) }()
	t.Cleanup(func() { st.Close() })
	return st, over
}

func ended(t testing.TB, over <-chan error) error {
	t.Helper()
	select {
	case err := <-over:
		return err
	case <-time.After(patience):
		t.Fatal("the stream does not end")
		return nil
	}
}

// A session moves from UDP to a stream and back, and nothing but the endpoint
// changes for either side.
func TestStreamCarriesASession(t *testing.T) {
	streamsA, streamsB := newTestStreams(t), newTestStreams(t)
	a, pathsA := pathsNode(t, 1, streamsA, UDP(loopback4))
	b, _ := pathsNode(t, 2, streamsB, UDP(loopback4))
	introduce(t, a, b, b.bind.LocalAddr())
	exchange(t, a, b, 100)
	if s := peerOf(t, a, b); s.Stream || s.Endpoint != b.bind.LocalAddr() {
		t.Fatalf("%+v is no UDP endpoint", s)
	}

	st, _, _, _ := joined(t, streamsA, streamsB, StreamOptions{}, StreamOptions{Probation: time.Hour})
	pathsA.Aim(st.Endpoint())
	if err := a.Restart(b.pub); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream is the way to b", func() bool { return peerOf(t, a, b).Stream })
	pathsA.Aim()
	exchange(t, a, b, 1000)
	for _, s := range []PeerStatus{peerOf(t, a, b), peerOf(t, b, a)} {
		if !s.Stream {
			t.Errorf("%+v: not over the stream", s)
		}
	}
	if got := peerOf(t, a, b).Endpoint; got != st.Endpoint().AddrPort() {
		t.Errorf("endpoint %v, want %v", got, st.Endpoint().AddrPort())
	}

	back, err := pathsA.At(b.bind.LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	pathsA.Aim(back)
	if err := a.Restart(b.pub); err != nil {
		t.Fatal(err)
	}
	eventually(t, "UDP is the way to b", func() bool { return !peerOf(t, a, b).Stream })
	exchange(t, a, b, 100)
	if peerOf(t, b, a).Stream {
		t.Error("b still uses the stream")
	}
}

// frame is a packet as a stream carries it.
func frame(p []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...)
}

func message(kind byte, size int) []byte {
	p := make([]byte, size)
	rand.Read(p)
	copy(p, []byte{kind, 0, 0, 0})
	return p
}

// A peer that reads nothing costs a bounded queue, and holds up nobody.
func TestStuckStreamDropsPackets(t *testing.T) {
	streams := newTestStreams(t)
	here, there := net.Pipe() // nobody reads here
	defer here.Close()
	st, over := runningPipe(t, streams, there)
	packets := [][]byte{message(device.MessageTransportType, 1400)}
	for range 2 * outboxBurst / 1400 {
		if err := st.Endpoint().send(packets); err != nil {
			t.Fatal(err)
		}
	}
	if st.Dropped() == 0 || st.Dropped() != streams.Dropped() {
		t.Errorf("%d packets were dropped, %d of all streams", st.Dropped(), streams.Dropped())
	}
	st.out.mu.Lock()
	if st.out.bytes > outboxBurst || len(st.out.full) > outboxBurst/blockSize+2 {
		t.Errorf("%d bytes wait in %d blocks", st.out.bytes, len(st.out.full))
	}
	st.out.mu.Unlock()
	st.Close()
	ended(t, over)
	if err := st.Endpoint().send(packets); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func runningPipe(t testing.TB, s *Streams, c net.Conn) (*Stream, <-chan error) {
	t.Helper()
	st, err := s.Attach(c, loopback4, StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- st.Run(context.Background()) }()
	return st, over
}

// However the bytes are cut, the same packets come out.
func FuzzStream(f *testing.F) {
	f.Add([]byte{}, uint8(1))
	f.Add(frame(message(device.MessageInitiationType, device.MessageInitiationSize)), uint8(7))
	f.Add(slices.Concat(frame(message(4, 32)), frame(message(4, 1500)), frame(message(2, 92))), uint8(255))
	f.Add([]byte{0, 4, 4, 0, 0, 0}, uint8(1))
	f.Add(slices.Concat(frame(message(4, 0xffff)), frame(message(4, 40_000)), frame(message(4, 32)), frame(message(4, 0xffff))), uint8(250))
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		var want [][]byte
		sound := true
		for rest := data; ; {
			p, next, _ := nextFrame(rest)
			if p == nil {
				break
			}
			if !isPacket(p) {
				sound = false
				break
			}
			want = append(want, p)
			rest = next
		}
		s := NewStreams()
		defer s.Close()
		receive := s.open()
		st, err := s.Attach(&cutConn{data: data, step: int(step)*37 + 1}, loopback4, StreamOptions{})
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan error, 1)
		go func() {
			err := st.Run(context.Background())
			for len(s.in) > 0 { // what it left is received first
				runtime.Gosched()
			}
			s.shut()
			over <- err
		}()
		var got [][]byte
		bufs, sizes, eps := [][]byte{make([]byte, 65535), make([]byte, 65535)}, make([]int, 2), make([]conn.Endpoint, 2)
		for {
			if len(got) == len(want) {
				break
			}
			n, err := receive(bufs, sizes, eps)
			if err != nil {
				break // a frame that is no packet ends the stream, and drops what came with it
			}
			for i := range n {
				got = append(got, bytes.Clone(bufs[i][:sizes[i]]))
			}
		}
		if err := <-over; !sound && !errors.Is(err, ErrNotWireGuard) {
			t.Errorf("ended with %v", err)
		}
		if sound && len(got) != len(want) {
			t.Fatalf("%d packets, want %d", len(got), len(want))
		}
		for i, p := range got {
			if !bytes.Equal(p, want[i]) {
				t.Fatalf("packet %d of %d bytes is another than that of %d bytes", i, len(p), len(want[i]))
			}
		}
	})
}

// cutConn gives data in pieces of step bytes.
type cutConn struct {
	net.Conn
	data []byte
	step int
}

func (c *cutConn) Read(p []byte) (int, error) {
	n := copy(p, c.data[:min(len(c.data), c.step)])
	if c.data = c.data[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *cutConn) Close() error { return nil }
