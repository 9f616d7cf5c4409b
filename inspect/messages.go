package inspect

import (
	"time"
	"unicode/utf8"
)

// Message is a WebSocket message or a server-sent event.
type Message struct {
	Number    int64     `json:"number"` // from 1, in the order of their ends
	At        time.Time `json:"at"`
	Direction string    `json:"direction"` // to_upstream or to_visitor
	// Type is text, binary, close, ping, pong, an unknown opcode as "0x3",
	// or for events "event".
	Type string `json:"type"`
	// Name and ID are those of an event.
	Name string `json:"name,omitempty"`
	ID   string `json:"id,omitempty"`
	// Size is the payload's in bytes as sent; compressed, where it was.
	Size int64 `json:"size"`
	// Frames is how many frames carried it.
	Frames int `json:"frames,omitempty"`
	// Code is that of a close.
	Code int `json:"code,omitempty"`
	// Compressed tells that it was sent with permessage-deflate.
	Compressed bool `json:"compressed,omitempty"`
	// Text is the beginning of a text, decompressed; Data that of anything
	// else. Cut tells that there was more.
	Text string `json:"text,omitempty"`
	Data []byte `json:"data,omitempty"`
	Cut  bool   `json:"cut,omitempty"`
	// Note says why there is no content.
	Note string `json:"note,omitempty"`
}

const messageOverhead = 208

func (m *Message) memory() int {
	return messageOverhead + len(m.Name) + len(m.ID) + len(m.Text) + len(m.Data) + len(m.Note)
}

// messageLog keeps the newest messages of an exchange.
type messageLog struct {
	list  []Message
	count int64  // of all there ever were
	sum   int    // memory of those in list
	extra int    // memory of decoders that live as long as the exchange
	kept  [2]int // of it, by direction
	sent  [2]int64
}

func (l *messageLog) memory() int {
	return l.sum + l.extra + (cap(l.list)-len(l.list))*messageOverhead
}

// add appends a message and lets the oldest go. bytes bounds their memory.
func (l *messageLog) add(m Message, dir direction, most, bytes int) {
	l.count++
	l.sent[dir]++
	m.Number, m.Direction = l.count, dir.String()
	l.list = append(l.list, m)
	l.sum += m.memory()
	drop := 0
	for len(l.list)-drop > most || (l.sum > bytes && len(l.list)-drop > 1) {
		l.sum -= l.list[drop].memory()
		l.list[drop] = Message{}
		drop++
	}
	l.list = l.list[drop:]
}

// after copies the messages that came after the n-th.
func (l *messageLog) after(n int64) []Message {
	if len(l.list) == 0 || n >= l.count {
		return []Message{}
	}
	skip := max(0, n-(l.list[0].Number-1))
	return append([]Message{}, l.list[skip:]...)
}

// text cuts p to at most limit bytes, not inside of a character.
func text(p []byte, limit int) (s string, cut bool) {
	if len(p) <= limit {
		return string(p), false
	}
	return string(wholeRunes(p[:limit])), true
}

// wholeRunes takes half a character off the end of p.
func wholeRunes(p []byte) []byte {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if tail := p[len(p)-n:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return p[:len(p)-n]
			}
			break
		}
	}
	return p
}
