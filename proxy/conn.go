package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
)

// upstreamConn is a connection to the upstream in a transport's hands.
//
// net/http's transport gives a request up as soon as a write fails, even when
// the answer is there to be read: an upstream that answers 413 and closes while
// the upload is still coming turns into a broken connection, at random. So a
// failed write here does not return before the transport closes the connection,
// which it does once reading came to its end: in the answer, or in the error
// that reading meets too. (After a reset, what was received before it can still
// be read.)
type upstreamConn struct {
	net.Conn
	readable func() bool // whether Read would return at once; nil: nobody knows
	once     sync.Once
	closed   chan struct{}

	mu      sync.Mutex // guards waiting, while it lets go too
	waiting *gathering // of the answer whose body is being read
}

func newUpstreamConn(c net.Conn) *upstreamConn {
	u := &upstreamConn{Conn: c, closed: make(chan struct{})}
	if r, ok := c.(interface{ Readable() bool }); ok {
		u.readable = r.Readable
	}
	return u
}

// beforeWait has g let go before a Read that would wait, until g is done.
func (c *upstreamConn) beforeWait(g *gathering) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = g
}

// done ends that. The connection may be another answer's by now: the transport passes
// it on before the Read that met the end of a body returns.
func (c *upstreamConn) done(g *gathering) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == g {
		c.waiting = nil
	}
}

func (c *upstreamConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	if c.waiting != nil && !c.readable() {
		// An error breaks the visitor's connection, which its server sees.
		_ = c.waiting.letGo()
	}
	c.mu.Unlock()
	return c.Conn.Read(b)
}

func (c *upstreamConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil {
		<-c.closed
	}
	return n, err
}

func (c *upstreamConn) CloseWrite() error { return closeWrite(c.Conn) }

func (c *upstreamConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// upgraded is a visitor's connection that left HTTP behind. Reading gives first
// what came before the upgrade was complete. io.Copy uses its WriteTo and
// ReadFrom, which hold a small buffer while the connection is idle.
type upgraded struct {
	net.Conn
	early []byte
}

func (u *upgraded) Read(b []byte) (int, error) {
	if len(u.early) > 0 {
		n := copy(b, u.early)
		u.early = u.early[n:]
		return n, nil
	}
	return u.Conn.Read(b)
}

func (u *upgraded) CloseWrite() error                         { return closeWrite(u.Conn) }
func (u *upgraded) WriteTo(w io.Writer) (int64, error)        { return copyLean(w, u) }
func (u *upgraded) ReadFrom(r io.Reader) (n int64, err error) { return copyLean(u.Conn, r) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
