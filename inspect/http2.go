package inspect

import (
	"encoding/binary"
	"time"

	"golang.org/x/net/http2/hpack"
)

// h2Frame types and flags of RFC 9113, 6.
const (
	h2Data         = 0
	h2Headers      = 1
	h2Reset        = 3
	h2PushPromise  = 5
	h2Continuation = 9

	h2EndStream  = 0x01
	h2EndHeaders = 0x04
	h2Padded     = 0x08
	h2Priority   = 0x20

	h2HeaderSize = 9
)

const (
	// maxH2Streams bounds the streams of a connection that are followed.
	maxH2Streams = 256
	// maxH2Table bounds the header compression's memory, 4 KiB unless a
	// side asks for more (RFC 9113, 6.5.2).
	maxH2Table = 64 << 10
)

// h2Conn follows HTTP/2 with prior knowledge, which is what gRPC needs.
type h2Conn struct {
	session *session
	streams map[uint32]*h2Stream
	readers [2]h2Reader
}

// h2Reader follows the frames of one direction.
type h2Reader struct {
	table   *hpack.Decoder
	preface int    // bytes of it that are to come
	header  []byte // of the frame under way, until it is whole
	kind    byte
	flags   byte
	stream  uint32
	left    int64 // payload bytes that are to come
	pad     int64 // the last of them are padding
	data    bool  // they are DATA, and the padding's length was read
	payload []byte
	block   []byte // header block over its frames
	opener  byte   // the frame that began it
	ends    bool   // that frame ends its stream
}

// h2PrefaceRest is what follows the blank line of "PRI * HTTP/2.0".
const h2PrefaceRest = "SM\r\n\r\n"

func newH2Conn(s *session) *h2Conn {
	c := &h2Conn{session: s, streams: map[uint32]*h2Stream{}}
	for i := range c.readers {
		d := hpack.NewDecoder(4096, nil)
		d.SetAllowedMaxDynamicTableSize(maxH2Table)
		d.SetMaxStringLength(s.insp.cfg.HeadLimit)
		c.readers[i].table = d
	}
	c.readers[toUpstream].preface = len(h2PrefaceRest)
	return c
}

// write takes bytes of a direction. An error means that nothing that follows
// can be understood: the header compression has a memory.
func (c *h2Conn) write(dir direction, p []byte, at time.Time) error {
	r := &c.readers[dir]
	for len(p) > 0 {
		switch {
		case r.preface > 0:
			n := min(r.preface, len(p))
			r.preface -= n
			p = p[n:]
			continue
		case len(r.header) < h2HeaderSize:
			n := min(h2HeaderSize-len(r.header), len(p))
			r.header = append(r.header, p[:n]...)
			p = p[n:]
			if len(r.header) < h2HeaderSize {
				return nil
			}
			if err := c.begin(r); err != nil {
				return err
			}
		default:
			n := int(min(r.left, int64(len(p))))
			if err := c.payload(dir, r, p[:n], at); err != nil {
				return err
			}
			p = p[n:]
		}
		if r.left == 0 && len(r.header) == h2HeaderSize {
			if err := c.end(dir, r, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// skip passes over bytes that were not seen, within a frame of DATA.
func (c *h2Conn) skip(dir direction, n int64, at time.Time) bool {
	r := &c.readers[dir]
	if !r.data || n > r.left {
		return false
	}
	if s := c.streams[r.stream]; s != nil {
		s.exchange.miss(dir, min(n, max(0, r.left-r.pad)))
		s.sinks[dir] = nil // it has lost its place
		c.session.touch(s.exchange)
	}
	r.left -= n
	return r.left > 0 || c.end(dir, r, at) == nil
}

func (c *h2Conn) begin(r *h2Reader) error {
	h := r.header
	r.left = h2Length(h)
	r.kind, r.flags = h[3], h[4]
	r.stream = h2StreamID(h[5:])
	r.payload, r.pad = r.payload[:0], 0
	r.data = r.kind == h2Data && r.flags&h2Padded == 0
	if (r.kind == h2Continuation) != (r.opener != 0) {
		return errH2
	}
	return nil
}

// payload takes bytes of the frame under way.
func (c *h2Conn) payload(dir direction, r *h2Reader, p []byte, at time.Time) error {
	r.left -= int64(len(p))
	switch {
	case r.data:
		body := p
		if over := r.pad - r.left; over > 0 {
			body = p[:max(0, int64(len(p))-over)]
		}
		c.body(dir, r.stream, body, at)
	case r.kind == h2Data: // the padding's length comes first
		r.pad, r.data = int64(p[0]), true
		r.left += int64(len(p)) - 1
		if r.pad > r.left {
			return errH2
		}
		if len(p) > 1 {
			return c.payload(dir, r, p[1:], at)
		}
	case r.kind == h2Headers, r.kind == h2Continuation, r.kind == h2PushPromise, r.kind == h2Reset:
		if len(r.payload)+len(p)+len(r.block) > c.session.insp.cfg.HeadLimit {
			return errHeadLimit
		}
		r.payload = append(r.payload, p...)
	}
	return nil
}

func (c *h2Conn) body(dir direction, id uint32, p []byte, at time.Time) {
	s := c.streams[id]
	if s == nil {
		return
	}
	s.exchange.capture(dir, p, c.session.chunk, 0)
	if sink := s.sinks[dir]; sink != nil {
		sink.write(p, at)
	} else if !s.unwanted[dir] && s.exchange.full(dir) {
		s.unwanted[dir] = true
		c.session.unwantStream(dir, id, true)
	}
	c.session.touch(s.exchange)
}

// end acts on a frame that was read.
func (c *h2Conn) end(dir direction, r *h2Reader, at time.Time) error {
	r.header = r.header[:0]
	wasData := r.kind == h2Data
	r.data = false
	switch r.kind {
	case h2Headers, h2PushPromise:
		block, err := stripHeaders(r.kind, r.flags, r.payload)
		if err != nil {
			return err
		}
		r.block = append(r.block[:0], block...)
		r.opener, r.ends = r.kind, r.flags&h2EndStream != 0 && r.kind == h2Headers
	case h2Continuation:
		r.block = append(r.block, r.payload...)
	case h2Reset:
		if len(r.payload) == 4 {
			c.reset(r.stream, binary.BigEndian.Uint32(r.payload), at)
		}
		return nil
	default:
		if wasData && r.flags&h2EndStream != 0 {
			c.half(dir, r.stream, at)
		}
		return nil
	}
	if r.flags&h2EndHeaders == 0 {
		return nil
	}
	opener := r.opener
	r.opener = 0
	list, cut, err := c.decode(r)
	r.block = nil
	if err != nil {
		return err
	}
	if opener == h2PushPromise { // its table was kept up; nobody sends these any more
		return nil
	}
	c.headers(dir, r.stream, list, cut, at)
	if r.ends {
		c.half(dir, r.stream, at)
	}
	return nil
}

// stripHeaders takes padding, priority and a promised stream's number off.
func stripHeaders(kind, flags byte, p []byte) ([]byte, error) {
	pad, skip := 0, 0
	if flags&h2Padded != 0 {
		if len(p) == 0 {
			return nil, errH2
		}
		pad, skip = int(p[0]), 1
	}
	switch {
	case kind == h2PushPromise:
		skip += 4
	case flags&h2Priority != 0:
		skip += 5
	}
	if skip+pad > len(p) {
		return nil, errH2
	}
	return p[skip : len(p)-pad], nil
}

// decode decompresses a header block. A few bytes can stand for many, so what
// comes out is bounded too; cut tells that there was more.
func (c *h2Conn) decode(r *h2Reader) (list fields, cut bool, err error) {
	size, limit := 0, c.session.insp.cfg.HeadLimit
	r.table.SetEmitEnabled(true)
	r.table.SetEmitFunc(func(f hpack.HeaderField) {
		size += int(f.Size())
		if size > limit || len(list) == maxFields {
			cut = true
			r.table.SetEmitEnabled(false)
			return
		}
		list = append(list, Field{f.Name, f.Value})
	})
	if _, err := r.table.Write(r.block); err != nil {
		return nil, false, errH2
	}
	if err := r.table.Close(); err != nil {
		return nil, false, errH2
	}
	return list, cut, nil
}
