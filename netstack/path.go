package netstack

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Path is the way to one part of the overlay, and how large packets may be on
// it. The stack does not learn of that: its segments are of the size that was
// agreed when a connection began, and are cut to the path's present size on
// their way out, whether that is larger or smaller.
type Path struct {
	limit int          // see Config.MTU
	size  atomic.Int32 // bytes; 0: nothing is known
	watch atomic.Pointer[watch]
	lost  atomic.Pointer[func()]
}

// watch waits for a packet.
type watch struct {
	above int // bytes
	call  func()
}

// SetSize has packets of up to n bytes sent from now on; n is not checked
// against anything but MinMTU. The other end must be known to take them: they
// may be larger than its TCP asked for. 0 means that nothing is known: then
// they are as large as Config.MTU and the other end's TCP allow.
func (p *Path) SetSize(n int) {
	if n != 0 {
		n = max(n, MinMTU)
	}
	p.size.Store(int32(n))
}

// Watch has f called, once, when the next packet of more than n bytes is on its
// way. It is called from the goroutine that sends, so it must not block. Another
// call replaces the first; a nil f ends the wait.
func (p *Path) Watch(n int, f func()) {
	if f == nil {
		p.watch.Store(nil)
		return
	}
	p.watch.Store(&watch{above: n, call: f})
}

// OnTimeout has f called whenever a connection on this path sends something again
// because nothing was heard, before it is cut. It is called while the stack
// sends, so it must not block. A nil f ends that.
func (p *Path) OnTimeout(f func()) {
	if f == nil {
		p.lost.Store(nil)
		return
	}
	p.lost.Store(&f)
}

func (p *Path) timedOut() {
	if f := p.lost.Load(); f != nil {
		(*f)()
	}
}

// payload is how much of a TCP segment's payload fits one packet, beside that
// many bytes of headers. mss is what the connection's ends agreed on.
func (p *Path) payload(headers, mss int) int {
	if n := int(p.size.Load()); n != 0 {
		return n - headers
	}
	n := p.limit - headers
	if mss > 0 {
		n = min(n, mss)
	}
	return n
}

// left notes packets of these sizes.
func (p *Path) left(sizes []int) {
	w := p.watch.Load()
	if w == nil || !slices.ContainsFunc(sizes, func(n int) bool { return n > w.above }) {
		return
	}
	if p.watch.CompareAndSwap(w, nil) {
		w.call()
	}
}

// paths are the known ones.
type paths struct {
	unknown Path // for all packets that have no other

	mu   sync.RWMutex // guards what follows
	all  *Path        // for all packets; nil: as byNode says
	node map[nodePrefix]*Path
}

type nodePrefix [nodePrefixBytes]byte

// of is the path that a packet takes.
func (ps *paths) of(pkt *stack.PacketBuffer) *Path {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	if ps.all != nil {
		return ps.all
	}
	if len(ps.node) > 0 {
		// The destination, RFC 8200, section 3.
		if h := pkt.NetworkHeader().Slice(); len(h) >= header.IPv6MinimumSize {
			if p := ps.node[nodePrefix(h[24:24+nodePrefixBytes])]; p != nil {
				return p
			}
		}
	}
	return &ps.unknown
}

// Path makes the path to a node's prefix, which is a /80, or to everywhere, ::/0.
// It replaces one that was there for the same.
func (s *Stack) Path(to netip.Prefix) (*Path, error) {
	ps := &s.link.paths
	p := &Path{limit: s.link.limit}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	switch {
	case to == everywhere:
		ps.all = p
	case to.Addr().Is6() && to.Bits() == 8*nodePrefixBytes:
		if ps.node == nil {
			ps.node = make(map[nodePrefix]*Path)
		}
		ps.node[prefixKey(to)] = p
	default:
		return nil, fmt.Errorf("netstack: path to %v: it is neither a node's prefix nor %v", to, everywhere)
	}
	return p, nil
}

// ForgetPath ends p, which was made for to, unless another one has replaced it.
// Packets go on as if nothing was known.
func (s *Stack) ForgetPath(to netip.Prefix, p *Path) {
	ps := &s.link.paths
	p.Watch(0, nil)
	p.OnTimeout(nil)
	p.SetSize(0)
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.all == p {
		ps.all = nil
	}
	if key := prefixKey(to); ps.node[key] == p {
		delete(ps.node, key)
	}
}

var everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)

func prefixKey(p netip.Prefix) nodePrefix {
	addr := p.Addr().As16()
	return nodePrefix(addr[:nodePrefixBytes])
}

// isProbe tells the packets that ask how large packets may be, and the answers
// to them: the two informational messages that ICMPv6 keeps for experiments
// (RFC 4443, section 2.1).
func isProbe(b []byte) bool {
	const first, last = 200, 201
	return len(b) > header.IPv6MinimumSize && b[0]>>4 == 6 &&
		b[6] == uint8(header.ICMPv6ProtocolNumber) &&
		b[header.IPv6MinimumSize] >= first && b[header.IPv6MinimumSize] <= last
}

// Send sends an IPv6 packet that is no connection's, before all others, and as
// it is, whatever its path takes. The packet is copied.
func (s *Stack) Send(packet []byte) error {
	if len(packet) < header.IPv6MinimumSize || len(packet) > MaxMTU {
		return fmt.Errorf("netstack: send a packet of %d bytes: it is no IPv6 packet that WireGuard takes", len(packet))
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv6MinimumSize,
		Payload:            buffer.MakeWithData(packet[header.IPv6MinimumSize:]),
	})
	defer pkt.DecRef()
	copy(pkt.NetworkHeader().Push(header.IPv6MinimumSize), packet)
	if terr := s.link.queue.push(pkt, s.link.paths.of(pkt)); terr != nil {
		return fmt.Errorf("netstack: send a packet: %w", translate(terr))
	}
	return nil
}
