package inspect

import (
	"bytes"
	"time"
)

// eventReader lists server-sent events as they come, by the rules of the
// HTML standard (9.2.6, "Interpreting an event stream").
type eventReader struct {
	exchange *exchange
	cfg      *Config

	line    []byte // of the line under way, as far as it is kept
	dropped int64  // bytes of it that were not
	skipLF  bool   // a carriage return ended the line before
	started bool   // a byte order mark was looked for

	data  []byte // of the event under way, as far as it is kept
	lines int    // of data
	size  int64  // of all data lines
	cut   bool
	name  string
	id    string
}

// maxEventName bounds names and ids, which are short words.
const maxEventName = 256

func (e *eventReader) write(p []byte, at time.Time) {
	for len(p) > 0 {
		if e.skipLF {
			e.skipLF = false
			if p[0] == '\n' {
				p = p[1:]
				continue
			}
		}
		n := bytes.IndexAny(p, "\r\n")
		if n < 0 {
			e.keep(p)
			return
		}
		e.keep(p[:n])
		e.skipLF = p[n] == '\r'
		p = p[n+1:]
		e.endLine(at)
	}
}

func (e *eventReader) keep(p []byte) {
	n := min(len(p), e.cfg.MessageLimit+16-len(e.line)) // 16: the field's name
	e.line = append(e.line, p[:n]...)
	e.dropped += int64(len(p) - n)
}

func (e *eventReader) endLine(at time.Time) {
	line := e.line
	if !e.started {
		e.started = true
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
	}
	dropped := e.dropped
	e.line, e.dropped = e.line[:0], 0
	if len(line) == 0 {
		e.dispatch(at)
		return
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "data":
		if e.lines > 0 {
			e.data = append(e.data, '\n')
		}
		e.lines++
		e.size += int64(len(value)) + dropped
		n := max(0, min(len(value), e.cfg.MessageLimit-len(e.data)))
		e.data = append(e.data, value[:n]...)
		e.cut = e.cut || dropped > 0 || n < len(value)
		if len(e.data) > e.cfg.MessageLimit {
			e.data, e.cut = e.data[:e.cfg.MessageLimit], true
		}
	case "event":
		e.name, _ = text(value, maxEventName)
	case "id":
		e.id, _ = text(value, maxEventName)
	}
}

func (e *eventReader) dispatch(at time.Time) {
	if e.lines > 0 {
		m := Message{At: at, Type: "event", Name: e.name, ID: e.id, Size: e.size, Cut: e.cut}
		if m.Cut {
			e.data = wholeRunes(e.data)
		}
		m.Text = string(e.data)
		e.exchange.addMessage(m, toVisitor, e.cfg)
	}
	e.data, e.lines, e.size, e.cut, e.name = e.data[:0], 0, 0, false, ""
}

// addMessage lists a message, unless the exchange is kept no more.
func (x *exchange) addMessage(m Message, dir direction, cfg *Config) {
	x.change(func() {
		if !x.gone {
			x.log.add(m, dir, cfg.MaxMessages, messageBytes(cfg))
		}
	})
}

// messageBytes bounds the messages of one exchange: a busy one leaves most of
// the ring to others.
func messageBytes(cfg *Config) int { return int(cfg.MaxBytes / 8) }
