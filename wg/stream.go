package wg

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

const (
	// stuckAfter is how long one write may take before the stream is given up.
	stuckAfter = 15 * time.Second
	// frameHeader is the length in front of each packet.
	frameHeader = 2
)

var (
	// ErrNoHandshake ends a stream that brought no valid handshake in time.
	ErrNoHandshake = errors.New("the stream brought no valid WireGuard handshake")
	// ErrNotWireGuard ends a stream that carries something else.
	ErrNotWireGuard = errors.New("the stream carries something that is no WireGuard packet")
)

// Stream is one connection that carries packets.
type Stream struct {
	set  *Streams
	conn net.Conn
	ep   *StreamEndpoint
	o    StreamOptions

	answered atomic.Bool   // a peer that we know is at the other end
	dropped  atomic.Uint64 // packets for which there was no room

	wake chan struct{} // has a token when there is something in out
	done chan struct{}
	once sync.Once // of closing done

	first [frameHeader]byte // of a frame, while there is no chunk
	out   outbox
	wire  Wire // under TLS; nil: the connection has none
}

// Endpoint stands for the other end.
func (st *Stream) Endpoint() *StreamEndpoint { return st.ep }

// Done is closed when the stream has ended.
func (st *Stream) Done() <-chan struct{} { return st.done }

// Dropped is how many packets found no room.
func (st *Stream) Dropped() uint64 { return st.dropped.Load() }

// Close ends the stream, and makes Run return.
func (st *Stream) Close() error {
	var err error
	st.once.Do(func() {
		close(st.done)
		err = st.conn.Close()
	})
	return err
}

// Run carries packets until the connection or ctx ends, and closes it. The
// error says why: io.EOF when the other end did.
func (st *Stream) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { st.Close() })
	defer stop()
	var writer sync.WaitGroup
	var failure error // valid after writer.Wait
	writer.Go(func() {
		if failure = st.write(); failure != nil {
			st.Close()
		}
	})
	var expired atomic.Bool
	if st.o.Probation > 0 {
		timer := time.AfterFunc(st.o.Probation, func() {
			if !st.answered.Load() {
				expired.Store(true)
				st.Close()
			}
		})
		defer timer.Stop()
	}
	err := st.read()
	st.Close()
	st.set.forget(st)
	writer.Wait()
	st.out.close()
	switch {
	case expired.Load():
		return ErrNoHandshake
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, net.ErrClosed) && failure != nil:
		return failure
	}
	return err
}

// read hands packets on until the connection breaks. Between frames it waits without a
// chunk.
func (st *Stream) read() error {
	var c *chunk
	defer func() {
		if c != nil {
			st.set.release(c)
		}
	}()
	var idle time.Time // when the deadline is to be set again
	for n := 0; ; {
		if now := time.Now(); st.o.Idle > 0 && now.After(idle) {
			idle = now.Add(st.o.Idle / 8)
			if err := st.conn.SetReadDeadline(idle.Add(st.o.Idle)); err != nil {
				return err
			}
		}
		into := st.first[:]
		if c != nil {
			into = c.buf[n:]
		}
		m, err := st.conn.Read(into)
		if m > 0 {
			if c == nil {
				c = st.set.chunk()
				copy(c.buf, into[:m])
			}
			n += m
			end, ferr := st.wholeFrames(c.buf[:n])
			if ferr != nil {
				return ferr
			}
			if end > 0 {
				var next *chunk
				if n > end {
					next = st.set.chunk()
					copy(next.buf, c.buf[end:n])
				}
				c.from, c.data = st.ep, c.buf[:end]
				select {
				case st.set.in <- c:
				case <-st.done:
					st.set.release(c)
					c = next
					return net.ErrClosed
				}
				c, n = next, n-end
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) && n > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// wholeFrames is how far the whole frames in p reach.
func (st *Stream) wholeFrames(p []byte) (end int, err error) {
	for rest := p; ; {
		packet, next, _ := nextFrame(rest)
		if packet == nil {
			return end, nil
		}
		if !isPacket(packet) {
			return 0, ErrNotWireGuard
		}
		if st.o.Probation > 0 && !isInitiation(packet) && !st.answered.Load() {
			return 0, ErrNoHandshake
		}
		end += frameHeader + len(packet)
		rest = next
	}
}

// nextFrame takes the first frame off p. packet is nil when it is not all
// there; size is the whole frame's then, if that is known already.
func nextFrame(p []byte) (packet, rest []byte, size int) {
	if len(p) < frameHeader {
		return nil, p, 0
	}
	size = frameHeader + int(binary.BigEndian.Uint16(p))
	if len(p) < size {
		return nil, p, size
	}
	return p[frameHeader:size:size], p[size:], size
}

// isPacket reports whether p is a WireGuard packet by type and length (the
// WireGuard paper, section 5.4).
func isPacket(p []byte) bool {
	if len(p) < 4 {
		return false
	}
	switch binary.LittleEndian.Uint32(p) {
	case device.MessageInitiationType:
		return len(p) == device.MessageInitiationSize
	case device.MessageResponseType:
		return len(p) == device.MessageResponseSize
	case device.MessageCookieReplyType:
		return len(p) == device.MessageCookieReplySize
	case device.MessageTransportType:
		return len(p) >= device.MessageTransportSize
	}
	return false
}

// send queues packets, all in one run.
func (st *Stream) send(bufs [][]byte) error {
	if !st.answered.Load() && answers(bufs[0]) && st.answered.CompareAndSwap(false, true) {
		if st.wire != nil {
			st.wire.Widen()
		}
		if st.o.Answered != nil {
			st.o.Answered()
		}
	}
	select {
	case <-st.done:
		return errStreamClosed
	default:
	}
	dropped, err := st.out.put(bufs)
	if dropped > 0 {
		st.dropped.Add(uint64(dropped))
		st.set.dropped.Add(uint64(dropped))
	}
	select {
	case st.wake <- struct{}{}:
	default:
	}
	return err
}

// answers tells packets that WireGuard sends only to a peer that it knows. It
// sends cookies to anybody who has its public key.
func answers(p []byte) bool {
	t := binary.LittleEndian.Uint32(p)
	return t == device.MessageResponseType || t == device.MessageTransportType
}

// write sends what is queued, as much at a time as leaves with one call, until
// the end.
func (st *Stream) write() error {
	for {
		select {
		case <-st.wake:
		case <-st.done:
			return nil
		}
		for taken := st.out.take(); len(taken) > 0; taken = st.out.take() {
			for _, b := range taken {
				if err := st.conn.SetWriteDeadline(time.Now().Add(stuckAfter)); err != nil {
					return err
				}
				if err := writeBlock(st.conn, st.wire, b.frames); err != nil {
					return err
				}
				st.set.blocks.put(b)
			}
		}
	}
}

// StreamEndpoint is the other end of a stream. It implements conn.Endpoint.
type StreamEndpoint struct {
	stream *Stream
	addr   netip.AddrPort
}

var _ conn.Endpoint = (*StreamEndpoint)(nil)

func (e *StreamEndpoint) send(bufs [][]byte) error { return e.stream.send(bufs) }

// AddrPort is the address of the other end.
func (e *StreamEndpoint) AddrPort() netip.AddrPort { return e.addr }

// ClearSrc implements conn.Endpoint; a connection keeps its source.
func (e *StreamEndpoint) ClearSrc() {}

// SrcIP implements conn.Endpoint.
func (e *StreamEndpoint) SrcIP() netip.Addr { return netip.Addr{} }

// SrcToString implements conn.Endpoint.
func (e *StreamEndpoint) SrcToString() string { return "" }

// DstIP implements conn.Endpoint.
func (e *StreamEndpoint) DstIP() netip.Addr { return e.addr.Addr() }

// streamMark tells a stream's address from a UDP address in WireGuard's status.
const streamMark = "tls:"

// DstToString implements conn.Endpoint.
func (e *StreamEndpoint) DstToString() string { return streamMark + e.addr.String() }

// DstToBytes implements conn.Endpoint: what a cookie is bound to.
func (e *StreamEndpoint) DstToBytes() []byte {
	b, err := e.addr.MarshalBinary()
	if err != nil {
		panic("wg: " + err.Error()) // it has no error to return
	}
	return b
}
