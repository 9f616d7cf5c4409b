package wg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"
	"golang.zx2c4.com/wireguard/conn"
)

// UDPOptions adjusts a [UDPBind]; the zero value is what suits most.
type UDPOptions struct {
	// NoGSO sends one datagram at a time instead of letting the kernel or the
	// network card cut many from one (UDP_SEGMENT). For drivers that do it
	// wrong.
	NoGSO bool
	// NoGRO receives them one at a time (UDP_GRO).
	NoGRO bool
	// Logger is for what no caller can be told. nil: the device's, or none.
	Logger *slog.Logger
}

// UDP is a bind on addr with the default options; see [UDPWith].
func UDP(addr netip.AddrPort) *UDPBind { return UDPWith(addr, UDPOptions{}) }

// UDPWith makes a bind that listens on exactly addr once its device opens it.
// Port 0 is any free port. An unspecified or zero address, of either family,
// is all addresses of both families on one port; a machine without IPv6, or
// without IPv4, listens on the other alone.
//
// On wildcard addresses on Linux, answers leave from the address that the
// peer's last packet came to, and through the same interface, as WireGuard in
// the kernel does.
func UDPWith(addr netip.AddrPort, opts UDPOptions) *UDPBind {
	b := &UDPBind{addr: addr.Addr().Unmap(), port: addr.Port(), opts: opts, hint: new(sync.Once)}
	b.warnings = rate.NewLimiter(rate.Every(10*time.Second), 3)
	if opts.Logger != nil {
		b.log.Store(opts.Logger)
	}
	return b
}

// UDPBind is a conn.Bind: the UDP sockets of one device. It can be opened again
// after Close, and keeps the port then if the device asks for it.
type UDPBind struct {
	addr     netip.Addr // invalid or unspecified: all addresses of both families
	port     uint16     // 0: any
	opts     UDPOptions
	log      atomic.Pointer[slog.Logger]
	warnings *rate.Limiter
	hint     *sync.Once            // about small buffers
	whole    atomic.Pointer[whole] // nil: any datagram may be fragmented
	memory   rxMemory

	open atomic.Pointer[sockets] // nil while closed; replaced by Open and Close alone
	mu   sync.Mutex              // serialises Open, Close and SetMark
}

var _ conn.Bind = (*UDPBind)(nil)

// sockets are what one Open opened.
type sockets struct {
	v4, v6 *socket // either may be nil
	closed chan struct{}
}

// sendPatience is how long Send waits for room in the socket's buffer before
// it drops the rest of a batch. In wireguard-go each peer has a goroutine that
// sends. While it waits, batches of packets of up to 64 KiB pile up for it, and
// once 1024 have, the one goroutine that reads packets for all peers waits, too.
const sendPatience = 10 * time.Millisecond

// errSendBufferFull is returned for datagrams dropped after sendPatience; TCP
// inside the tunnel then slows down, as on any congested link.
var errSendBufferFull = errors.New("the socket's send buffer is full; datagrams were dropped")

// Open implements conn.Bind. Port 0 stands for the configured one.
func (b *UDPBind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Load() != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	if port == 0 {
		port = b.port
	}
	s, port, err := b.listen(port)
	if err != nil {
		return nil, 0, err
	}
	var fns []conn.ReceiveFunc
	for _, socket := range []*socket{s.v4, s.v6} {
		if socket != nil {
			fns = append(fns, b.receiveFunc(s, socket))
		}
	}
	b.open.Store(s)
	return fns, port, nil
}

// listen opens the socket, or one of each family on one port.
func (b *UDPBind) listen(port uint16) (*sockets, uint16, error) {
	s := &sockets{closed: make(chan struct{})}
	var err error
	if b.addr.IsValid() && !b.addr.IsUnspecified() {
		addr := netip.AddrPortFrom(b.addr, port)
		if b.addr.Is4() {
			s.v4, port, err = b.newSocket("udp4", addr)
		} else {
			s.v6, port, err = b.newSocket("udp6", addr)
		}
		return s, port, err
	}
	// The system picks a port that is free for IPv4; for IPv6 somebody else
	// may have it.
	const tries = 100
	for try := 1; ; try++ {
		var got uint16
		s.v4, got, err = b.newSocket("udp4", netip.AddrPortFrom(netip.IPv4Unspecified(), port))
		if err != nil && !familyMissing(err) {
			return nil, 0, err
		}
		if s.v4 == nil {
			got = port
		}
		var err6 error
		s.v6, got, err6 = b.newSocket("udp6", netip.AddrPortFrom(netip.IPv6Unspecified(), got))
		if err6 == nil {
			return s, got, nil
		}
		if s.v4 == nil {
			return nil, 0, errors.Join(err, err6)
		}
		if familyMissing(err6) {
			return s, s.v4.port(), nil
		}
		if err := s.v4.close(); err != nil {
			return nil, 0, errors.Join(err6, err)
		}
		if port != 0 || !errors.Is(err6, syscall.EADDRINUSE) || try == tries {
			return nil, 0, err6
		}
	}
}

// familyMissing reports whether err says that this machine does without an
// address family.
func familyMissing(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) ||
		errors.Is(err, syscall.EPROTONOSUPPORT)
}

// newSocket opens one socket; network is udp4 or udp6.
func (b *UDPBind) newSocket(network string, addr netip.AddrPort) (*socket, uint16, error) {
	var lc net.ListenConfig
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = configure(fd, network, addr.Addr().IsUnspecified())
		}); cerr != nil {
			return cerr
		}
		return err
	}
	pc, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, 0, fmt.Errorf("listen for WireGuard: %w", err)
	}
	s, err := b.wrap(pc.(*net.UDPConn), network == "udp6")
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("listen for WireGuard on %v: %w", addr, err), pc.Close())
	}
	if n := s.smallestBuffer(); n > 0 && n < wantBuffer {
		b.hint.Do(func() {
			b.logger().Info("the system limits UDP buffers, which costs speed on fast links; "+
				"on Linux: sysctl -w net.core.rmem_max=7340032 net.core.wmem_max=7340032",
				"bytes", n, "wanted", wantBuffer)
		})
	}
	return s, s.port(), nil
}

// wantBuffer is the bytes that each socket buffer is asked to hold: 7 MB, what
// macOS allows by default, and some 40 ms at 1.4 Gbit/s.
const wantBuffer = 7 << 20

// Buffers opens a UDP socket as a bind does, and tells how many bytes the
// smaller of its buffers got, of those that are asked for. 0: the system does
// not tell.
func Buffers() (got, wanted int, err error) {
	s, _, err := UDP(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)).newSocket("udp4", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0))
	if err != nil {
		return 0, 0, err
	}
	return s.smallestBuffer(), wantBuffer, s.close()
}

// receiveFunc makes the function that wireguard-go calls in a loop of its own
// for one socket. It returns no error but net.ErrClosed: after some others,
// wireguard-go would stop receiving for good (RoutineReceiveIncoming in
// device/receive.go).
func (b *UDPBind) receiveFunc(s *sockets, socket *socket) conn.ReceiveFunc {
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
			n, err := socket.receive(bufs, sizes, eps)
			if err == nil {
				return n, nil
			}
			if errors.Is(err, net.ErrClosed) {
				socket.retire()
				return 0, net.ErrClosed
			}
			b.warn("receive WireGuard packets", err)
			select {
			case <-s.closed:
				socket.retire()
				return 0, net.ErrClosed
			case <-time.After(pause):
			}
		}
	}
}

// Send implements conn.Bind. It does not block for longer than a few
// milliseconds; what does not fit then is dropped, with an error.
func (b *UDPBind) Send(bufs [][]byte, endpoint conn.Endpoint) error {
	ep, ok := endpoint.(*Endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	s := b.open.Load()
	if s == nil {
		return net.ErrClosed
	}
	socket := s.v4
	if ep.dst.Addr().Is6() {
		socket = s.v6
	}
	if socket == nil {
		return fmt.Errorf("send to %v: there is no socket of its address family: %w", ep.dst, syscall.EAFNOSUPPORT)
	}
	w := b.whole.Load()
	if w == nil {
		return socket.send(bufs, ep)
	}
	return w.send(socket, bufs, ep)
}

// Close implements conn.Bind. The receive functions of the last Open return
// net.ErrClosed from then on.
func (b *UDPBind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.open.Swap(nil)
	if s == nil {
		return nil
	}
	close(s.closed)
	var errs []error
	for _, socket := range []*socket{s.v4, s.v6} {
		if socket != nil {
			errs = append(errs, socket.close())
		}
	}
	return errors.Join(errs...)
}

// SetMark implements conn.Bind: SO_MARK, on Linux alone.
func (b *UDPBind) SetMark(mark uint32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.open.Load()
	if s == nil {
		return nil
	}
	for _, socket := range []*socket{s.v4, s.v6} {
		if socket == nil {
			continue
		}
		if err := socket.setMark(mark); err != nil {
			return fmt.Errorf("set the mark of WireGuard's packets: %w", err)
		}
	}
	return nil
}

// ParseEndpoint implements conn.Bind; s is address:port.
func (b *UDPBind) ParseEndpoint(s string) (conn.Endpoint, error) {
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return newEndpoint(endpointKey{dst: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())})
}

// BatchSize implements conn.Bind.
func (b *UDPBind) BatchSize() int { return batchSize }

// LocalAddr is the address and port that the bind listens on, for wildcards
// the unspecified address that it was made with; zero while it is closed.
func (b *UDPBind) LocalAddr() netip.AddrPort {
	s := b.open.Load()
	switch {
	case s == nil:
		return netip.AddrPort{}
	case !b.addr.IsValid():
		return netip.AddrPortFrom(netip.IPv6Unspecified(), s.port())
	}
	return netip.AddrPortFrom(b.addr, s.port())
}

// Port is the port that the bind listens on; 0 while it is closed.
func (b *UDPBind) Port() uint16 { return b.LocalAddr().Port() }

func (s *sockets) port() uint16 {
	if s.v4 != nil {
		return s.v4.port()
	}
	return s.v6.port()
}

// setLogger gives the bind its device's logger, unless it has one.
func (b *UDPBind) setLogger(log *slog.Logger) { b.log.CompareAndSwap(nil, log) }

func (b *UDPBind) setWhole(w *whole) { b.whole.Store(w) }

func (b *UDPBind) logger() *slog.Logger {
	if log := b.log.Load(); log != nil {
		return log
	}
	return slog.New(slog.DiscardHandler)
}

func (b *UDPBind) warn(what string, err error) {
	if b.warnings.Allow() {
		b.logger().Warn(what, "err", err)
	}
}
