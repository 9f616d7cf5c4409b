package relay

import (
	"net"
	"sync"
)

// gatherSize holds the records of one Write of package proxy, or of one block of
// package wg.
const gatherSize = 66 << 10

var gatherPool = sync.Pool{New: func() any { return new([gatherSize]byte) }}

// Gathering joins what is written to a connection between Hold and Release, such as
// the records of crypto/tls, which writes each by itself. Others may write at the
// same time: crypto/tls answers key updates while it reads.
type Gathering struct {
	mu   sync.Mutex // guards what follows, and the order of writes
	buf  *[gatherSize]byte
	size int   // bytes in buf
	err  error // of an earlier write: what follows would not be understood
}

// Write sends p, or keeps it for Release.
func (g *Gathering) Write(to net.Conn, p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	if g.buf == nil {
		return to.Write(p)
	}
	if len(p) > len(g.buf)-g.size {
		if err := g.sendLocked(to); err != nil {
			return 0, err
		}
	}
	if len(p) > len(g.buf) {
		return to.Write(p)
	}
	g.size += copy(g.buf[g.size:], p)
	return len(p), nil
}

func (g *Gathering) sendLocked(to net.Conn) error {
	if g.size == 0 {
		return g.err
	}
	_, g.err = to.Write(g.buf[:g.size])
	g.size = 0
	return g.err
}

// Hold keeps what is written from now on, as far as there is room, until Release.
// It reports false where that is so already.
func (g *Gathering) Hold() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.buf != nil {
		return false
	}
	g.buf = gatherPool.Get().(*[gatherSize]byte)
	return true
}

// Release sends what was kept since Hold. Its error may be that of an earlier write,
// which the writer has not been told of.
func (g *Gathering) Release(to net.Conn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.buf == nil {
		return g.err
	}
	err := g.sendLocked(to)
	gatherPool.Put(g.buf)
	g.buf = nil
	return err
}

// Together runs write, which one caller at a time has done, and sends what it wrote.
func (g *Gathering) Together(to net.Conn, write func() (int, error)) (int, error) {
	if !g.Hold() {
		return write()
	}
	n, err := write()
	if sent := g.Release(to); err == nil && sent != nil {
		return 0, sent
	}
	return n, err
}
