package netstack

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Conn is a TCP connection of the stack. It is a net.Conn with a half-close
// and an abort, whose errors are those of package syscall: a RST from the
// other side is syscall.ECONNRESET to every Read and Write after the data
// that came before it, and never a clean end.
type Conn struct {
	stack         *Stack
	ep            tcpip.Endpoint
	local, remote netip.AddrPort

	readable, writable chan struct{} // tokens: the endpoint may be ready
	whenReadable       atomic.Pointer[func()]
	entries            [2]waiter.Entry
	queue              *waiter.Queue

	acker         acker
	readMu        sync.Mutex // serialises Read; guards window
	window        window
	peer          *peer
	writeMu       sync.Mutex // serialises Write; guards source and room
	source        bytes.Reader
	room          room
	heard         atomic.Bool // something was read since the last write
	readDeadline  deadline
	writeDeadline deadline

	finished  atomic.Bool // CloseWrite was called
	closeOnce sync.Once
	closed    chan struct{}

	// failure is the error that broke the connection. gVisor tells it
	// once, to whoever asks first, and afterwards says that the connection
	// was closed; a reader must not take that for a clean end because the
	// writer asked first.
	failure atomic.Pointer[error]
}

var _ net.Conn = (*Conn)(nil)

// newConn makes a connection of an endpoint that is connected.
func (s *Stack) newConn(ep tcpip.Endpoint, wq *waiter.Queue, local, remote netip.AddrPort) *Conn {
	c := &Conn{
		ep: ep, queue: wq, local: local, remote: remote,
		stack: s, peer: s.peers.to(remote.Addr()), window: window{size: windowFirst},
		room:     room{size: 2 * s.segment},
		readable: make(chan struct{}, 1),
		writable: make(chan struct{}, 1),
		closed:   make(chan struct{}),
	}
	ends := waiter.EventHUp | waiter.EventErr
	c.entries[0].Init((*readableNotifier)(c), waiter.ReadableEvents|ends)
	c.entries[1].Init(waiter.ChannelNotifier(c.writable), waiter.WritableEvents|ends)
	wq.EventRegister(&c.entries[0])
	wq.EventRegister(&c.entries[1])
	// So far, the endpoint has timed its handshake only.
	var info tcpip.TCPInfoOption
	if terr := ep.GetSockOpt(&info); terr == nil && info.RTT > 0 {
		c.peer.timed(info.RTT, s.stack.Clock().NowMonotonic())
	}
	if ep, ok := ep.(*tcp.Endpoint); ok {
		// Packets are sent under this lock, and may be already.
		ep.LockUser()
		ep.SetOwner(&c.acker)
		s.seat.take(ep, c.peer)
		ep.UnlockUser()
	}
	// With the notice, which ends gVisor's own tuning of the size.
	ep.SocketOptions().SetSendBufferSize(int64(c.room.size), true)
	return c
}

// readableNotifier is a Conn as the endpoint's waiter queue calls it.
type readableNotifier Conn

// NotifyEvent implements waiter.EventListener. It may be called under locks of
// the endpoint.
func (n *readableNotifier) NotifyEvent(waiter.EventMask) {
	c := (*Conn)(n)
	select {
	case c.readable <- struct{}{}:
	default: // a token is there already
	}
	c.callWhenReadable()
}

// callWhenReadable calls what WhenReadable was given, if it was not yet.
func (c *Conn) callWhenReadable() {
	if f := c.whenReadable.Swap(nil); f != nil {
		(*f)()
	}
}

// WhenReadable reports whether Read would not block. If it would, f is called,
// once, as soon as that may have changed: data, the end or an error is there,
// the read deadline has passed, or the connection was closed. f must not block
// and must not use the connection. Only one f waits at a time, for which no
// goroutine needs to; it is what an idle connection costs least.
func (c *Conn) WhenReadable(f func()) bool {
	c.whenReadable.Store(&f)
	if !c.Readable() {
		return false
	}
	// Unless f is being called at this moment.
	return c.whenReadable.CompareAndSwap(&f, nil)
}

// Readable reports whether Read would return at once: data, the end or an error is
// there. It stays so until somebody reads.
func (c *Conn) Readable() bool {
	return c.ep.Readiness(waiter.ReadableEvents)&waiter.ReadableEvents != 0 ||
		isClosed(c.closed) || c.readDeadline.hasPassed()
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if isClosed(c.closed) {
		return 0, c.opError("read", net.ErrClosed)
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if c.readDeadline.hasPassed() {
			return 0, c.opError("read", errDeadline)
		}
		w := tcpip.SliceWriter(p)
		res, terr := c.ep.Read(&w, tcpip.ReadOptions{})
		if terr == nil {
			c.heard.Store(true)
			c.moderate(res.Count)
			return res.Count, nil
		}
		if _, wait := terr.(*tcpip.ErrWouldBlock); !wait {
			err := c.explain(terr)
			if err == io.EOF {
				return 0, err
			}
			return 0, c.opError("read", err)
		}
		if err := c.wait("read", c.readable, c.readDeadline.done()); err != nil {
			return 0, err
		}
	}
}

// moderate adapts the receive buffer after n bytes were read.
func (c *Conn) moderate(n int) {
	had := c.window.size
	if size := c.window.read(n, time.Since(c.stack.opened), c.peer); size != had {
		c.ep.SocketOptions().SetReceiveBufferSize(2*int64(size), true)
	}
}

// Write implements net.Conn. The bytes are copied; it blocks while the send
// buffer is full.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if isClosed(c.closed) {
		return 0, c.opError("write", net.ErrClosed)
	}
	defer c.source.Reset(nil)
	done := 0
	for done < len(p) {
		if c.writeDeadline.hasPassed() {
			return done, c.opError("write", errDeadline)
		}
		n, terr := c.write(p[done:min(len(p), done+c.stack.segment)])
		done += n
		if terr == nil {
			continue
		}
		if _, wait := terr.(*tcpip.ErrWouldBlock); !wait {
			return done, c.opError("write", c.explain(terr))
		}
		if err := c.wait("write", c.writable, c.writeDeadline.done()); err != nil {
			return done, err
		}
	}
	return done, nil
}

// write gives the endpoint the bytes of one segment at most, if there is room for
// all of them.
func (c *Conn) write(p []byte) (int, tcpip.Error) {
	if c.heard.Load() {
		c.room.answers(c.stack.segment)
	}
	options, limit := c.ep.SocketOptions(), int64(c.room.limit(len(p), c.stack.link.segment()))
	options.SetSendBufferSize(limit, false)
	if c.ep.Readiness(waiter.WritableEvents)&waiter.WritableEvents == 0 {
		return 0, &tcpip.ErrWouldBlock{}
	}
	// The endpoint would take a part.
	options.SetSendBufferSize(limit+int64(len(p)), false)
	c.source.Reset(p)
	n, terr := c.ep.Write(&c.source, tcpip.WriteOptions{})
	options.SetSendBufferSize(limit, false)
	if terr == nil {
		c.room.wrote(int(n), c.stack.segment, c.heard.Swap(false), time.Since(c.stack.opened), c.peer)
	}
	return int(n), terr
}

// wait blocks until there is a token in ready, the deadline has passed or
// the connection is closed on this side.
func (c *Conn) wait(op string, ready, passed <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-passed:
		return c.opError(op, errDeadline)
	case <-c.closed:
		return c.opError(op, net.ErrClosed)
	}
}

// explain translates an error of the endpoint. See failure.
func (c *Conn) explain(terr tcpip.Error) error {
	if isClosed(c.closed) {
		return net.ErrClosed
	}
	err := translate(terr)
	if tcp.EndpointState(c.ep.State()) != tcp.StateError {
		return err
	}
	switch err {
	case io.EOF, syscall.EPIPE, syscall.ENOTCONN: // consequences, not causes
		if terr = c.ep.LastError(); terr == nil {
			break
		}
		err = translate(terr)
		fallthrough
	default:
		c.failure.CompareAndSwap(nil, &err)
	}
	if first := c.failure.Load(); first != nil {
		return *first
	}
	return syscall.ECONNRESET // told to a caller that has not stored it yet
}

// Broken reports, without blocking, the error that broke the connection: nil
// while it is well, which includes its orderly end. It tells whoever is busy
// elsewhere that nothing will come of this connection any more.
func (c *Conn) Broken() error {
	switch tcp.EndpointState(c.ep.State()) {
	case tcp.StateError:
		return c.opError("read", c.explain(&tcpip.ErrClosedForReceive{}))
	case tcp.StateClose:
		// gVisor closes on a RST that comes after the other end's FIN
		// (transport/tcp/connect.go, handleReset).
		if !c.finished.Load() && !isClosed(c.closed) {
			return c.opError("read", syscall.ECONNRESET)
		}
	}
	return nil
}

// CloseWrite sends a FIN after what was written; reading goes on.
func (c *Conn) CloseWrite() error {
	if isClosed(c.closed) {
		return c.opError("close", net.ErrClosed)
	}
	if terr := c.ep.Shutdown(tcpip.ShutdownWrite); terr != nil {
		return c.opError("close", c.explain(terr))
	}
	c.finished.Store(true)
	return nil
}

// Close implements net.Conn: what was written is still delivered. Unread data
// makes it a reset, as in the kernel (RFC 2525, section 2.17).
func (c *Conn) Close() error {
	err := c.opError("close", net.ErrClosed)
	c.closeOnce.Do(func() {
		err = nil
		close(c.closed)
		c.unregister()
		c.ep.Close()
		c.callWhenReadable()
	})
	return err
}

// Abort closes the connection with a RST and forgets what was not delivered.
func (c *Conn) Abort() {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.unregister()
		c.ep.Abort()
		c.callWhenReadable()
	})
}

func (c *Conn) unregister() {
	c.queue.EventUnregister(&c.entries[0])
	c.queue.EventUnregister(&c.entries[1])
	c.stack.peers.drop(c.peer)
}

// LocalAddr implements net.Conn; it is a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr implements net.Conn; it is a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.readDeadline.set(t, c.callWhenReadable)
	c.writeDeadline.set(t, nil)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.readDeadline.set(t, c.callWhenReadable)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.set(t, nil)
	return nil
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
