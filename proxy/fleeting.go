package proxy

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"
)

// fleetingConn is a visitor's TLS connection that is let go of when it is closed,
// with its keys and what was read of it: net/http holds an HTTP/2 connection that
// broke amid a request for IdleTimeout, as the timer of an idle connection is set
// when its last stream ends, and that is then after it was stopped for good.
type fleetingConn struct {
	conn          atomic.Pointer[tls.Conn] // nil once it is closed
	local, remote net.Addr
}

func newFleetingConn(conn *tls.Conn) *fleetingConn {
	c := &fleetingConn{local: conn.LocalAddr(), remote: conn.RemoteAddr()}
	c.conn.Store(conn)
	return c
}

func (c *fleetingConn) Read(p []byte) (int, error) {
	conn := c.conn.Load()
	if conn == nil {
		return 0, net.ErrClosed
	}
	return conn.Read(p)
}

func (c *fleetingConn) Write(p []byte) (int, error) {
	conn := c.conn.Load()
	if conn == nil {
		return 0, net.ErrClosed
	}
	return conn.Write(p)
}

func (c *fleetingConn) Close() error {
	conn := c.conn.Swap(nil)
	if conn == nil {
		return net.ErrClosed
	}
	return conn.Close()
}

// CloseWrite sends what ends TLS and TCP in this direction.
func (c *fleetingConn) CloseWrite() error { return c.ask((*tls.Conn).CloseWrite) }

func (c *fleetingConn) SetDeadline(t time.Time) error {
	return c.ask(func(conn *tls.Conn) error { return conn.SetDeadline(t) })
}

func (c *fleetingConn) SetReadDeadline(t time.Time) error {
	return c.ask(func(conn *tls.Conn) error { return conn.SetReadDeadline(t) })
}

func (c *fleetingConn) SetWriteDeadline(t time.Time) error {
	return c.ask(func(conn *tls.Conn) error { return conn.SetWriteDeadline(t) })
}

func (c *fleetingConn) ask(do func(*tls.Conn) error) error {
	conn := c.conn.Load()
	if conn == nil {
		return net.ErrClosed
	}
	return do(conn)
}

func (c *fleetingConn) LocalAddr() net.Addr  { return c.local }
func (c *fleetingConn) RemoteAddr() net.Addr { return c.remote }
