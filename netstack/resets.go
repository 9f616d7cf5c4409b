package netstack

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// resetPause is how long no connection is begun between the same two
	// addresses and ports after a RST. See resets.
	resetPause = time.Second

	// resetsMost bounds what is remembered, some 5 MB.
	resetsMost = 1 << 15
)

// pair is the two ends of a connection.
type pair struct{ local, remote netip.AddrPort }

// resets remembers for a moment which connections this stack has reset, so
// that a dial does not come from the same port at once.
//
// The other end sorts packets by connection before it works on them. When a
// RST and a SYN come together, the SYN is sorted to the connection that the RST
// is about to end, and then looks for a listener only, never for the function
// of ForwardTCP: it is refused, as if nothing were there (gVisor,
// transport/tcp/connect.go, tryDeliverSegmentFromClosedEndpoint). That was half
// of the dials that followed an Abort of the same pair at once.
type resets struct {
	mu    sync.Mutex // guards all below
	last  map[pair]time.Time
	order []reset // oldest first
}

type reset struct {
	pair pair
	at   time.Time
}

// sent looks at a packet on its way out.
func (rs *resets) sent(pkt *stack.PacketBuffer) {
	if pkt.TransportProtocolNumber != header.TCPProtocolNumber {
		return
	}
	tcp := header.TCP(pkt.TransportHeader().Slice())
	if len(tcp) < header.TCPMinimumSize || !tcp.Flags().Contains(header.TCPFlagRst) {
		return
	}
	if tcp.Flags().Contains(header.TCPFlagAck) && tcp.SequenceNumber() == 0 {
		return // the answer to a SYN, to which there is no connection (RFC 9293, 3.5.2)
	}
	ip := header.IPv6(pkt.NetworkHeader().Slice())
	if len(ip) < header.IPv6MinimumSize {
		return
	}
	rs.note(pair{
		local:  netip.AddrPortFrom(netip.AddrFrom16(ip.SourceAddress().As16()), tcp.SourcePort()),
		remote: netip.AddrPortFrom(netip.AddrFrom16(ip.DestinationAddress().As16()), tcp.DestinationPort()),
	}, time.Now())
}

func (rs *resets) note(p pair, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.last == nil {
		rs.last = map[pair]time.Time{}
	}
	for len(rs.order) > 0 && (len(rs.order) >= resetsMost || now.Sub(rs.order[0].at) >= resetPause) {
		old := rs.order[0]
		rs.order = rs.order[1:]
		if rs.last[old.pair].Equal(old.at) { // else it was reset again
			delete(rs.last, old.pair)
		}
	}
	rs.last[p] = now
	rs.order = append(rs.order, reset{p, now})
}

// recent tells whether a connection between p's ends was reset just now.
func (rs *resets) recent(p pair, now time.Time) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	at, ok := rs.last[p]
	return ok && now.Sub(at) < resetPause
}
