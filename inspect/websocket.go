package inspect

import (
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf8"
)

// frameReader follows the WebSocket frames of one direction (RFC 6455, 5.2)
// and lists messages: the frames of a fragmented one together, control frames
// by themselves.
type frameReader struct {
	exchange *exchange
	dir      direction
	cfg      *Config
	inflate  *inflater // nil: permessage-deflate was not negotiated

	header []byte // of the frame under way, until it is whole
	left   int64  // payload bytes of it that are to come
	mask   [4]byte
	masked bool
	passed int64 // payload bytes of it that came

	current *wsMessage // whose frame is under way
	data    wsMessage  // a data message, over its frames
	control wsMessage
	open    bool // data has begun
	final   bool // the frame is the last of its message
	at      time.Time
	broken  bool
}

type wsMessage struct {
	opcode     byte
	compressed bool
	size       int64
	frames     int
	payload    []byte
	cut        bool
}

// Opcodes of RFC 6455, 5.2.
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

func opcodeName(op byte) string {
	switch op {
	case opText:
		return "text"
	case opBinary:
		return "binary"
	case opClose:
		return "close"
	case opPing:
		return "ping"
	case opPong:
		return "pong"
	}
	return fmt.Sprintf("0x%x", op)
}

func newFrameReader(x *exchange, dir direction, cfg *Config, p deflateParams) *frameReader {
	f := &frameReader{exchange: x, dir: dir, cfg: cfg}
	if p.negotiated {
		f.inflate = &inflater{forget: p.forget[dir]}
	}
	return f
}

func (f *frameReader) write(p []byte, at time.Time) {
	f.at = at
	for len(p) > 0 && !f.broken {
		if f.current == nil {
			p = p[f.readHeader(p):]
			continue
		}
		n := int(min(f.left, int64(len(p))))
		f.payload(p[:n])
		p = p[n:]
		f.frameRead()
	}
}

// skip passes over bytes that were not seen. It reports false when they were
// more than payload: then it is not known where the next frame begins.
func (f *frameReader) skip(n int64) bool {
	if f.broken || f.current == nil || n > f.left {
		return f.broken
	}
	f.current.size += n
	f.current.cut = true
	f.passed += n
	f.left -= n
	f.frameRead()
	return true
}

// readHeader takes bytes of a frame's header and returns how many.
func (f *frameReader) readHeader(p []byte) int {
	n := 0
	for n < len(p) {
		f.header = append(f.header, p[n])
		n++
		if len(f.header) >= 2 && len(f.header) == headerSize(f.header[1]) {
			f.begin()
			f.header = f.header[:0]
			return n
		}
	}
	return n
}

// headerSize is that of a header whose second byte is b.
func headerSize(b byte) int {
	n := 2
	switch b & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if b&0x80 != 0 {
		n += 4
	}
	return n
}

func (f *frameReader) begin() {
	h := f.header
	f.left = int64(h[1] & 0x7f)
	rest := h[2:]
	switch f.left {
	case 126:
		f.left, rest = int64(binary.BigEndian.Uint16(rest)), rest[2:]
	case 127:
		length := binary.BigEndian.Uint64(rest)
		if length > 1<<62 {
			f.fail("a frame's length cannot be")
			return
		}
		f.left, rest = int64(length), rest[8:]
	}
	f.masked = h[1]&0x80 != 0
	copy(f.mask[:], rest)
	f.passed = 0
	f.final = h[0]&0x80 != 0

	opcode := h[0] & 0x0f
	if opcode >= opClose {
		f.control = wsMessage{opcode: opcode}
		f.current = &f.control
		if !f.final || f.left > 125 {
			f.fail("a control frame cannot be so")
			return
		}
	} else {
		if (opcode == opContinuation) != f.open {
			f.fail("a frame came out of turn")
			return
		}
		if !f.open {
			f.data = wsMessage{opcode: opcode, compressed: h[0]&0x40 != 0, payload: f.data.payload[:0]}
			f.open = true
		}
		f.current = &f.data
	}
	f.current.frames++
	f.frameRead()
}

func (f *frameReader) payload(p []byte) {
	m := f.current
	limit := f.cfg.MessageLimit
	if m.compressed {
		limit = f.cfg.BodyLimit // all of it is needed to inflate
	}
	if !m.cut {
		n := min(len(p), limit-len(m.payload))
		from := len(m.payload)
		m.payload = append(m.payload, p[:n]...)
		if f.masked {
			for i := range m.payload[from:] {
				m.payload[from+i] ^= f.mask[(f.passed+int64(i))&3]
			}
		}
		m.cut = n < len(p)
	}
	m.size += int64(len(p))
	f.passed += int64(len(p))
	f.left -= int64(len(p))
}

// frameRead ends the frame under way if all of it was read.
func (f *frameReader) frameRead() {
	if f.left > 0 || f.current == nil {
		return
	}
	m := f.current
	f.current = nil
	if !f.final {
		return
	}
	if m == &f.data {
		f.open = false
	}
	f.list(m)
	if cap(m.payload) > 2*f.cfg.MessageLimit {
		m.payload = nil
	}
}

func (f *frameReader) list(m *wsMessage) {
	out := Message{At: f.at, Type: opcodeName(m.opcode), Size: m.size, Frames: m.frames, Compressed: m.compressed, Cut: m.cut}
	content := m.payload
	switch {
	case m.compressed && f.inflate == nil:
		content, out.Note = nil, "compressed by an extension that is not known"
	case m.compressed:
		var err error
		content, out.Cut, err = f.inflate.message(m.payload, m.cut, f.cfg)
		if err != nil {
			content, out.Note = nil, err.Error()
		}
	}
	if m.opcode == opClose && len(content) >= 2 {
		out.Code = int(binary.BigEndian.Uint16(content))
		content = content[2:]
	}
	if out.Cut && m.opcode == opText {
		content = wholeRunes(content)
	}
	s, cut := text(content, f.cfg.MessageLimit)
	out.Cut = out.Cut || cut
	if m.opcode != opBinary && (utf8.ValidString(s) || m.opcode == opText) {
		out.Text = s
	} else {
		out.Data = append([]byte(nil), content[:min(len(content), f.cfg.MessageLimit)]...)
	}
	f.exchange.addMessage(out, f.dir, f.cfg)
	f.charge()
}

// charge has the exchange account for what this reader keeps.
func (f *frameReader) charge() {
	kept := cap(f.data.payload) + cap(f.control.payload)
	if f.inflate != nil {
		kept += cap(f.inflate.window)
	}
	x := f.exchange
	x.change(func() {
		x.log.extra += kept - x.log.kept[f.dir]
		x.log.kept[f.dir] = kept
	})
}

// fail stops listing: nothing that follows can be understood.
func (f *frameReader) fail(why string) {
	f.broken, f.current, f.inflate = true, nil, nil
	f.exchange.addMessage(Message{At: f.at, Type: "error", Note: why + "; what follows is not listed"}, f.dir, f.cfg)
}
