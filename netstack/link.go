package netstack

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// batch is the number of packets that Read and Write move at a time:
	// wireguard-go's conn.IdealBatchSize, beyond which it would not go.
	batch = 128

	// inFlight bounds the packets that were read and not yet reported as
	// sent. Each sits in one of wireguard-go's 64 KiB buffers, so that
	// without a bound a megabyte of TCP window becomes 48 MB of memory.
	// Two batches keep the encryption workers and the sender busy; more only
	// fall out of the processor's caches before they are sent.
	inFlight = 2 * batch

	// inFlightBytes bounds the same where packets are large, which fill those
	// buffers; but for fewer than inFlightLeast packets nothing waits.
	inFlightBytes = 4 << 20
	inFlightLeast = 32

	// creditPatience is how long Read waits for the next report before it
	// takes packets in flight for lost: WireGuard drops what it reads for a peer
	// that it does not know, and keeps what it reads for one that it has
	// no session with.
	creditPatience = 20 * time.Millisecond
)

// link is the two-faced heart of the package: gVisor's link endpoint and
// wireguard-go's TUN device.
type link struct {
	mtu    uint32 // of the network interface that the stack sees
	limit  int    // of packets on paths of which nothing else is known, in bytes
	paths  paths
	queue  *queue
	probes func(packet []byte) // may be nil
	logger *slog.Logger

	dispatcher atomic.Pointer[dispatcher]

	readMu sync.Mutex // serialises Read; guards pieces and mean
	pieces []piece    // taken from the queue, not yet emitted
	mean   int        // bytes of each packet that Read returned last, on average

	reading atomic.Bool   // Read may have taken packets that do not count as flying yet
	flying  atomic.Int64  // packets read and not reported as sent
	landed  chan struct{} // has a token when flying went down

	events    chan tun.Event
	closeOnce sync.Once

	resets resets // RSTs that the stack sent

	timeouts *tcpip.StatCounter // of TCP's retransmission timers; set before the first packet
	timedOut atomic.Uint64      // of them, those that a path was told of

	filtered atomic.Uint64 // inbound packets that admit refused
	uncut    atomic.Uint64 // outbound packets that could not be emitted
}

// dispatcher boxes the interface for the atomic pointer.
type dispatcher struct{ stack.NetworkDispatcher }

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
	_ tun.Device         = device{}
)

func newLink(mtu int, probes func([]byte), logger *slog.Logger) *link {
	l := &link{
		mtu:    uint32(max(mtu, header.IPv6MinimumMTU)),
		limit:  mtu,
		queue:  newQueue(),
		probes: probes,
		logger: logger,
		landed: make(chan struct{}, 1),
		events: make(chan tun.Event),
	}
	l.paths.unknown.limit = mtu
	l.queue.acks.segment = l.segment()
	return l
}

// sent reports that n packets that Read returned have left. It may be called
// from any goroutine, and for more packets than were read (WireGuard's own).
func (l *link) sent(n int) {
	for {
		old := l.flying.Load()
		now := max(0, old-int64(n))
		if l.flying.CompareAndSwap(old, now) {
			break
		}
	}
	select {
	case l.landed <- struct{}{}:
	default:
	}
}

// Read implements tun.Device. It blocks until the stack has packets to send,
// and fills bufs with as many as there are.
func (l *link) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	if err := l.credit(); err != nil {
		return 0, err
	}
	for {
		l.reading.Store(true)
		l.pieces = l.queue.take(l.pieces[:0], len(bufs))
		if len(l.pieces) > 0 {
			break
		}
		l.reading.Store(false)
		select {
		case <-l.queue.wake:
		case <-l.queue.done:
			return 0, os.ErrClosed
		}
	}
	n := 0
	for i, p := range l.pieces {
		k, err := emit(p, bufs[n:], sizes[n:], offset)
		if err != nil {
			// The stack made a packet that is larger than the link's
			// MTU allows; TCP would send it again for ever, so say so.
			l.uncut.Add(1)
			l.logger.Error("packet dropped on its way to WireGuard", "err", err)
		}
		p.path.left(sizes[n : n+k])
		n += k
		p.pkt.DecRef()
		l.pieces[i] = piece{}
	}
	if n > 0 {
		bytes := 0
		for _, size := range sizes[:n] {
			bytes += size
		}
		l.mean = bytes / n
	}
	l.flying.Add(int64(n))
	l.reading.Store(false)
	return n, nil
}

// settled lets go of the acknowledgments that wait, and reports whether all that
// there was to send has left.
func (l *link) settled() bool {
	return l.queue.settle() && !l.reading.Load() && l.flying.Load() == 0
}

// most is how many packets may be on their way.
func (l *link) most() int64 {
	if l.mean == 0 {
		return inFlight
	}
	return int64(min(inFlight, max(inFlightLeast, inFlightBytes/l.mean)))
}

// credit waits until there are not too many packets on their way.
func (l *link) credit() error {
	limit := l.most()
	if l.flying.Load() < limit {
		return nil
	}
	timer := time.NewTimer(creditPatience)
	defer timer.Stop()
	for l.flying.Load() >= limit {
		select {
		case <-l.landed:
			timer.Reset(creditPatience)
		case <-l.queue.done:
			return os.ErrClosed
		case <-timer.C:
			l.flying.Store(0)
		}
	}
	return nil
}

// Write implements tun.Device. wireguard-go calls it for each peer at the
// same time, so it keeps no state.
func (l *link) Write(bufs [][]byte, offset int) (int, error) {
	d := l.dispatcher.Load()
	if d == nil {
		return 0, os.ErrClosed
	}
	for i := 0; i < len(bufs); {
		if isProbe(bufs[i][offset:]) {
			if l.probes != nil {
				l.probes(bufs[i][offset:])
			}
			i++
			continue
		}
		if !admit(bufs[i][offset:]) {
			l.filtered.Add(1)
			i++
			continue
		}
		n, payload := joinable(bufs[i:], offset)
		var pkt *stack.PacketBuffer
		if n == 1 {
			pkt = single(bufs[i][offset:])
		} else {
			pkt = join(bufs[i:i+n], offset, payload)
		}
		d.DeliverNetworkPacket(header.IPv6ProtocolNumber, pkt)
		pkt.DecRef()
		i += n
	}
	return len(bufs), nil
}

// BatchSize implements tun.Device.
func (l *link) BatchSize() int { return batch }

// File implements tun.Device: there is none.
func (l *link) File() *os.File { return nil }

// Name implements tun.Device.
func (l *link) Name() (string, error) { return "netstack", nil }

// Events implements tun.Device.
func (l *link) Events() <-chan tun.Event { return l.events }

// device is the link as a tun.Device, whose MTU and Close have other
// signatures than gVisor gives them.
type device struct{ *link }

// MTU implements tun.Device: the size of the largest packet, in bytes, on paths
// of which nothing else is known. WireGuard pads packets to a multiple of 16
// bytes, but not beyond it; of larger ones, what goes beyond a multiple of it
// (calculatePaddingSize in device/send.go).
func (d device) MTU() (int, error) { return d.limit, nil }

// Close implements tun.Device. It ends the link for good: the stack above
// stays, and what it sends is refused.
func (d device) Close() error {
	d.shut()
	return nil
}

func (l *link) shut() {
	l.closeOnce.Do(func() {
		l.queue.close()
		close(l.events)
	})
}

// WritePackets implements stack.LinkWriter. gVisor calls it from the
// goroutines that process segments, so it must not block.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		l.resets.sent(pkt)
		path := l.paths.of(pkt)
		// A timer that expires counts itself and then sends, so this packet is
		// most likely the one that is sent again.
		if n := l.timeouts.Value(); l.timedOut.Load() != n {
			l.timedOut.Store(n)
			path.timedOut()
		}
		if err := l.queue.push(pkt, path); err != nil {
			return i, err
		}
	}
	return pkts.Len(), nil
}

// MTU implements stack.LinkEndpoint.
func (l *link) MTU() uint32 { return l.mtu }

// SetMTU implements stack.LinkEndpoint. The MTU is constant: connections
// learn their segment size from it once. What a path takes at the moment is
// [Path]'s to know.
func (l *link) SetMTU(uint32) {}

// MaxHeaderLength implements stack.LinkEndpoint: there is no link header.
func (l *link) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.LinkEndpoint: there is none.
func (l *link) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress implements stack.LinkEndpoint.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements stack.LinkEndpoint. Received checksums need no
// look, since WireGuard authenticated the packet (RFC 7539 MAC over all of
// it).
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// SupportedGSO implements stack.GSOEndpoint. "Host" means that the stack
// hands over segments larger than the MTU and Read cuts them. gVisor's own
// kind sets PSH on every packet, which ends each run at the far end's GRO.
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

const (
	// maxDatagram is the most that one UDP GSO send carries without the
	// kernel cutting it in software, and maxDatagrams how many it may be cut
	// into (Linux: gso_features_check in net/core/dev.c, with Ethernet, IPv6
	// and UDP headers; UDP_MAX_SEGMENTS in include/linux/udp.h).
	maxDatagram  = 65535 - 14 - 40 - 8
	maxDatagrams = 64

	// wireguardOverhead and wireguardPadding are what WireGuard makes of a
	// packet: padded, with a header and a tag.
	wireguardOverhead = 32
	wireguardPadding  = 16

	// tcpOptions is what the sender reserves for TCP options in every
	// segment, whatever it uses (transport/tcp/snd.go, MaxPayloadSize).
	tcpOptions = header.TCPHeaderMaximumSize - header.TCPMinimumSize
)

// segment is the payload of a full segment, in bytes.
func (l *link) segment() int {
	return int(l.mtu) - header.IPv6MinimumSize - header.TCPMinimumSize - tcpOptions
}

// GSOMaxSize implements stack.GSOEndpoint. A large segment is a whole number
// of full packets, and as many as one UDP GSO send carries once they are
// encrypted: 45 at an MTU of 1420. The sender subtracts
// TCPTotalHeaderMaximumSize and one from the size, so this adds them.
func (l *link) GSOMaxSize() uint32 {
	mss := l.segment()
	// With timestamps, the usual options, of 12 bytes.
	packet := header.IPv6MinimumSize + header.TCPMinimumSize + 12 + mss
	outer := (packet+wireguardPadding-1)&^(wireguardPadding-1) + wireguardOverhead
	n := min(maxDatagram/outer, maxDatagrams, (maxJoined-maxHeaders)/mss)
	return uint32(max(n, 1)*mss + header.TCPTotalHeaderMaximumSize + 1)
}

// Attach implements stack.LinkEndpoint.
func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&dispatcher{d})
}

// IsAttached implements stack.LinkEndpoint.
func (l *link) IsAttached() bool { return l.dispatcher.Load() != nil }

// Wait implements stack.LinkEndpoint: the link has no goroutines.
func (l *link) Wait() {}

// ARPHardwareType implements stack.LinkEndpoint.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements stack.LinkEndpoint.
func (l *link) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.LinkEndpoint.
func (l *link) ParseHeader(*stack.PacketBuffer) bool { return true }

// Close implements stack.LinkEndpoint.
func (l *link) Close() { l.shut() }

// SetOnCloseAction implements stack.LinkEndpoint.
func (l *link) SetOnCloseAction(func()) {}

func (l *link) String() string { return fmt.Sprintf("netstack link (MTU %d)", l.mtu) }
