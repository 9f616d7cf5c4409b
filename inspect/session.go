package inspect

import (
	"math"
	"time"

	"github.com/wgexpose/wgexpose/meter"
)

// maxPending bounds requests of one connection that wait for their answers.
const maxPending = 100

// session parses what passed a tapped connection.
type session struct {
	queue
	insp   *Inspector
	origin *origin
	meter  *meter.Meter

	// The rest is for the worker that drains it.
	readers [2]reader
	h2      *h2Conn     // nil: it is HTTP/1.1
	chunk   *chunk      // that is parsed; nil where bytes are fed that lie elsewhere
	pending []*exchange // without a whole answer head, oldest first
	touched []*exchange
	now     time.Time // when what was parsed last had passed
	lost    bool      // bytes are missing; requests are waited for to begin anew
	dead    bool      // nothing is read any more
	ended   bool      // ends.closed was seen
	preset  uint64    // sequence number for the first exchange, of a replay
	replays uint64    // the exchange that is replayed
}

func (i *Inspector) newSession(m Meta, redial Redial) *session {
	s := &session{insp: i, meter: i.meters.of(m.Tunnel), origin: &origin{Meta: m, conn: i.conns.Add(1), redial: redial}}
	s.bound, s.all, s.most = i.cfg.QueueBytes, &i.queued, i.queueMax
	s.foresight.rush = &i.ring.rush
	s.readers[toUpstream].dir = toUpstream
	s.readers[toVisitor].dir = toVisitor
	return s
}

// replay has the first exchange be a replay of another. Somebody waits to look at
// it, so all of its bodies is kept, in a rush, too.
func (s *session) replay(sequence, of uint64) {
	s.preset, s.replays = sequence, of
	s.foresight.rush = nil
}

func (s *session) wake(c call) {
	if c.add {
		s.insp.work.add(s)
	}
	if c.hurry {
		s.insp.work.hurry()
	}
}

// drain parses what was queued and reports whether more has come since. One
// worker at a time calls it.
func (s *session) drain() (more bool) {
	list, ends := s.take()
	cost := 0
	for c := list; c != nil; {
		next := c.next
		c.next = nil // it may be held for long
		cost += c.cost()
		s.parse(c)
		c.release()
		c = next
	}
	s.finish(ends)
	s.flush()
	return s.taken(cost, ends)
}

func (s *session) parse(c *chunk) {
	switch {
	case c.mark != nil:
		s.flush()
		close(c.mark)
	case s.dead:
	case c.data != nil:
		s.now = c.at
		if s.lost {
			s.resume(c.dir, c.data)
		}
		s.chunk = c
		s.feed(c.dir, c.data, c.at)
		s.chunk = nil
	default:
		s.now = c.at
		for dir, n := range c.gap {
			if n > 0 {
				s.skip(direction(dir), n, c.at, c.foreseen)
			}
		}
	}
}

func (s *session) feed(dir direction, p []byte, at time.Time) {
	r := &s.readers[dir]
	for len(p) > 0 {
		n := s.step(r, p, at)
		r.offset += int64(n)
		p = p[n:]
	}
	s.unwant(r)
	s.tellHead(r)
}

// tellHead tells the queue's foresight where an answer begins.
func (s *session) tellHead(r *reader) {
	if r.dir == toVisitor && r.phase == inHead && len(r.carry) == 0 {
		s.foresight.head.Store(r.offset)
	}
}

// unwant tells the queue up to where no bytes are needed.
func (s *session) unwant(r *reader) {
	if r.phase == inFrames && r.exchange.isGone() {
		r.phase, r.frames = inRaw, nil // nobody can look at it any more
	}
	var n int64
	switch r.phase {
	case inBody, inChunk:
		n = r.left
	case inTail:
		n = math.MaxInt64 / 2
	case inRaw:
		n = math.MaxInt64 / 2
	default:
		return
	}
	if r.phase != inRaw && (r.sink != nil || !r.exchange.full(r.dir)) {
		return
	}
	s.unwanted[r.dir].Store(r.offset + n)
}

// skip passes over bytes that were not copied.
func (s *session) skip(dir direction, n int64, at time.Time, foreseen bool) {
	r := &s.readers[dir]
	defer func() {
		r.offset += n
		s.tellHead(r)
	}()
	switch {
	case s.lost:
	case r.phase == inRaw:
		r.exchange.pass(dir, n)
		s.touch(r.exchange)
	case r.phase == inTail && r.sink == nil:
		r.exchange.miss(dir, n)
		s.touch(r.exchange)
	case (r.phase == inBody || r.phase == inChunk) && r.sink == nil && n <= r.left:
		if foreseen {
			r.exchange.shorten(dir)
		}
		r.exchange.miss(dir, n)
		s.touch(r.exchange)
		r.left -= n
		if r.left == 0 {
			s.bodyRead(r, at)
		}
	case r.phase == inHTTP2 && s.h2.skip(dir, n, at):
	case r.phase == inFrames && r.frames.skip(n):
		r.exchange.pass(dir, n)
		s.touch(r.exchange)
	default:
		s.lose("too much came at once to read along; bytes are missing", at)
	}
}

// lose gives up on all exchanges under way: it is not known any more where
// the next begins.
func (s *session) lose(why string, at time.Time) {
	upgraded := false
	for _, x := range s.open() {
		x.change(func() {
			x.err = why
			if !x.response.done {
				x.response.cut = true
			}
			if !x.request.done {
				x.request.cut = true
			}
			upgraded = upgraded || x.upgrade != ""
		})
		s.complete(x, StateFailed, at)
	}
	s.pending = nil
	s.lost = true
	// Neither frames nor compressed headers can be found again.
	s.dead = s.dead || upgraded || s.h2 != nil
	s.h2 = nil
	for i := range s.readers {
		r := &s.readers[i]
		*r = reader{dir: r.dir, offset: r.offset, phase: isLost}
		if s.dead {
			s.unwanted[i].Store(math.MaxInt64)
		} else {
			s.unwanted[i].Store(0)
		}
	}
}

// resume looks whether p, which begins with a write, begins an exchange that
// can be read. Proxies pool connections, so one loss must not blind for ever.
func (s *session) resume(dir direction, p []byte) {
	r := &s.readers[dir]
	if r.phase != isLost {
		return
	}
	end := headEnd(p, 0)
	if end < 0 {
		return
	}
	line, _ := cutLine(string(p[:end]))
	var err error
	if dir == toUpstream {
		_, _, _, err = requestLine(line)
	} else {
		if len(s.pending) == 0 {
			return
		}
		_, _, _, err = statusLine(line)
	}
	if err != nil {
		return
	}
	r.phase = inHead
	s.lost = s.readers[toVisitor].phase == isLost || s.readers[toUpstream].phase == isLost
}

// open lists the exchanges under way.
func (s *session) open() []*exchange {
	list := append([]*exchange(nil), s.pending...)
	if s.h2 != nil {
		for _, stream := range s.h2.streams {
			list = append(list, stream.exchange)
		}
	}
	for i := range s.readers {
		x := s.readers[i].exchange
		if x == nil {
			continue
		}
		known := false
		for _, other := range list {
			known = known || other == x
		}
		if !known {
			list = append(list, x)
		}
	}
	return list
}

// beginHTTP2 reads both directions as HTTP/2 from here on.
func (s *session) beginHTTP2() {
	s.h2 = newH2Conn(s)
	for i := range s.readers {
		s.readers[i].phase = inHTTP2
	}
}

// newExchange makes an exchange with the first bytes of its request.
func (s *session) newExchange(at time.Time) *exchange {
	x := &exchange{origin: s.origin, kind: KindHTTP, state: StateWaiting, replayOf: s.replays}
	x.sequence, s.preset = s.preset, 0
	if x.sequence == 0 {
		x.sequence = s.insp.nextID()
	}
	x.request.began = at
	x.request.limit = s.insp.ring.rush.limit(at)
	if s.replays != 0 {
		x.request.limit = bodyLimit{bytes: s.insp.cfg.BodyLimit}
	}
	x.response.limit = x.request.limit
	return x
}

// opaque makes an exchange of bytes that are no HTTP.
func (s *session) opaque(p []byte, why error, at time.Time) {
	x := s.newExchange(at)
	x.change(func() {
		x.kind = KindOpaque
		x.request.size = int64(len(p))
		x.request.body.add(p[:min(len(p), 1<<10)], nil, 0)
		x.request.cut = true
	})
	s.pending = append(s.pending, x)
	s.lose(why.Error(), at)
}

func (s *session) touch(x *exchange) {
	if !x.touched {
		x.touched = true
		s.touched = append(s.touched, x)
	}
}

// flush makes what was parsed visible.
func (s *session) flush() {
	for i, x := range s.touched {
		x.touched = false
		s.touched[i] = nil
		if s.insp.ring.update(x, s.now) {
			s.insp.watchers.changed(x.sequence)
		}
	}
	s.touched = s.touched[:0]
}

// complete ends an exchange. Only its first end counts.
func (s *session) complete(x *exchange, state State, at time.Time) {
	s.touch(x)
	var took time.Duration
	first := false
	x.change(func() {
		if !x.ended.IsZero() {
			return
		}
		first = true
		x.state, x.ended = state, at
		took = at.Sub(x.request.began)
		for _, m := range []*message{&x.request, &x.response} {
			if m.done && m.ended.IsZero() {
				m.ended = at
			}
		}
	})
	if first {
		s.meter.Add(at, took)
	}
}

// finish acts on how the connection ended, after all that came before was
// parsed.
func (s *session) finish(e ends) {
	if s.ended || (!e.answers && !e.closed) {
		return
	}
	down := &s.readers[toVisitor]
	if down.phase == inTail && e.answers && !e.reset {
		s.bodyRead(down, e.at)
	}
	if up := &s.readers[toUpstream]; up.phase == inHead && len(up.carry) > 0 {
		s.opaque(up.carry, errHeadEnd, up.began)
	}
	for _, x := range s.open() {
		s.cutOff(x, e)
	}
	s.pending = nil
	if s.h2 != nil {
		clear(s.h2.streams)
	}
	s.ended = e.closed
	if e.closed {
		s.dead = true
		for i := range s.readers {
			s.readers[i] = reader{dir: direction(i), phase: isLost}
		}
	}
}

// cutOff ends an exchange with its connection.
func (s *session) cutOff(x *exchange, e ends) {
	state := StateFailed
	x.change(func() {
		switch {
		case x.upgrade != "" && !e.reset:
			state = StateDone // the only end there is
		case x.err != "":
		case x.response.done:
			x.err = "the answer was complete before the request was"
		case e.reset:
			x.err = "the upstream reset the connection"
		case e.answers && x.response.head == "":
			x.err = "the upstream closed the connection without an answer"
		case e.answers:
			x.err = "the upstream closed the connection in the middle of the answer"
		case x.response.head == "":
			x.err = "the connection was closed before there was an answer"
		default:
			x.err = "the connection was closed in the middle of the answer"
		}
		if !x.request.done {
			x.request.cut = true
		}
		if state == StateFailed && !x.response.done {
			x.response.cut = true
		}
	})
	s.complete(x, state, e.at)
}
