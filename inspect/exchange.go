package inspect

import (
	"strings"
	"sync"
	"time"
)

// Kind says what the answer turned out to be.
type Kind string

// Kinds of exchanges.
const (
	KindHTTP      Kind = "http"
	KindSSE       Kind = "sse"       // server-sent events
	KindWebSocket Kind = "websocket" // frames are listed
	KindUpgrade   Kind = "upgrade"   // another protocol took over; bytes are counted
	KindGRPC      Kind = "grpc"      // gRPC or gRPC-Web; messages are counted
	KindOpaque    Kind = "opaque"    // it could not be read as HTTP/1.1
)

// State says how far an exchange has come.
type State string

// States of exchanges.
const (
	StateWaiting State = "waiting" // for the answer's head
	StateOpen    State = "open"    // the answer has begun
	StateDone    State = "done"
	StateFailed  State = "failed" // it ended early, see Error
)

// Field is a header or trailer line.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// fields is a head in its order.
type fields []Field

// find is the first value of a field, or "". name is in any case.
func (f fields) find(name string) string {
	for i := range f {
		if strings.EqualFold(f[i].Name, name) {
			return f[i].Value
		}
	}
	return ""
}

// has tells whether a list-valued field contains a token, in any case.
func (f fields) has(name, token string) bool {
	for i := range f {
		if !strings.EqualFold(f[i].Name, name) {
			continue
		}
		for part := range strings.SplitSeq(f[i].Value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

func (f fields) size() int {
	const field = 32 // two strings
	return cap(f) * field
}

// message is one half of an exchange. Its strings share the head's memory.
type message struct {
	proto    string
	head     string // as on the wire, blank line included; of HTTP/2 the first line alone
	strings  int    // memory of fields that do not share head's
	fields   fields
	trailers fields
	body     kept      // the first bytes, without chunked framing
	limit    bodyLimit // settled when the exchange begins
	size     int64     // bytes of the body so far
	cut      bool      // body lacks bytes of the body so far
	missed   bool      // because they passed uncopied though they were wanted
	done     bool
	began    time.Time // first byte
	ended    time.Time // last byte; zero until done
	messages int       // of gRPC
}

func (m *message) memory() int {
	n := len(m.head) + m.strings + m.fields.size() + m.trailers.size() + m.body.memory
	for _, t := range m.trailers {
		n += len(t.Name) + len(t.Value)
	}
	return n
}

// spared is how many bytes more would be kept, had the body not come in a rush. most
// is how many are kept otherwise.
func (m *message) spared(most int) int {
	if !m.limit.rush {
		return 0
	}
	return int(min(m.size, int64(most))) - m.body.size
}

// cutWhy says in words why body has not all bytes of the body so far, as far as that
// is up to the inspector.
func (m *message) cutWhy() string {
	switch {
	case m.missed:
		return "more came at once than could be read along"
	case m.limit.bytes == 0 || m.body.size < m.limit.bytes || m.size <= int64(m.body.size):
		return ""
	case m.limit.rush:
		return rushWhy
	}
	return "no more than that is kept of any body"
}

// exchangeOverhead is what an exchange costs beside heads, bodies and
// messages: the struct and its places in the ring.
const exchangeOverhead = 1200

// origin is what the exchanges of a connection share.
type origin struct {
	Meta
	conn   uint64
	redial Redial
}

// exchange is a request and its answer. The worker that parses its connection
// changes it, others read it, all under mu.
type exchange struct {
	*origin
	sequence uint64
	replayOf uint64 // 0: it came from a visitor

	mu       sync.Mutex // guards what follows
	kind     Kind
	state    State
	err      string
	method   string
	target   string
	status   int
	reason   string
	upgrade  string // the protocol that took over
	interim  []int  // 1xx answers, the first ones
	request  message
	response message
	log      messageLog // of WebSocket messages or events
	ended    time.Time
	gone     bool // the ring holds it no more, and nothing is added

	// For the worker alone.
	touched      bool
	wantsUpgrade bool
	answered     bool // the final answer's head was read

	charged int // guarded by ring.mu: bytes that the ring counts for it
	noted   int // guarded by ring.mu: bytes that the rush counted for it
}

// memory is called with mu held.
func (x *exchange) memory() int {
	return exchangeOverhead + x.request.memory() + x.response.memory() + x.log.memory() + len(x.err) + cap(x.interim)*8
}

// drop frees what the exchange holds.
func (x *exchange) drop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone = true
	x.request.body.drop()
	x.response.body.drop()
	x.request.head, x.response.head = "", ""
	x.request.fields, x.response.fields = nil, nil
	x.request.trailers, x.response.trailers = nil, nil
	x.log = messageLog{}
}

// addInterim notes a 1xx answer.
func (x *exchange) addInterim(status int) {
	x.change(func() {
		if len(x.interim) < 16 {
			x.interim = append(x.interim, status)
		}
	})
}

// half is the message of a direction.
func (x *exchange) half(dir direction) *message {
	if dir == toUpstream {
		return &x.request
	}
	return &x.response
}

// capture adds bytes to a body, as far as they are kept. They lie in c, unless that
// is nil. expect is how many of the body are known to come, p included; 0 where that
// is not known.
func (x *exchange) capture(dir direction, p []byte, c *chunk, expect int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.half(dir)
	m.size += int64(len(p))
	if x.gone {
		m.cut = true
		return
	}
	if !m.cut { // else there is a hole, and what comes after it is of no use
		room := m.limit.bytes - m.body.size
		n := min(len(p), room)
		m.body.add(p[:n], c, max(0, min(expect, int64(room))-int64(n)))
		m.cut = n < len(p)
	}
}

// full tells whether no more bytes of a body would be kept.
func (x *exchange) full(dir direction) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.half(dir)
	return x.gone || m.cut || m.body.size >= m.limit.bytes
}

// isGone tells whether the ring holds it no more.
func (x *exchange) isGone() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.gone
}

// shorten has the limit of a rush hold for a body that began before it.
func (x *exchange) shorten(dir direction) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.half(dir)
	m.limit = bodyLimit{min(m.limit.bytes, m.body.size), true}
}

// miss counts bytes of a body that were not seen.
func (x *exchange) miss(dir direction, n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.half(dir)
	m.size += n
	m.missed = m.missed || (!m.cut && m.body.size < m.limit.bytes)
	m.cut = true
}

// pass counts bytes after an upgrade, which are no body.
func (x *exchange) pass(dir direction, n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.half(dir).size += n
}

// change runs fn with mu held.
func (x *exchange) change(fn func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	fn()
}
