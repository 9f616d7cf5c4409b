package inspect

import (
	"sync"
	"time"
)

// ring holds exchanges, oldest first, within bounds of bytes and number. The
// oldest go when a bound is passed, also one that is still under way.
type ring struct {
	mostBytes int64
	most      int
	rush      rush

	mu    sync.Mutex // guards what follows; taken before exchange.mu
	list  []*exchange
	byID  map[uint64]*exchange
	bytes int64
}

func newRing(bytes int64, most, bodyLimit int) *ring {
	return &ring{mostBytes: bytes, most: most, rush: rush{full: bytes, most: bodyLimit}, byID: map[uint64]*exchange{}}
}

// update counts what an exchange holds by now, and takes it in if it is new. at is
// when the last of it came. It reports whether the exchange is kept.
func (r *ring) update(x *exchange, at time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	x.mu.Lock()
	size, gone := x.memory(), x.gone
	spared := x.request.spared(r.rush.most) + x.response.spared(r.rush.most)
	x.mu.Unlock()
	if gone {
		return false
	}
	if came := size + spared - x.noted; came > 0 {
		x.noted += came
		r.rush.note(came, at)
	}
	if x.charged == 0 {
		r.list = append(r.list, x)
		r.byID[x.sequence] = x
	}
	r.bytes += int64(size - x.charged)
	x.charged = size
	for r.bytes > r.mostBytes || len(r.list) > r.most {
		r.evictLocked()
	}
	return x.charged != 0
}

func (r *ring) evictLocked() {
	x := r.list[0]
	r.list[0] = nil
	r.list = r.list[1:]
	delete(r.byID, x.sequence)
	r.bytes -= int64(x.charged)
	x.charged = 0
	x.drop()
}

func (r *ring) find(sequence uint64) *exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[sequence]
}

// newest copies the list, newest first.
func (r *ring) newest() []*exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*exchange, len(r.list))
	for i, x := range r.list {
		list[len(list)-1-i] = x
	}
	return list
}

func (r *ring) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.list) > 0 {
		r.evictLocked()
	}
	r.list = nil
}

func (r *ring) stats() (exchanges int, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.list), r.bytes
}
