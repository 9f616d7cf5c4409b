package wg

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// Only data packets that wireguard-go has kept are on their way.
func TestInboundCountsKeptPackets(t *testing.T) {
	in := newInbound()
	packets := []struct {
		kind uint32
		size int
	}{
		{device.MessageTransportType, 1452},
		{device.MessageTransportType, 1452},
		{device.MessageTransportType, device.MessageKeepaliveSize},
		{device.MessageInitiationType, device.MessageInitiationSize},
		{device.MessageTransportType, 96},
	}
	receive := in.receiver(func(bufs [][]byte, sizes []int, _ []conn.Endpoint) (int, error) {
		for i, p := range packets {
			binary.LittleEndian.PutUint32(bufs[i], p.kind)
			sizes[i] = p.size
		}
		return len(packets), nil
	})
	bufs := datagrams(repeat(2000, 8)...)
	sizes, eps := make([]int, 8), make([]conn.Endpoint, 8)
	call := func() {
		t.Helper()
		if n, err := receive(bufs, sizes, eps); n != len(packets) || err != nil {
			t.Fatal(n, err)
		}
	}
	call()
	if got := in.count.Load(); got != 0 {
		t.Errorf("%d on their way before anything was kept", got)
	}
	call() // none was kept
	if got := in.count.Load(); got != 0 {
		t.Errorf("%d on their way, but all were dropped", got)
	}
	for _, i := range []int{0, 2, 3, 4} { // the second was a stranger's
		bufs[i] = make([]byte, 2000)
	}
	call()
	if got := in.count.Load(); got != 2 {
		t.Errorf("%d on their way, want 2", got)
	}
	in.delivered(1)
	in.delivered(5)
	if got := in.count.Load(); got != 0 {
		t.Errorf("%d on their way, want none", got)
	}
}

func TestInboundWaits(t *testing.T) {
	in := newInbound()
	in.count.Store(maxInbound + 10)
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		in.wait()
	}()
	in.delivered(5)
	in.delivered(6)
	<-waited
	if got := in.count.Load(); got >= maxInbound {
		t.Errorf("went on with %d on their way", got)
	}

	// What is never delivered is not waited for for ever.
	in.count.Store(maxInbound)
	in.wait()
	if got := in.count.Load(); got != 0 {
		t.Errorf("%d on their way after the patience", got)
	}
}

// After a quiet moment nothing is on its way, whatever was exchanged before.
func TestInboundIsBalanced(t *testing.T) {
	a, b := pair(t, UDP(loopback4), UDP(loopback4))
	deliver(t, a, b, 0, 100)
	exchange(t, a, b, 3000)
	// Packets that are dropped behind the bind; the next ones make up for
	// them at the latest when there is no room.
	for seq := range uint32(10) {
		a.tun.out <- packet(b, b, seq, 100)
	}
	for seq := range uint32(10) {
		deliver(t, a, b, seq, 100)
	}
	for _, n := range []*node{a, b} {
		if got := n.dev.Bind().(inboundBind).in.count.Load(); got > 128 {
			t.Errorf("%d packets are believed to be on their way", got)
		}
	}
}

func TestInboundTunReportsErrorsToo(t *testing.T) {
	in := newInbound()
	in.count.Store(3)
	tun := newFakeTun()
	if err := tun.Close(); err != nil {
		t.Fatal(err)
	}
	tun.in = nil // so that a write can only fail
	if _, err := (inboundTun{tun, in}).Write(datagrams(10, 10), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v, want %v", err, os.ErrClosed)
	}
	if got := in.count.Load(); got != 1 {
		t.Errorf("%d on their way, want 1", got)
	}
}

// Of large packets, fewer are on their way at a time.
func TestInboundOfLargePackets(t *testing.T) {
	in := newInbound()
	for _, c := range []struct{ packets, bytes, want int }{
		{0, 0, maxInbound}, {128, 128 * 1452, maxInbound}, {1, 65536, 64}, {0, 0, 64}, {10, 10 * 16384, 256}, {3, 99, maxInbound},
	} {
		in.measured(c.packets, c.bytes)
		if got := in.limit.Load(); got != int64(c.want) {
			t.Errorf("after %d packets of %d bytes, %d may be on their way, want %d", c.packets, c.bytes, got, c.want)
		}
	}
}
