package wg

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
)

// Paths is a conn.Bind made of several ways for packets: UDP sockets, and
// streams. Packets come in through all of them, and go out through the one
// that their endpoint belongs to.
//
// WireGuard knows one endpoint for each peer and learns it from the packets
// that come. To find out which of a peer's addresses works, [Paths.Aim] has the
// first message of each handshake sent to all of them at once: the peer answers
// the copy that reaches it first, on the way that this came, and drops the
// others. That way works in both directions, and both sides use it from then on.
type Paths struct {
	udp     []*UDPBind // at least one
	streams *Streams   // may be nil
	targets atomic.Pointer[[]conn.Endpoint]
	pinned  atomic.Pointer[conn.Endpoint]
	answer  atomic.Pointer[conn.Endpoint]
	answers atomic.Uint64
	shaking chan struct{} // see Shaking
	calls   *calls
}

var _ conn.Bind = (*Paths)(nil)

// Join makes one bind of several. streams may be nil; it stays the caller's,
// who closes it: what closes and opens with the bind is the way from streams to
// the device.
func Join(streams *Streams, udp ...*UDPBind) *Paths {
	if len(udp) == 0 {
		panic("wg: Join without a UDP bind")
	}
	for _, u := range udp[1:] {
		u.hint = udp[0].hint
	}
	return &Paths{udp: udp, streams: streams, calls: newCalls(), shaking: make(chan struct{}, 1)}
}

// Aim sends the first message of each handshake to all of targets from now on,
// instead of the peer's endpoint; with none, to the endpoint again. It is for
// devices with a single peer.
func (p *Paths) Aim(targets ...conn.Endpoint) {
	if len(targets) == 0 {
		p.targets.Store(nil)
		return
	}
	p.targets.Store(&targets)
}

// Pin has all packets sent to ep from now on, and count as coming from it,
// whichever way they come; nil ends that. It is for the side that decides which way is used: when
// that changes, packets that are late on the old way would take WireGuard back
// to it, and the peer with it.
func (p *Paths) Pin(ep conn.Endpoint) {
	if ep == nil {
		p.pinned.Store(nil)
		return
	}
	p.pinned.Store(&ep)
}

// Pinned is what Pin was told.
func (p *Paths) Pinned() conn.Endpoint {
	if ep := p.pinned.Load(); ep != nil {
		return *ep
	}
	return nil
}

// Answer is where the last answer to a handshake came from; nil: there was none.
// It may have been a stranger's that WireGuard did not believe.
func (p *Paths) Answer() conn.Endpoint {
	if ep := p.answer.Load(); ep != nil {
		return *ep
	}
	return nil
}

// Answers is how many answers to handshakes have come, of all.
func (p *Paths) Answers() uint64 { return p.answers.Load() }

// Shaking has a token when messages of handshakes have come, of either kind. They
// may have been a stranger's; what WireGuard makes of them shows in
// [PeerStatus.LastHandshake], not before the peer has sent something more where it
// was the one who called.
func (p *Paths) Shaking() <-chan struct{} { return p.shaking }

func (p *Paths) noteShaking() {
	select {
	case p.shaking <- struct{}{}:
	default: // a token is there already
	}
}

// pinning makes a receive function that heeds Pin, notes calls and answers, and
// drops copies of calls.
func (p *Paths) pinning(receive conn.ReceiveFunc) conn.ReceiveFunc {
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, err := receive(bufs, sizes, eps)
		for i := range n {
			switch packet := bufs[i][:sizes[i]]; {
			case isResponse(packet):
				ep := eps[i]
				p.answer.Store(&ep)
				p.answers.Add(1)
				p.noteShaking()
			case isInitiation(packet) && !p.calls.note(packet, eps[i]):
				sizes[i] = 0 // which WireGuard passes over
			case isInitiation(packet):
				p.noteShaking()
			}
		}
		if pin := p.pinned.Load(); pin != nil {
			for i := range n {
				eps[i] = *pin
			}
		}
		return n, err
	}
}

// At is the endpoint that stands for a UDP address.
func (p *Paths) At(addr netip.AddrPort) (conn.Endpoint, error) {
	return p.udp[0].ParseEndpoint(addr.String())
}

// Open implements conn.Bind. A port other than 0 is for the first UDP bind.
func (p *Paths) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	var fns []conn.ReceiveFunc
	var first uint16
	for i, u := range p.udp {
		want := uint16(0) // the configured one
		if i == 0 {
			want = port
		}
		more, got, err := u.Open(want)
		if err != nil {
			for _, opened := range p.udp[:i] {
				err = errors.Join(err, opened.Close())
			}
			return nil, 0, err
		}
		if i == 0 {
			first = got
		}
		fns = append(fns, more...)
	}
	if p.streams != nil {
		fns = append(fns, p.streams.open())
	}
	for i, fn := range fns {
		fns[i] = p.pinning(fn)
	}
	return fns, first, nil
}

// Close implements conn.Bind.
func (p *Paths) Close() error {
	var errs []error
	for _, u := range p.udp {
		errs = append(errs, u.Close())
	}
	if p.streams != nil {
		p.streams.shut()
	}
	return errors.Join(errs...)
}

// Send implements conn.Bind.
func (p *Paths) Send(bufs [][]byte, ep conn.Endpoint) error {
	if targets := p.targets.Load(); targets != nil && len(bufs) == 1 && isInitiation(bufs[0]) {
		return p.sendAll(bufs, *targets)
	}
	if pin := p.pinned.Load(); pin != nil {
		ep = *pin
	} else if len(bufs) == 1 && isResponse(bufs[0]) {
		if from := p.calls.caller(bufs[0]); from != nil {
			ep = from
		}
	}
	switch ep := ep.(type) {
	case *StreamEndpoint:
		if err := ep.send(bufs); !errors.Is(err, errStreamClosed) {
			return err
		}
		return nil // lost like a datagram to nobody: the peer will come another way
	case *Endpoint:
		return p.sendUDP(bufs, ep)
	}
	return conn.ErrWrongEndpointType
}

// sendAll fails only if nothing could be sent anywhere: of several addresses
// some are of a family that this network does not have.
func (p *Paths) sendAll(bufs [][]byte, targets []conn.Endpoint) error {
	var errs []error
	sent := false
	for _, ep := range targets {
		var err error
		switch ep := ep.(type) {
		case *StreamEndpoint:
			err = ep.send(bufs)
		case *Endpoint:
			err = p.sendUDP(bufs, ep)
		default:
			err = conn.ErrWrongEndpointType
		}
		if err == nil {
			sent = true
		} else {
			errs = append(errs, err)
		}
	}
	if sent {
		return nil
	}
	return errors.Join(errs...)
}

// sendUDP sends through the socket that the endpoint's packets came to: NATs
// let in only answers from the address that was called. An endpoint that comes
// from the configuration belongs to none, and a handshake to it begins on all.
func (p *Paths) sendUDP(bufs [][]byte, ep *Endpoint) error {
	if ep.via != nil {
		return ep.via.Send(bufs, ep)
	}
	if len(p.udp) == 1 {
		return p.udp[0].Send(bufs, ep)
	}
	all := len(bufs) == 1 && isInitiation(bufs[0])
	var errs []error
	sent := false
	for _, u := range p.udp {
		if !u.carries(ep.dst.Addr()) {
			continue
		}
		if err := u.Send(bufs, ep); err != nil {
			errs = append(errs, err)
			continue
		}
		sent = true
		if !all {
			break
		}
	}
	switch {
	case sent:
		return nil
	case len(errs) == 0:
		return fmt.Errorf("send to %v: no socket listens in its address family", ep.dst)
	}
	return errors.Join(errs...)
}

// carries reports whether the bind may have a socket of addr's family.
func (b *UDPBind) carries(addr netip.Addr) bool {
	return !b.addr.IsValid() || b.addr.IsUnspecified() || b.addr.Is4() == addr.Is4()
}

// ParseEndpoint implements conn.Bind.
func (p *Paths) ParseEndpoint(s string) (conn.Endpoint, error) { return p.udp[0].ParseEndpoint(s) }

// SetMark implements conn.Bind.
func (p *Paths) SetMark(mark uint32) error {
	var errs []error
	for _, u := range p.udp {
		errs = append(errs, u.SetMark(mark))
	}
	return errors.Join(errs...)
}

// BatchSize implements conn.Bind.
func (p *Paths) BatchSize() int { return batchSize }

func (p *Paths) setLogger(log *slog.Logger) {
	for _, u := range p.udp {
		u.setLogger(log)
	}
}

func (p *Paths) setWhole(w *whole) {
	for _, u := range p.udp {
		u.setWhole(w)
	}
}

// errStreamClosed is what sending to a stream that is gone returns.
var errStreamClosed = fmt.Errorf("the stream is closed: %w", net.ErrClosed)
