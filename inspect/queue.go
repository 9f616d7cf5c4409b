package inspect

import (
	"sync"
	"sync/atomic"
	"time"
)

// direction is a way through a tapped connection.
type direction int

const (
	toUpstream direction = iota // requests
	toVisitor                   // answers
)

func (d direction) String() string {
	if d == toUpstream {
		return "to_upstream"
	}
	return "to_visitor"
}

// chunk is a copy of bytes that passed, or a gap where bytes passed that were
// not copied.
type chunk struct {
	dir  direction
	at   time.Time
	data []byte   // nil for a gap
	gap  [2]int64 // bytes missing in each direction
	// foreseen tells of a gap that all of its bytes are missing because of a rush.
	foreseen bool
	mark     chan struct{} // closed when the parser gets here; see queue.sync
	next     *chunk
	pool     *sync.Pool

	holders atomic.Int32 // the queue, and pieces of bodies, until release
}

// chunkOverhead is what a chunk costs beside its bytes.
const chunkOverhead = 128

func (c *chunk) cost() int { return chunkOverhead + cap(c.data) }

// Sizes of chunks: most heads with small bodies, and pieces of what a relay moves at
// once, so that little of the last one is empty.
const (
	smallChunk = 2 << 10
	largeChunk = 16 << 10
)

// chunkPools lend chunks by their size. Pools hold nothing that has an
// owner, so they are shared by all inspectors of a process.
var chunkPools = [...]struct {
	size int
	pool *sync.Pool
}{{smallChunk, new(sync.Pool)}, {largeChunk, new(sync.Pool)}}

// borrowChunk lends one for at most largeChunk bytes, to one holder.
func borrowChunk(n int) *chunk {
	p := &chunkPools[0]
	if n > p.size {
		p = &chunkPools[1]
	}
	c, ok := p.pool.Get().(*chunk)
	if !ok {
		c = &chunk{data: make([]byte, 0, p.size), pool: p.pool}
	}
	c.holders.Store(1)
	return c
}

// retain has one holder more.
func (c *chunk) retain() { c.holders.Add(1) }

// release ends what borrowChunk or retain began. With the last holder, the bytes
// are free to be overwritten.
func (c *chunk) release() {
	if c.pool == nil || c.holders.Add(-1) > 0 {
		return
	}
	c.dir, c.at, c.data, c.next = 0, time.Time{}, c.data[:0], nil
	c.pool.Put(c)
}

// queue takes what passes a connection and keeps it, in its order, until a
// worker takes it. It never waits and never grows beyond its bounds: what does
// not fit leaves a gap of known length.
type queue struct {
	bound int           // of bytes in this queue
	all   *atomic.Int64 // bytes in all queues
	most  int64         // of all

	// unwanted are the offsets, one for each direction, below which nobody
	// looks at the bytes: those of a body of which enough is kept. The parser
	// sets them and the tap then copies nothing, so that large transfers cost
	// next to nothing.
	unwanted  [2]atomic.Int64
	foresight foresight

	mu         sync.Mutex // guards what follows
	head, tail *chunk
	follower   h2Follower
	bytes      int      // cost of all chunks, those being parsed included
	pushed     [2]int64 // offsets
	ends       ends
	scheduled  bool // a worker has, or will get, this queue
	hurried    bool // and was told that it is urgent
}

// ends are what is known of how a connection ended.
type ends struct {
	requests, answers, closed bool // CloseWrite; EOF or error of Read; Close or Abort
	reset                     bool // answers ended with an error
	at                        time.Time
}

// call says whether workers are to be told of a queue.
type call struct{ add, hurry bool }

// push copies p.
func (q *queue) push(dir direction, p []byte) call {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if dir == toVisitor {
		p = q.foreseeLocked(p, now)
	}
	if skip := q.unwanted[dir].Load() - q.pushed[dir]; skip > 0 {
		n := min(skip, int64(len(p)))
		q.gapLocked(dir, n, now, false)
		p = p[n:]
	}
	n := q.follower.begin(dir, p, q.pushed[dir])
	q.copyLocked(dir, p[:n], now)
	for p = p[n:]; len(p) > 0; {
		keep, skip := q.follower.ways[dir].next(p)
		q.copyLocked(dir, p[:keep], now)
		if skip > 0 {
			q.gapLocked(dir, int64(skip), now, false)
		}
		p = p[keep+skip:]
	}
	return q.wakeLocked()
}

// copyLocked copies p.
func (q *queue) copyLocked(dir direction, p []byte, now time.Time) {
	for len(p) > 0 {
		p = p[q.appendLocked(dir, p, now):]
	}
}

// appendLocked copies the first bytes of p and returns how many.
func (q *queue) appendLocked(dir direction, p []byte, now time.Time) int {
	if t := q.tail; t != nil && t.dir == dir && t.data != nil && t.mark == nil && cap(t.data)-len(t.data) >= len(p) {
		t.data = append(t.data, p...)
		q.pushed[dir] += int64(len(p))
		return len(p)
	}
	n := min(len(p), largeChunk)
	c := borrowChunk(n)
	cost := c.cost()
	if q.bytes+cost > q.bound || q.all.Load()+int64(cost) > q.most {
		c.release()
		q.gapLocked(dir, int64(len(p)), now, false)
		return len(p)
	}
	c.dir, c.at = dir, now
	c.data = append(c.data, p[:n]...)
	q.linkLocked(c)
	q.pushed[dir] += int64(n)
	return n
}

// foreseeLocked takes off p, which is a part of answers, what is settled by foresight.
func (q *queue) foreseeLocked(p []byte, now time.Time) []byte {
	f := &q.foresight
	if n, ok := f.look(p, q.pushed[toVisitor], now); ok {
		q.copyLocked(toVisitor, p[:n], now)
		p = p[n:]
	}
	if skip := min(f.spared-q.pushed[toVisitor], int64(len(p))); skip > 0 {
		q.gapLocked(toVisitor, skip, now, true)
		p = p[skip:]
	}
	return p
}

// gapLocked notes bytes that were not copied. Gaps of both directions share a
// chunk, so that there are never more of them than chunks with bytes, plus one.
func (q *queue) gapLocked(dir direction, n int64, now time.Time, foreseen bool) {
	q.pushed[dir] += n
	if t := q.tail; t == nil || t.data != nil || t.mark != nil {
		q.linkLocked(&chunk{at: now, foreseen: foreseen})
	}
	q.tail.foreseen = q.tail.foreseen && foreseen
	q.tail.gap[dir] += n
}

func (q *queue) linkLocked(c *chunk) {
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
	cost := c.cost()
	q.bytes += cost
	q.all.Add(int64(cost))
}

// end notes how the connection ended.
func (q *queue) end(note func(*ends)) call {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	before := q.ends
	note(&q.ends)
	if q.ends == before {
		return call{}
	}
	q.ends.at = now
	return q.wakeLocked()
}

// sync queues a mark that is closed when all before it was parsed.
func (q *queue) sync() (mark chan struct{}, c call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	mark = make(chan struct{})
	q.linkLocked(&chunk{mark: mark})
	c = q.wakeLocked()
	c.hurry = true
	return mark, c
}

// wakeLocked asks for a worker, and for haste when there is not much room left.
func (q *queue) wakeLocked() call {
	c := call{add: !q.scheduled}
	q.scheduled = true
	if !q.hurried && (q.bytes > q.bound/4 || q.all.Load() > q.most/2) {
		q.hurried, c.hurry = true, true
	}
	return c
}

// take hands all chunks over. Their cost counts until taken is called with it.
func (q *queue) take() (*chunk, ends) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.head
	q.head, q.tail = nil, nil
	return c, q.ends
}

// taken settles what take handed over and was parsed, and reports whether there
// is more by now. If not, the next push wakes a worker.
func (q *queue) taken(cost int, seen ends) (more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= cost
	q.all.Add(-int64(cost))
	more = q.head != nil || q.ends != seen
	q.scheduled, q.hurried = more, false
	return more
}
