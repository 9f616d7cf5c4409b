package inspect

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// h2Stream is an exchange with the decoders of its bodies.
type h2Stream struct {
	exchange *exchange
	sinks    [2]sink
	unwanted [2]bool // the queue knows that no more of the body is kept
	headers  bool    // of the answer were read; what comes then are trailers
}

// headers takes a request's or an answer's head, or trailers.
func (c *h2Conn) headers(dir direction, id uint32, list fields, cut bool, at time.Time) {
	s := c.streams[id]
	pseudo := map[string]string{}
	for len(list) > 0 && strings.HasPrefix(list[0].Name, ":") {
		pseudo[list[0].Name] = list[0].Value
		list = list[1:]
	}
	switch {
	case s == nil && dir == toUpstream:
		c.request(id, pseudo, list, cut, at)
	case s == nil: // its stream is not followed
	case dir == toUpstream, s.headers:
		s.exchange.change(func() {
			if !s.exchange.gone {
				s.exchange.half(dir).trailers = list
			}
		})
		c.session.touch(s.exchange)
	default:
		c.answer(s, pseudo, list, cut, at)
	}
}

func (c *h2Conn) request(id uint32, pseudo map[string]string, list fields, cut bool, at time.Time) {
	if len(c.streams) >= maxH2Streams || id%2 == 0 {
		return
	}
	x := c.session.newExchange(at)
	x.method, x.target = pseudo[":method"], pseudo[":path"]
	if x.target == "" {
		x.target = pseudo[":authority"] // CONNECT
	}
	if host := pseudo[":authority"]; host != "" && list.find("Host") == "" {
		list = append(fields{{"host", host}}, list...)
	}
	m := &x.request
	m.proto, m.fields, m.cut = "HTTP/2.0", list, cut
	m.head = fmt.Sprintf("%s %s %s\r\n\r\n", x.method, x.target, m.proto)
	m.strings = stringBytes(list)
	s := &h2Stream{exchange: x}
	if strings.HasPrefix(list.find("Content-Type"), "application/grpc") {
		x.kind = KindGRPC
		s.sinks[toUpstream] = newGRPCCounter(x, toUpstream, list)
	}
	c.streams[id] = s
	c.session.touch(x)
}

func (c *h2Conn) answer(s *h2Stream, pseudo map[string]string, list fields, cut bool, at time.Time) {
	x := s.exchange
	status, err := strconv.Atoi(pseudo[":status"])
	if err != nil || status < 100 {
		return
	}
	c.session.touch(x)
	if status < 200 {
		x.addInterim(status)
		return
	}
	s.headers = true
	contentType := list.find("Content-Type")
	x.change(func() {
		x.state, x.status, x.reason = StateOpen, status, http.StatusText(status)
		m := &x.response
		m.began = at
		m.proto, m.fields, m.cut = "HTTP/2.0", list, cut
		m.head = fmt.Sprintf("%s %d\r\n\r\n", m.proto, status)
		m.strings = stringBytes(list)
		switch {
		case strings.HasPrefix(contentType, "application/grpc"):
			x.kind = KindGRPC
			s.sinks[toVisitor] = newGRPCCounter(x, toVisitor, list)
		case isType(contentType, "text/event-stream") && list.find("Content-Encoding") == "":
			x.kind = KindSSE
			s.sinks[toVisitor] = &eventReader{exchange: x, cfg: &c.session.insp.cfg}
		}
	})
}

// stringBytes is the memory of fields whose strings are their own.
func stringBytes(list fields) int {
	n := 0
	for _, f := range list {
		n += len(f.Name) + len(f.Value)
	}
	return n
}

// half ends one direction of a stream.
func (c *h2Conn) half(dir direction, id uint32, at time.Time) {
	s := c.streams[id]
	if s == nil {
		return
	}
	x := s.exchange
	both := false
	x.change(func() {
		m := x.half(dir)
		m.done, m.ended = true, at
		both = x.request.done && x.response.done
	})
	c.session.touch(x)
	if both {
		c.forget(id)
		c.session.complete(x, StateDone, at)
	}
}

// forget follows a stream no more.
func (c *h2Conn) forget(id uint32) {
	for dir, unwanted := range c.streams[id].unwanted {
		if unwanted {
			c.session.unwantStream(direction(dir), id, false)
		}
	}
	delete(c.streams, id)
}

// reset ends a stream early. After a whole answer it only says that the rest
// of the request is not wanted.
func (c *h2Conn) reset(id uint32, code uint32, at time.Time) {
	s := c.streams[id]
	if s == nil {
		return
	}
	x := s.exchange
	c.forget(id)
	state := StateFailed
	x.change(func() {
		if x.response.done {
			state = StateDone
		} else {
			x.err = fmt.Sprintf("the stream was reset (HTTP/2 error %d)", code)
			x.response.cut = true
		}
		x.request.cut = x.request.cut || !x.request.done
	})
	c.session.complete(x, state, at)
}
