package inspect

import (
	"bytes"
	"strings"
	"time"
)

// phase is what a reader expects next.
type phase int

const (
	inHead      phase = iota // a request line or status line, and fields
	inBody                   // left bytes
	inChunkSize              // the line before a chunk
	inChunk                  // left bytes
	inChunkEnd               // the line ending behind a chunk
	inTrailer                // lines, then a blank one
	inTail                   // a body up to the end of the connection
	isHeld                   // a request asked for an upgrade: the answer decides
	inFrames                 // WebSocket
	inRaw                    // another protocol
	inHTTP2
	isLost // unknown
)

// sink takes a body as it comes.
type sink interface {
	write(p []byte, at time.Time)
}

// reader follows one direction of a connection.
type reader struct {
	dir      direction
	phase    phase
	offset   int64     // of the next byte, in the connection
	carry    []byte    // the beginning of a head or line
	scanned  int       // bytes of carry in which no end was found
	began    time.Time // of what is in carry
	left     int64
	exchange *exchange // being read; nil between two
	sink     sink
	frames   *frameReader
}

// step takes bytes off the beginning of p, at least one, and returns how many.
func (s *session) step(r *reader, p []byte, at time.Time) int {
	switch r.phase {
	case inHead:
		return s.stepHead(r, p, at)
	case inBody, inChunk:
		n := int(min(int64(len(p)), r.left))
		s.body(r, p[:n], at)
		r.left -= int64(n)
		if r.left == 0 {
			s.bodyRead(r, at)
		}
		return n
	case inTail:
		s.body(r, p, at)
	case inChunkSize, inChunkEnd, inTrailer:
		return s.stepLine(r, p, at)
	case isHeld:
		if len(r.carry)+len(p) > s.insp.cfg.HeadLimit {
			s.lose("too much came while an upgrade was undecided", at)
			return len(p)
		}
		r.carry = append(r.carry, p...)
		r.offset -= int64(len(p)) // it comes again
	case inFrames:
		r.exchange.pass(r.dir, int64(len(p)))
		r.frames.write(p, at)
		s.touch(r.exchange)
	case inHTTP2:
		if err := s.h2.write(r.dir, p, at); err != nil {
			s.lose(err.Error(), at)
		}
	case inRaw:
		r.exchange.pass(r.dir, int64(len(p)))
		s.touch(r.exchange)
	}
	return len(p)
}

func (s *session) stepHead(r *reader, p []byte, at time.Time) int {
	if len(r.carry) == 0 {
		if p[0] == '\n' || p[0] == '\r' {
			return 1 // RFC 9112, 2.2
		}
		r.began = at
		// Nobody else may speak first, or HTTP/1.1 it is not.
		if r.dir == toVisitor && len(s.pending) == 0 {
			s.lose("an answer came without a request", at)
			return len(p)
		}
	}
	limit := s.insp.cfg.HeadLimit
	if len(r.carry) == 0 {
		if end := headEnd(p[:min(len(p), limit)], 0); end >= 0 {
			s.head(r, p[:end], at)
			return end
		}
	}
	before := len(r.carry)
	n := min(len(p), limit-before)
	r.carry = append(r.carry, p[:n]...)
	if end := headEnd(r.carry, r.scanned); end >= 0 {
		head := r.carry[:end]
		r.carry, r.scanned = nil, 0
		s.head(r, head, at)
		return end - before
	}
	r.scanned = max(0, len(r.carry)-3)
	// What is no HTTP is told from its first line, which may be all there is.
	if line := bytes.IndexByte(r.carry, '\n'); line >= 0 && before <= line && r.dir == toUpstream {
		if _, _, _, err := requestLine(strings.TrimSuffix(string(r.carry[:line]), "\r")); err != nil {
			s.opaque(r.carry, err, r.began)
			return len(p)
		}
	}
	if len(r.carry) == limit {
		if r.dir == toUpstream {
			s.opaque(r.carry, errHeadLimit, r.began)
		} else {
			s.lose(errHeadLimit.Error(), at)
		}
		return len(p)
	}
	return n
}

func (s *session) head(r *reader, p []byte, at time.Time) {
	var err error
	if r.dir == toUpstream {
		err = s.requestHead(r, string(p), at)
	} else {
		err = s.responseHead(r, string(p), at)
	}
	switch {
	case err == nil:
	case r.dir == toUpstream:
		s.opaque(p, err, r.began)
	default:
		s.lose(err.Error(), at)
	}
}

func (s *session) requestHead(r *reader, head string, at time.Time) error {
	line, rest := cutLine(head)
	method, target, proto, err := requestLine(line)
	if err != nil {
		return err
	}
	if line == h2Preface {
		if len(s.open()) > 0 || rest != "\r\n" {
			return errNotHTTP
		}
		s.beginHTTP2()
		return nil
	}
	list, err := parseFields(rest)
	if err != nil {
		return err
	}
	how, length, err := list.bodyFraming(toUpstream)
	if err != nil {
		return err
	}
	if len(s.pending) == maxPending {
		s.lose("too many requests wait for their answers", at)
		return nil
	}
	x := s.newExchange(r.began)
	x.method, x.target = method, target
	x.request.proto, x.request.head, x.request.fields = proto, head, list
	x.wantsUpgrade = method == "CONNECT" || list.has("Connection", "upgrade")
	if strings.HasPrefix(list.find("Content-Type"), "application/grpc") {
		x.kind = KindGRPC
		r.sink = newGRPCCounter(x, toUpstream, list)
	}
	s.pending = append(s.pending, x)
	r.exchange = x
	s.touch(x)
	s.beginBody(r, how, length, at)
	return nil
}

func (s *session) responseHead(r *reader, head string, at time.Time) error {
	line, rest := cutLine(head)
	proto, status, reason, err := statusLine(line)
	if err != nil {
		return err
	}
	list, err := parseFields(rest)
	if err != nil {
		return err
	}
	x := s.pending[0]
	s.touch(x)
	if status < 200 && status != 101 {
		x.addInterim(status)
		return nil
	}
	how, length, err := list.bodyFraming(toVisitor)
	if err != nil {
		return err
	}
	x.answered = true
	upgraded := x.wantsUpgrade && (status == 101 || (x.method == "CONNECT" && status/100 == 2))
	if x.method == "HEAD" || status == 101 || status == 204 || status == 304 || upgraded {
		how, length = framedByLength, 0
	}
	contentType := list.find("Content-Type")
	x.change(func() {
		x.state, x.status, x.reason = StateOpen, status, reason
		x.response.began = r.began
		x.response.proto, x.response.head, x.response.fields = proto, head, list
		switch {
		case upgraded:
			x.kind, x.upgrade = KindUpgrade, list.find("Upgrade")
			if x.upgrade == "" {
				x.upgrade = "CONNECT"
			}
			if strings.EqualFold(x.upgrade, "websocket") {
				x.kind = KindWebSocket
			}
		case isType(contentType, "text/event-stream") && list.find("Content-Encoding") == "":
			x.kind = KindSSE
		case strings.HasPrefix(contentType, "application/grpc"):
			x.kind = KindGRPC
		}
	})
	r.exchange = x
	s.pending = s.pending[1:]
	switch {
	case upgraded:
		s.upgraded(x, at)
		return nil
	case x.kind == KindSSE:
		r.sink = &eventReader{exchange: x, cfg: &s.insp.cfg}
	case strings.HasPrefix(contentType, "application/grpc"):
		r.sink = newGRPCCounter(x, toVisitor, list)
	}
	s.beginBody(r, how, length, at)
	if up := &s.readers[toUpstream]; up.phase == isHeld && up.exchange == x {
		s.release(up, inHead, at)
	}
	return nil
}

// release lets requests go on that were held until an answer decided.
func (s *session) release(up *reader, next phase, at time.Time) {
	held := up.carry
	up.phase, up.carry = next, nil
	if next == inHead {
		up.exchange = nil
	}
	answer := s.chunk
	s.chunk = nil
	s.feed(toUpstream, held, at)
	s.chunk = answer
}

// upgraded turns both directions over to the new protocol.
func (s *session) upgraded(x *exchange, at time.Time) {
	up, down := &s.readers[toUpstream], &s.readers[toVisitor]
	next := inRaw
	if x.kind == KindWebSocket {
		next = inFrames
		params := parseDeflateParams(x.response.fields)
		up.frames = newFrameReader(x, toUpstream, &s.insp.cfg, params)
		down.frames = newFrameReader(x, toVisitor, &s.insp.cfg, params)
	}
	x.change(func() { x.response.done, x.response.ended = true, at })
	down.phase = next
	switch {
	case up.phase == isHeld && up.exchange == x:
		s.release(up, next, at)
	case up.exchange == x: // the request's body is still under way, see bodyRead
	default:
		// It asked for no upgrade that was understood as one.
		s.lose("an upgrade was answered that was not asked for", at)
	}
}

func (s *session) beginBody(r *reader, how framing, length int64, at time.Time) {
	switch {
	case how == framedByChunks:
		r.phase = inChunkSize
	case how == framedByClose:
		r.phase = inTail
	case length == 0:
		s.messageRead(r, at)
	default:
		r.phase, r.left = inBody, length
	}
}

// body takes bytes of a body.
func (s *session) body(r *reader, p []byte, at time.Time) {
	expect := int64(0)
	if r.phase == inBody {
		expect = r.left
	}
	r.exchange.capture(r.dir, p, s.chunk, expect)
	if r.sink != nil {
		r.sink.write(p, at)
	}
	s.touch(r.exchange)
}

// bodyRead ends a body or a chunk of one.
func (s *session) bodyRead(r *reader, at time.Time) {
	if r.phase == inChunk {
		r.phase = inChunkEnd
		return
	}
	s.messageRead(r, at)
}

// messageRead ends a request or an answer.
func (s *session) messageRead(r *reader, at time.Time) {
	x := r.exchange
	both := false
	x.change(func() {
		m := x.half(r.dir)
		m.done, m.ended = true, at
		both = x.request.done && x.response.done && x.upgrade == ""
	})
	s.touch(x)
	r.sink = nil
	r.phase, r.exchange = inHead, nil
	switch {
	case r.dir == toVisitor:
	case x.upgrade != "": // answered before its body had come
		r.exchange, r.phase = x, s.readers[toVisitor].phase
	case x.wantsUpgrade && !x.answered:
		r.exchange, r.phase = x, isHeld
	}
	if both {
		s.complete(x, StateDone, at)
	}
}

// isType tells whether a Content-Type is of a media type, whatever parameters
// it has.
func isType(contentType, media string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(t), media)
}
