package edge

import (
	"net"
	"sync"
)

// gatherSize holds the records of one Write of package proxy.
const gatherSize = 66 << 10

var gatherPool = sync.Pool{New: func() any { return new([gatherSize]byte) }}

// gathering joins what is written to a connection while together's function
// runs. Others may write at the same time: crypto/tls answers key updates while
// it reads.
type gathering struct {
	mu   sync.Mutex // guards what follows, and the order of writes
	buf  *[gatherSize]byte
	size int   // bytes in buf
	err  error // of an earlier write: what follows would not be understood
}

func (g *gathering) write(to net.Conn, p []byte) (int, error) {
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

func (g *gathering) sendLocked(to net.Conn) error {
	if g.size == 0 {
		return g.err
	}
	_, g.err = to.Write(g.buf[:g.size])
	g.size = 0
	return g.err
}

// together runs write, which one caller at a time has done, and sends what it wrote.
func (g *gathering) together(to net.Conn, write func() (int, error)) (int, error) {
	g.mu.Lock()
	g.buf = gatherPool.Get().(*[gatherSize]byte)
	g.mu.Unlock()
	n, err := write()
	g.mu.Lock()
	defer g.mu.Unlock()
	sent := g.sendLocked(to)
	gatherPool.Put(g.buf)
	g.buf = nil
	if err == nil && sent != nil {
		return 0, sent
	}
	return n, err
}
