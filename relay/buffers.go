package relay

import (
	"sync"
	"sync/atomic"
)

// bufferSize is the bytes moved at once: four TLS records, one large segment
// of the netstack.
const bufferSize = 64 << 10

type buffer [bufferSize]byte

// bufferPool lends buffers and counts those that are out, so that a test can
// assert that idle connections hold none.
type bufferPool struct {
	pool sync.Pool
	out  atomic.Int64
}

func (p *bufferPool) borrow() *buffer {
	p.out.Add(1)
	if b, ok := p.pool.Get().(*buffer); ok {
		return b
	}
	return new(buffer)
}

func (p *bufferPool) giveBack(b *buffer) {
	p.out.Add(-1)
	p.pool.Put(b)
}

// buffers is shared by all copies of the process: an idle connection's buffer
// serves a busy one.
var buffers bufferPool
