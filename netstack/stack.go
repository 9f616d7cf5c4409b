package netstack

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	nic = 1

	// DefaultMTU is the inner packet size that fits WireGuard over an
	// Ethernet path of 1,500 bytes with an outer IPv6 header (wireguard-go's
	// own default).
	DefaultMTU = 1420

	// DefaultSilence is how long an established connection survives
	// without hearing anything: a laptop that sleeps through a meeting.
	DefaultSilence = 15 * time.Minute

	// maxRTO bounds the pause between two retransmissions, so that
	// connections move again within a second when the path is back.
	maxRTO = time.Second

	keepaliveEvery = time.Minute

	// MinMTU is the size that every path has to take: within WireGuard, UDP
	// and IPv6 it fits the 1,280 bytes that every link that carries IPv6 takes
	// (RFC 8200, section 5). gVisor's IPv6 does not work below 1280, so its
	// segments are cut smaller by the link.
	MinMTU = 1200
	// MaxMTU is the largest packet that WireGuard's 32 bytes and padding to
	// 16 leave room for in a UDP datagram over IPv4 (65,507 bytes).
	MaxMTU = 65472
)

// Config says what stack to open.
type Config struct {
	// Addr is the node's own address: where ListenTCP listens, and the
	// source of dials that name none.
	Addr netip.Addr
	// MTU is the size of the largest packet, in bytes, to wherever no [Path]
	// says otherwise, MinMTU–MaxMTU. Zero means DefaultMTU.
	MTU int
	// Probes, if not nil, gets the packets that ask how large packets may be,
	// and the answers to them (package pathmtu): the stack has no use for them.
	// It is called on the receive path, so it must not block, and must not keep
	// the packet.
	Probes func(packet []byte)
	// TimeWait is how long a closed connection's addresses and ports stay
	// taken on the side that closed first. Zero means 1 s: a quiet overlay
	// path holds no packet for longer, and the kernel's minute would cap
	// one target at some 800 new connections a second.
	TimeWait time.Duration
	// Silence is how long an established connection survives without
	// hearing anything from its other end. Zero means DefaultSilence. A
	// receiver that keeps its window closed for longer, and says so, is not
	// silent.
	Silence time.Duration
	// RACK turns on gVisor's RACK-TLP loss detection (RFC 8985). It is off
	// by default, because it takes the segments of one large send for
	// reordered ones: 25 bulk flows over a path that loses and reorders
	// nothing made up to 4,000 spurious recoveries, each of which halves a
	// congestion window. Without it, losses are found by SACK (RFC 6675).
	RACK bool
	// Logger gets what no caller can be told. Nil means no log.
	Logger *slog.Logger

	clock tcpip.Clock // of the protocols' timers; nil: the system's; tests wind it
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	if !c.Addr.Is6() || c.Addr.Is4In6() || c.Addr.Zone() != "" {
		return fmt.Errorf("netstack: the node's address %v is not an IPv6 address", c.Addr)
	}
	if c.MTU != 0 && (c.MTU < MinMTU || c.MTU > MaxMTU) {
		return fmt.Errorf("netstack: MTU %d is outside %d–%d", c.MTU, MinMTU, MaxMTU)
	}
	if c.TimeWait < 0 || c.Silence < 0 {
		return errors.New("netstack: a duration is negative")
	}
	return nil
}

// Stack is a TCP/IPv6 stack in user space. All methods may be called from any
// goroutine.
type Stack struct {
	addr    netip.Addr
	silence time.Duration
	stack   *stack.Stack
	link    *link
	peers   peers
	opened  time.Time
	segment int  // payload of the largest segment, in bytes
	seat    seat // of a connection's congestion control

	forwardOnce sync.Once
	closeOnce   sync.Once
}

// Open makes a stack, whose packets come and go through Device.
func Open(cfg Config) (*Stack, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.MTU == 0 {
		cfg.MTU = DefaultMTU
	}
	if cfg.TimeWait == 0 {
		cfg.TimeWait = time.Second
	}
	if cfg.Silence == 0 {
		cfg.Silence = DefaultSilence
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Stack{
		addr:    cfg.Addr,
		silence: cfg.Silence,
		link:    newLink(cfg.MTU, cfg.Probes, cfg.Logger),
		opened:  time.Now(),
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv6.NewProtocolWithOptions(ipv6.Options{})},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, icmp.NewProtocol6},
			HandleLocal:        false,
			Clock:              cfg.clock,
		}),
	}
	s.segment = s.link.largest()
	s.seat = findSeat()
	s.link.timeouts = s.stack.Stats().TCP.Timeouts
	s.link.queue.acks.clock = s.stack.Clock()
	if err := s.setUp(cfg); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// setUp configures the protocols and adds the link.
func (s *Stack) setUp(cfg Config) error {
	sack := tcpip.TCPSACKEnabled(true)
	// Until a connection is open and has its own.
	congestion := tcpip.CongestionControlOption("cubic")
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	wait := tcpip.TCPTimeWaitTimeoutOption(cfg.TimeWait)
	rto := tcpip.TCPMaxRTOOption(maxRTO)
	// At one a second, after the first few; gVisor's default of 15 gives up
	// after 13.6 s. The count ends a connection, and not a user timeout,
	// which in gVisor also runs while the receiver answers the probes of its
	// closed window (transport/tcp/snd.go, retransmitTimerExpired).
	retries := tcpip.TCPMaxRetriesOption(cfg.Silence/maxRTO + 3)
	var recovery tcpip.TCPRecovery
	if cfg.RACK {
		recovery = tcpip.TCPRACKLossDetection
	}
	// The window is half of the buffer, so 16 MiB carry 640 Mbit/s over
	// 100 ms. Empty buffers cost nothing. Moderation is on because the window
	// scale is then that of the maximum; gVisor does it on demand only, and
	// window is what does it here.
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 2 * windowFirst, Max: 2 * windowMost}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	for _, opt := range []tcpip.SettableTransportProtocolOption{&sack, &recovery, &congestion, &moderate, &wait, &rto, &retries, &receive, &send} {
		if terr := s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, opt); terr != nil {
			return fmt.Errorf("netstack: set TCP option %T: %w", opt, translate(terr))
		}
	}
	if terr := s.stack.CreateNIC(nic, s.link); terr != nil {
		return fmt.Errorf("netstack: add the link: %w", translate(terr))
	}
	address := tcpip.ProtocolAddress{
		Protocol:          ipv6.ProtocolNumber,
		AddressWithPrefix: tcpip.AddrFrom16(cfg.Addr.As16()).WithPrefix(),
	}
	if terr := s.stack.AddProtocolAddress(nic, address, stack.AddressProperties{}); terr != nil {
		return fmt.Errorf("netstack: add the address %v: %w", cfg.Addr, translate(terr))
	}
	if terr := s.stack.SetPromiscuousMode(nic, true); terr != nil {
		return fmt.Errorf("netstack: take packets for all addresses: %w", translate(terr))
	}
	if terr := s.stack.SetSpoofing(nic, true); terr != nil {
		return fmt.Errorf("netstack: send from all addresses: %w", translate(terr))
	}
	s.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv6EmptySubnet, NIC: nic}})
	return nil
}

// Addr is the node's own address.
func (s *Stack) Addr() netip.Addr { return s.addr }

// Device returns the stack's other face, for wg.Open. Closing it does not
// close the stack.
func (s *Stack) Device() tun.Device { return device{s.link} }

// Sent tells the stack that n of the packets that Device's Read returned have
// left, which lets it hand out more. Without such reports Read stalls for a
// moment after each few hundred packets.
func (s *Stack) Sent(n int) { s.link.sent(n) }

// prepare sets the options that each connection's endpoint needs.
func (s *Stack) prepare(ep tcpip.Endpoint) error {
	idle := tcpip.KeepaliveIdleOption(keepaliveEvery)
	interval := tcpip.KeepaliveIntervalOption(keepaliveEvery)
	for _, opt := range []tcpip.SettableSocketOption{&idle, &interval} {
		if terr := ep.SetSockOpt(opt); terr != nil {
			return fmt.Errorf("set socket option %T: %w", opt, translate(terr))
		}
	}
	count := max(1, int(s.silence/keepaliveEvery))
	if terr := ep.SetSockOptInt(tcpip.KeepaliveCountOption, count); terr != nil {
		return fmt.Errorf("set the keepalive count: %w", translate(terr))
	}
	ep.SocketOptions().SetKeepAlive(true)
	ep.SocketOptions().SetDelayOption(false)
	return nil
}

// AbortFrom resets every TCP connection whose other end is in prefix, such as
// those of a node that was revoked, and reports how many there were.
func (s *Stack) AbortFrom(prefix netip.Prefix) int {
	n := 0
	for _, te := range s.stack.RegisteredEndpoints() {
		ep, ok := te.(*tcp.Endpoint)
		if !ok {
			continue
		}
		info, ok := ep.Info().(*stack.TransportEndpointInfo)
		if !ok || info.ID.RemoteAddress.Len() != 16 {
			continue // a listener
		}
		if prefix.Contains(netip.AddrFrom16(info.ID.RemoteAddress.As16())) {
			ep.Abort()
			n++
		}
	}
	return n
}

// Stats are counters since the stack was opened.
type Stats struct {
	Connections     uint64 // TCP connections established now
	Retransmits     uint64 // TCP segments sent again
	Resets          uint64 // RSTs sent
	PacketsReceived uint64 // packets that reached IPv6
	PacketsSent     uint64
	Filtered        uint64 // inbound packets refused before the stack
	Dropped         uint64 // packets lost inside the stack that nobody asked to lose
}

// Stats reads the counters.
func (s *Stack) Stats() Stats {
	st := s.stack.Stats()
	s.link.queue.mu.Lock()
	drops := s.link.queue.drops
	s.link.queue.mu.Unlock()
	return Stats{
		Connections:     st.TCP.CurrentEstablished.Value(),
		Retransmits:     st.TCP.Retransmits.Value(),
		Resets:          st.TCP.ResetsSent.Value(),
		PacketsReceived: st.IP.PacketsReceived.Value(),
		PacketsSent:     st.IP.PacketsSent.Value(),
		Filtered:        s.link.filtered.Load(),
		Dropped: drops + s.link.uncut.Load() + st.TCP.SegmentSendErrors.Value() + st.TCP.ChecksumErrors.Value() +
			st.TCP.ListenOverflowSynDrop.Value() + st.TCP.ForwardMaxInFlightDrop.Value() + st.IP.MalformedPacketsReceived.Value(),
	}
}

// Flush has what waits to be sent leave through Device, held acknowledgments
// above all, and returns when it has, or after limit. Without it the other end of
// a connection that is closed just before Device is may send for minutes what
// was received.
func (s *Stack) Flush(limit time.Duration) {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !s.link.settled() {
		select {
		case <-look.C:
		case <-s.link.queue.done:
			return
		case <-timeout.C:
			return
		}
	}
}

// Close aborts every connection and releases the stack. Listeners' Accept and
// pending dials return errors.
func (s *Stack) Close() error {
	s.closeOnce.Do(func() {
		s.stack.Close()
		s.link.shut()
		s.stack.Wait()
	})
	return nil
}
