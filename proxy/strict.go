package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"strings"
)

// strictConn is a visitor's HTTP/1.x connection as net/http's server reads it.
// Requests whose framing two programs may read in two ways end there with 400:
// net/http takes some of them for good (both lengths, bare line feeds, folded
// lines), cleans them and passes them on, and what an upstream, or a proxy in
// front of the edge, makes of the rest of the connection is what request
// smuggling lives on (RFC 9112, sections 2.2, 5.2, 6.1 and 11.2).
type strictConn struct {
	net.Conn
	framing framing
	refusal []byte // stands in for what was refused; then comes the end
	refused bool
}

// refusal spoils the line that it follows, whatever that is, and is no header
// line by itself either: net/http answers 400 in its turn, after the answers to
// earlier requests on the connection.
const refusal = "\x00\r\n:\r\n\r\n"

func (c *strictConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !c.refused {
		n, err := c.Conn.Read(p)
		passed, ok := c.framing.feed(p[:n])
		if ok || passed > 0 {
			if !ok {
				c.refuse()
			}
			return passed, err
		}
		c.refuse()
	}
	if len(c.refusal) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.refusal)
	c.refusal = c.refusal[n:]
	return n, nil
}

func (c *strictConn) refuse() { c.refused, c.refusal = true, []byte(refusal) }

func (c *strictConn) CloseWrite() error { return closeWrite(c.Conn) }

// secureConn is a strict connection inside TLS. net/http asks it for the state
// that Request.TLS shows.
type secureConn struct {
	strictConn
	state  tls.ConnectionState
	gather Gatherer // the connection under TLS; nil: it is none
}

// Gatherer is what the connection under TLS may be, so that records leave as one:
// crypto/tls writes each by itself, and the first ones on a connection hold no more
// than a packet does.
type Gatherer interface {
	// Hold keeps what is written from now on until Release; some of it leaves before
	// where it is much. It reports false, and changes nothing, where that is so already.
	Hold() bool
	// Release sends what was kept.
	Release() error
}

// smallWrite goes out as one record, or few.
const smallWrite = 4 << 10

func (c *secureConn) Write(p []byte) (int, error) {
	if c.gather == nil || len(p) <= smallWrite || !c.gather.Hold() {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p)
	if sent := c.gather.Release(); err == nil && sent != nil {
		return 0, sent
	}
	return n, err
}

func (c *secureConn) ConnectionState() tls.ConnectionState { return c.state }

// Secured makes of a TLS connection whose handshake is complete what a server of
// [NewServer] may be given: HTTP/2 or HTTP/1.x with strict framing. It is nil where
// something else was agreed on.
func Secured(c *tls.Conn) net.Conn {
	switch state := c.ConnectionState(); state.NegotiatedProtocol {
	case "h2":
		return newFramedConn(newFleetingConn(c), state)
	case "", "http/1.1", "http/1.0":
		gather, _ := c.NetConn().(Gatherer)
		return &secureConn{strictConn: strictConn{Conn: c}, state: state, gather: gather}
	}
	return nil
}

// Strict makes of a listener for plain HTTP/1.x one whose connections have strict
// framing.
func Strict(l net.Listener) net.Listener { return strictListener{l} }

// strictListener hands out strict connections.
type strictListener struct{ net.Listener }

func (l strictListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &strictConn{Conn: c}, nil
}

// keptLine is how much of a line is looked at, in bytes: the two fields that
// matter are shorter, and a longer line is none of them.
const keptLine = 128

// part is where in a request the next byte belongs.
type part uint8

const (
	requestLine part = iota
	headerLine
	bodyBytes
	chunkLine
	chunkBytes
	chunkEnd
	trailerLine
	anything // after a request for an upgrade, which ends HTTP on the connection either way
)

// framing follows the requests on one connection just far enough to know where
// each ends. Where it says yes it agrees with net/http; the zero value is at the
// start of a connection.
type framing struct {
	part part
	left uint64 // bytes of bodyBytes and chunkBytes to come

	line   []byte   // first bytes of the present line
	end    [10]byte // its last bytes; the newest is the last
	length uint64   // of the present line so far

	hasLength, chunked, upgrade bool
	latest                      bool // the request says HTTP/1.1
	bodyLength                  uint64
}

// feed takes the next bytes that a visitor sent. It returns how many may be
// passed on, and false when the byte after them shows that the request must be
// refused; then it must not be fed again.
func (f *framing) feed(b []byte) (passed int, ok bool) {
	for i := 0; i < len(b); {
		switch f.part {
		case anything:
			return len(b), true
		case bodyBytes, chunkBytes:
			n := min(f.left, uint64(len(b)-i))
			i += int(n)
			if f.left -= n; f.left == 0 {
				if f.part == chunkBytes {
					f.part = chunkEnd
				} else {
					f.next()
				}
			}
		default:
			lf := bytes.IndexByte(b[i:], '\n')
			text := b[i:]
			if lf >= 0 {
				text = b[i : i+lf]
			}
			if f.strayReturn(text, lf >= 0) {
				return i, false
			}
			f.keep(text)
			i += len(text)
			if lf < 0 {
				break
			}
			if !f.endLine() {
				return i, false
			}
			i++
			f.line, f.length = f.line[:0], 0
		}
	}
	return len(b), true
}

// strayReturn reports whether a carriage return of the line stands anywhere but
// before its line feed, or is missing there. text goes on with the line; last
// says that the line feed follows it.
func (f *framing) strayReturn(text []byte, last bool) bool {
	pending := f.length > 0 && f.end[len(f.end)-1] == '\r' // of the piece before
	cr := bytes.IndexByte(text, '\r')
	switch {
	case pending:
		return len(text) > 0 || !last
	case last:
		return len(text) == 0 || cr != len(text)-1
	}
	return cr >= 0 && cr != len(text)-1
}

func (f *framing) keep(text []byte) {
	f.length += uint64(len(text))
	if room := keptLine - len(f.line); room > 0 {
		f.line = append(f.line, text[:min(room, len(text))]...)
	}
	if n := len(text); n >= len(f.end) {
		copy(f.end[:], text[n-len(f.end):])
	} else {
		copy(f.end[:], f.end[n:])
		copy(f.end[len(f.end)-n:], text)
	}
}

// endLine takes in the line that is complete now, but for its line feed. It ends
// with a carriage return.
func (f *framing) endLine() bool {
	line, whole := f.line, f.length <= keptLine
	if whole {
		line = line[:len(line)-1]
	}
	switch f.part {
	case requestLine:
		if string(line) == "PRI * HTTP/2.0" {
			return false // net/http would go on with HTTP/2 (RFC 9113, section 3.4)
		}
		if len(line) > 0 { // net/http decides about empty lines before it
			f.latest = string(f.end[1:]) == "HTTP/1.1\r"
			f.part = headerLine
		}
	case headerLine:
		if len(line) == 0 {
			f.endHeader()
			return true
		}
		return f.field(line, whole)
	case chunkLine:
		return f.chunk(line, whole)
	case chunkEnd:
		f.part = chunkLine
		return len(line) == 0
	case trailerLine:
		if len(line) == 0 {
			f.next()
			return true
		}
		return !folded(line)
	}
	return true
}

// folded reports whether a line goes on with the field before it (obs-fold, RFC
// 9112, section 5.2).
func folded(line []byte) bool { return line[0] == ' ' || line[0] == '\t' }

// field takes in one header field. Names with blanks and lines without a colon
// are net/http's to refuse.
func (f *framing) field(line []byte, whole bool) bool {
	if folded(line) {
		return false
	}
	name, value, ok := strings.Cut(string(line), ":")
	if !ok {
		return true
	}
	value = strings.Trim(value, " \t")
	switch strings.ToLower(name) {
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || !whole || f.hasLength || f.chunked {
			return false
		}
		f.hasLength, f.bodyLength = true, n
	case "transfer-encoding":
		if !whole || f.hasLength || f.chunked || !f.latest || !strings.EqualFold(value, "chunked") {
			return false
		}
		f.chunked = true
	case "upgrade":
		f.upgrade = true
	}
	return true
}

func (f *framing) endHeader() {
	switch {
	case f.upgrade:
		f.part, f.line = anything, nil
	case f.chunked:
		f.part = chunkLine
	case f.bodyLength > 0:
		f.part, f.left = bodyBytes, f.bodyLength
	default:
		f.next()
	}
}

// chunk takes in the line before a chunk (RFC 9112, section 7.1).
func (f *framing) chunk(line []byte, whole bool) bool {
	size, _, extended := strings.Cut(string(line), ";")
	if !whole && !extended {
		return false
	}
	size = strings.TrimRight(size, " \t")
	if len(size) > 15 { // as net/http; 2^60 bytes are more than anybody sends
		return false
	}
	n, err := strconv.ParseUint(size, 16, 63)
	if err != nil {
		return false
	}
	if n == 0 {
		f.part = trailerLine
	} else {
		f.part, f.left = chunkBytes, n
	}
	return true
}

// next goes on to the next request.
func (f *framing) next() {
	*f = framing{line: f.line[:0]}
}
