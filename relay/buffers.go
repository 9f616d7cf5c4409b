package relay

import (
	"sync"
	"sync/atomic"
)

// bufferSize is the bytes moved at once: what the netstack, at its usual MTU,
// sends as one large segment of 45 whole packets of 1,320 bytes. With 64 KiB,
// each write ended in a small segment of its own, which cost 8–10 % of the CPU
// time of a bulk transfer.
const bufferSize = 45 * 1320

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
