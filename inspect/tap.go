package inspect

import (
	"crypto/tls"
	"io"
	"net"

	"github.com/wgexpose/wgexpose/relay"
)

// Tap wraps the connection to an upstream of HTTP so that what passes it is
// read along: what is written are requests, what is read are answers. The
// result is used in place of up, and owns it. redial may be nil; the exchanges
// can then not be replayed.
//
// The result has CloseWrite if up has, passes Abort and Broken through, with what a
// kernel socket needs for them, and tells by Through what it stands for, so that
// relay.Copy treats it as it treats up. On an Inspector that was closed it is
// up itself.
func (i *Inspector) Tap(up net.Conn, m Meta, redial Redial) net.Conn {
	c, _ := i.tap(up, i.newSession, m, redial)
	return c
}

func (i *Inspector) tap(up net.Conn, open func(Meta, Redial) *session, m Meta, redial Redial) (net.Conn, *session) {
	if i.closed.Load() {
		return up, nil
	}
	s := open(m, redial)
	t := &tapped{Conn: up, session: s}
	if _, ok := up.(interface{ CloseWrite() error }); ok {
		return &halfTapped{t}, s
	}
	return t, s
}

// tapped is a connection that is read along. Read, Write and the ends note
// what passes; all else is the connection's own.
type tapped struct {
	net.Conn
	session *session
	state   tapState
}

// Write notes p before it is written: an answer can then never be noted before
// its request. What a failed write did not send is noted too, and the
// connection is at its end.
func (t *tapped) Write(p []byte) (int, error) {
	t.note(toUpstream, p)
	return t.Conn.Write(p)
}

// Read notes what it returns. A reset is told as one even if the system told
// it to a write first.
func (t *tapped) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if err == io.EOF && t.state.wasReset(t.Conn) {
		err = resetError()
	}
	t.hasRead(p[:n], err)
	return n, err
}

// Through is for whoever can read the connection below better than by Read, and tells
// of what each attempt gave, an error of a reset included (package relay).
func (t *tapped) Through() (under net.Conn, read func(p []byte, err error)) {
	return t.Conn, t.hasRead
}

func (t *tapped) hasRead(p []byte, err error) {
	t.note(toVisitor, p)
	if err == nil || isTimeout(err) {
		return
	}
	reset := err != io.EOF
	t.end(func(e *ends) {
		// A read that fails after Close or Abort says nothing of the upstream.
		e.answers = e.answers || !e.closed
		e.reset = e.reset || (reset && !e.closed)
	})
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

func (t *tapped) note(dir direction, p []byte) {
	if len(p) > 0 && !t.session.insp.closed.Load() {
		t.session.wake(t.session.push(dir, p))
	}
}

func (t *tapped) end(note func(*ends)) {
	t.session.wake(t.session.end(note))
}

// Close closes the connection.
func (t *tapped) Close() error {
	t.closed()
	return t.Conn.Close()
}

// Abort closes the connection with a reset, where its kind has one.
func (t *tapped) Abort() {
	t.closed()
	abort(t.Conn)
}

func (t *tapped) closed() {
	t.state.close()
	t.end(func(e *ends) { e.closed = true })
}

func abort(c net.Conn) {
	switch c := c.(type) {
	case interface{ Abort() }:
		c.Abort()
	case *net.TCPConn:
		_ = c.SetLinger(0) // fails only on a closed socket, and then is not needed
		_ = c.Close()
	case *tls.Conn:
		abort(c.NetConn())
	default:
		_ = c.Close()
	}
}

// Broken returns the error that broke the connection, or nil, without a wait.
func (t *tapped) Broken() error { return relay.Broken(t.Conn) }

// halfTapped is a tapped connection with two ends.
type halfTapped struct{ *tapped }

// CloseWrite ends the requests and leaves the answers open.
func (t *halfTapped) CloseWrite() error {
	t.state.sentFIN.Store(true)
	t.end(func(e *ends) { e.requests = true })
	if c, ok := t.Conn.(*tls.Conn); ok {
		// An end can overtake the handshake, and CloseWrite refuses then.
		if err := c.Handshake(); err != nil {
			return err
		}
	}
	return t.Conn.(interface{ CloseWrite() error }).CloseWrite()
}
