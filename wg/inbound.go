package wg

import (
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
)

const (
	// maxInbound is how many received packets may be on their way from the
	// bind to the TUN device. Each of them is in a buffer of 64 KiB of
	// wireguard-go, which reads as fast as packets come and has no bound of
	// its own that matters (1,024 batches for each peer): the whole window of
	// one TCP connection, 6,000 packets, made 400 MB. Beyond the bound,
	// packets wait in the socket's buffer, where they take their own size.
	maxInbound = 1024
	// maxInboundBytes bounds the same where packets are large and fill those
	// buffers; leastInbound packets may always be on their way.
	maxInboundBytes = 4 << 20
	leastInbound    = 32

	// inboundPatience is how long the bind waits for the TUN device to take
	// something before it believes that nothing is on its way: packets that
	// fail to decrypt, repeat, or come from an address that is not allowed
	// are dropped without a word.
	inboundPatience = 5 * time.Millisecond
)

// inbound counts the packets between the bind and the TUN device.
type inbound struct {
	count atomic.Int64
	limit atomic.Int64  // of count
	moved chan struct{} // has a token when count went down
}

func newInbound() *inbound {
	in := &inbound{moved: make(chan struct{}, 1)}
	in.limit.Store(maxInbound)
	return in
}

// measured sets the limit by packets of so many bytes.
func (in *inbound) measured(packets, bytes int) {
	if packets > 0 {
		in.limit.Store(int64(min(maxInbound, max(leastInbound, maxInboundBytes/(bytes/packets)))))
	}
}

// delivered notes that the TUN device has taken n packets.
func (in *inbound) delivered(n int) {
	for {
		old := in.count.Load()
		if in.count.CompareAndSwap(old, max(0, old-int64(n))) {
			break
		}
	}
	in.signal()
}

func (in *inbound) signal() {
	select {
	case in.moved <- struct{}{}:
	default: // a token is there already
	}
}

// wait blocks until there is room, or nothing has moved for inboundPatience.
func (in *inbound) wait() {
	if in.count.Load() < in.limit.Load() {
		return
	}
	timer := time.NewTimer(inboundPatience)
	defer timer.Stop()
	for in.count.Load() >= in.limit.Load() {
		select {
		case <-in.moved:
			timer.Reset(inboundPatience)
		case <-timer.C:
			in.count.Store(0)
		}
	}
	in.signal() // for the receive function of the other address family
}

// inboundTun is a TUN device that tells what it has taken.
type inboundTun struct {
	tun.Device
	in *inbound
}

func (t inboundTun) Write(bufs [][]byte, offset int) (int, error) {
	n, err := t.Device.Write(bufs, offset)
	t.in.delivered(len(bufs)) // with an error too: their buffers are free now
	return n, err
}

// inboundBind is a bind that waits before it receives more than the TUN device
// can take.
type inboundBind struct {
	conn.Bind
	in *inbound
}

func (b inboundBind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, port, err := b.Bind.Open(port)
	for i, fn := range fns {
		fns[i] = b.in.receiver(fn)
	}
	return fns, port, err
}

// receiver makes a receive function that waits. wireguard-go calls it in a
// loop, with the same buffers again but for those that it has kept
// (RoutineReceiveIncoming in device/receive.go); of the packets of the call
// before, the kept ones are on their way. What strangers send is not kept, and
// so takes no room.
func (in *inbound) receiver(receive conn.ReceiveFunc) conn.ReceiveFunc {
	var last []*byte // the buffers of the data packets of the call before, nil for others
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		kept := 0
		for i, first := range last {
			if first != nil && first != &bufs[i][0] {
				kept++
			}
		}
		in.count.Add(int64(kept))
		in.wait()
		n, err := receive(bufs, sizes, eps)
		last = last[:0]
		packets, bytes := 0, 0
		for i := range n {
			var first *byte
			if isData(bufs[i][:sizes[i]]) {
				first = &bufs[i][0]
				packets, bytes = packets+1, bytes+sizes[i]
			}
			last = append(last, first)
		}
		in.measured(packets, bytes)
		return n, err
	}
}
