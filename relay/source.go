package relay

import (
	"errors"
	"net"
)

// errParked is what a read returns that would have to wait, of a connection
// that calls when the wait is over.
var errParked = errors.New("parked")

// source reads chunks of one connection. read blocks without a buffer where
// the connection can wait, borrows one, and hands it over: the caller gives it
// back. A nil buffer goes with n == 0.
type source interface {
	read() (b *buffer, n int, err error)
}

// newSource picks the best way to read c. resume is called after errParked, from
// some goroutine that it must not hold up. sentFIN reports whether this process
// has begun to half-close c; see kernelSource.
func newSource(c net.Conn, resume func(), sentFIN func() bool) source {
	if w, ok := c.(interface{ WhenReadable(func()) bool }); ok {
		return &callingSource{c, w.WhenReadable, resume}
	}
	if t, ok := c.(interface {
		Through() (net.Conn, func([]byte, error))
	}); ok {
		under, passed := t.Through()
		if s := newKernelSource(under, bufferSize, sentFIN); s != nil {
			return &toldSource{s, passed}
		}
	}
	if s := newKernelSource(c, bufferSize, sentFIN); s != nil {
		return s
	}
	return plainSource{c}
}

// callingSource reads a connection that has WhenReadable.
type callingSource struct {
	conn   net.Conn
	when   func(func()) bool
	resume func()
}

func (s *callingSource) read() (*buffer, int, error) {
	if !s.when(s.resume) {
		return nil, 0, errParked
	}
	return plainSource{s.conn}.read()
}

// toldSource reads a connection that has Through, and tells it.
type toldSource struct {
	under  source
	passed func([]byte, error)
}

func (s *toldSource) read() (*buffer, int, error) {
	b, n, err := s.under.read()
	var p []byte
	if b != nil {
		p = b[:n]
	}
	s.passed(p, err)
	return b, n, err
}

// plainSource reads any connection, and so holds a buffer while it waits: a
// *tls.Conn may hold decrypted bytes that no descriptor tells of.
type plainSource struct{ conn net.Conn }

func (s plainSource) read() (*buffer, int, error) {
	b := buffers.borrow()
	n, err := s.conn.Read(b[:])
	if n == 0 {
		buffers.giveBack(b)
		b = nil
	}
	return b, n, err
}
