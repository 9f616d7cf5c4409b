package wg

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

const (
	// inChunks is how many chunks of received packets may wait for the device,
	// over all streams: 1 MB. Beyond, readers wait, and with them the senders, by
	// TCP's own means.
	inChunks = 16
	// chunkSize fits any frame. A stream that waits for one has no chunk.
	chunkSize = maxFrame
)

const (
	// StreamProtocol is what a TLS connection that is a stream asks for by ALPN,
	// and a WebSocket by subprotocol.
	StreamProtocol = "wgexpose-wg"
	// StreamPath is where WebSockets that are streams are asked for.
	StreamPath = "/.well-known/wgexpose/stream"
)

// Streams are byte streams, such as TLS connections, that carry WireGuard
// packets where UDP does not pass. They are one way of [Paths].
//
// Each packet is sent as its length, 2 bytes, the more significant first, and
// its bytes. Nothing else is said: who is at the other end shows only by what
// WireGuard makes of the packets.
type Streams struct {
	in     chan *chunk // from the streams' readers to the receive function
	pool   sync.Pool   // of *chunk
	blocks blocks

	dropped atomic.Uint64 // packets for which streams had no room

	mu     sync.Mutex // guards what follows
	all    map[*Stream]struct{}
	ended  bool
	closed chan struct{} // closed while no device receives; replaced by open
}

// NewStreams returns an empty set.
func NewStreams() *Streams {
	s := &Streams{in: make(chan *chunk, inChunks), all: make(map[*Stream]struct{}), closed: make(chan struct{})}
	s.pool.New = func() any { return &chunk{buf: make([]byte, chunkSize)} }
	s.blocks.pool.New = func() any { return &block{frames: make([]byte, 0, blockSize)} }
	close(s.closed)
	return s
}

// chunk is a run of whole frames of one stream.
type chunk struct {
	buf  []byte // of chunkSize
	from *StreamEndpoint
	data []byte // of buf: what is left to hand out
}

func (s *Streams) chunk() *chunk { return s.pool.Get().(*chunk) }

func (s *Streams) release(c *chunk) {
	c.from, c.data = nil, nil
	s.pool.Put(c)
}

// Attach makes a stream of a connection, whose other end is called from, and
// owns it from then on: Run must follow. It fails when the set is closed.
func (s *Streams) Attach(c net.Conn, from netip.AddrPort, o StreamOptions) (*Stream, error) {
	st := &Stream{set: s, conn: c, o: o, wake: make(chan struct{}, 1), done: make(chan struct{})}
	st.out.blocks = &s.blocks
	if secure, ok := c.(interface{ NetConn() net.Conn }); ok {
		st.wire, _ = secure.NetConn().(Wire)
	}
	if st.wire != nil && o.Probation == 0 {
		st.wire.Widen()
	}
	st.ep = &StreamEndpoint{stream: st, addr: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, errors.Join(errStreamClosed, c.Close())
	}
	s.all[st] = struct{}{}
	return st, nil
}

// Close ends all streams, and makes Run of each return.
func (s *Streams) Close() error {
	s.mu.Lock()
	s.ended = true
	all := s.all
	s.all = nil
	s.mu.Unlock()
	for st := range all {
		st.Close()
	}
	return nil
}

// Dropped is how many packets found no room, in all streams so far.
func (s *Streams) Dropped() uint64 { return s.dropped.Load() }

func (s *Streams) forget(st *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, st)
}

// open makes the one receive function of all streams, which works until shut.
func (s *Streams) open() conn.ReceiveFunc {
	closed := make(chan struct{})
	s.mu.Lock()
	s.closed = closed
	s.mu.Unlock()
	var now *chunk
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		if now == nil {
			select {
			case now = <-s.in:
			case <-closed:
				return 0, net.ErrClosed
			}
		}
		n := 0
		for now != nil && n < len(bufs) {
			var p []byte
			p, now.data, _ = nextFrame(now.data) // whole and sound: the reader has looked
			sizes[n], eps[n] = copy(bufs[n], p), now.from
			n++
			if len(now.data) > 0 {
				continue
			}
			s.release(now)
			// A TLS record holds a dozen packets; the netstack joins more of them
			// the more come at once.
			select {
			case now = <-s.in:
			default:
				now = nil
			}
		}
		return n, nil
	}
}

// shut ends the receive function of the last open.
func (s *Streams) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
}

// StreamOptions say how a stream is held to account. The zero value is for the
// side that made the connection.
type StreamOptions struct {
	// Probation is for connections that anybody can make. Until the device
	// sends an answer to the handshake of a peer it knows, which is no cookie,
	// nothing but first messages of handshakes is taken from the stream, and
	// after this time it is closed. 0: none.
	Probation time.Duration
	// Answered, if not nil, is called once, when the probation is passed. It
	// must not block.
	Answered func()
	// Idle closes a stream from which nothing came for so long. 0: never.
	Idle time.Duration
}
