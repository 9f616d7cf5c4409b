package proxy

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"

	"golang.org/x/net/http2/hpack"
)

// Frames of RFC 9113, section 6.
const (
	frameHeaders      = 0x1
	frameSettings     = 0x4
	frameContinuation = 0x9

	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	frameHeader   = 9 // bytes before the payload
	settingLength = 6 // bytes

	settingTableSize = 0x1

	preface2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" // section 3.4

	// maxFrame is what a visitor may put in a frame, in bytes: what all clients send.
	maxFrame = 16 << 10

	// maxSettings of one frame net/http takes in.
	maxSettings = 100

	// headerTable bounds the memory of header compression on either side, in bytes.
	headerTable = 4 << 10
)

// framedConn is a visitor's HTTP/2 connection as net/http's server reads it. Two
// things are changed on the way, since net/http deals with them otherwise than RFC
// 9113 asks for: a request that has fields of HTTP/1.1's connections is malformed
// (sections 8.1.1 and 8.2.2), where net/http answers 400 and leaves the stream to
// itself, and a setting may be named twice in one frame (section 6.5.3), where
// net/http ends the connection.
//
// Frames that it cannot read it passes on: net/http ends the connection then.
//
// It does not tell that it is inside TLS: net/http then takes it for HTTP/2 with
// prior knowledge, which is the way it has for connections of other types than
// tls.Conn. What does not begin as HTTP/2 net/http would take for HTTP/1.x, so the
// connection ends here. [NewServer] sees to Request.TLS.
type framedConn struct {
	net.Conn
	state tls.ConnectionState

	begun bool   // the preface was there
	err   error  // what reading frames ended with
	out   []byte // what the server reads next
	left  int    // bytes after that which pass as they come
	head  [frameHeader]byte

	fields  *hpack.Decoder // nil once something could not be decoded, which ends all
	foreign bool           // the header block under way has a field of HTTP/1.1's connections
}

func newFramedConn(c net.Conn, state tls.ConnectionState) *framedConn {
	f := &framedConn{Conn: c, state: state}
	f.fields = hpack.NewDecoder(headerTable, func(field hpack.HeaderField) {
		f.foreign = f.foreign || ofConnection(field.Name, field.Value)
	})
	f.fields.SetMaxStringLength(2 * MaxHeader) // net/http's bound, which is a little above MaxHeader, comes first
	return f
}

// ofConnection reports whether a field may not be in a request of HTTP/2 (RFC 9113,
// section 8.2.2). The names are in lower case there.
func ofConnection(name, value string) bool {
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return true
	case "te":
		return value != "trailers" && value != ""
	}
	return false
}

func (c *framedConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.out) == 0 && c.left == 0 {
		if c.err == nil {
			c.err = c.next()
		}
		if c.err != nil {
			return 0, c.err
		}
	}
	if len(c.out) > 0 {
		n := copy(p, c.out)
		if c.out = c.out[n:]; len(c.out) == 0 {
			c.out = nil // let go of the memory
		}
		return n, nil
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// next reads the preface, or the beginning of a frame, and all of one that it may
// change.
func (c *framedConn) next() error {
	if !c.begun {
		preface := make([]byte, len(preface2))
		if _, err := io.ReadFull(c.Conn, preface); err != nil {
			return err
		}
		if string(preface) != preface2 {
			return io.EOF
		}
		c.begun, c.out = true, preface
		return nil
	}
	if _, err := io.ReadFull(c.Conn, c.head[:]); err != nil {
		return err
	}
	length := int(c.head[0])<<16 | int(c.head[1])<<8 | int(c.head[2])
	change := c.settings
	switch kind, flags := c.head[3], c.head[4]; {
	case kind == frameSettings && flags&flagAck == 0 && length%settingLength == 0 && length <= maxSettings*settingLength:
	case (kind == frameHeaders || kind == frameContinuation) && length <= maxFrame && c.fields != nil:
		change = c.block
	default:
		c.out, c.left = c.head[:], length
		return nil
	}
	frame := make([]byte, frameHeader+length, frameHeader+length+len(malformed))
	copy(frame, c.head[:])
	if _, err := io.ReadFull(c.Conn, frame[frameHeader:]); err != nil {
		return err
	}
	c.out = change(frame)
	return nil
}

// settings leaves of each setting the last value, which is the one that counts once
// the frame is taken in. The size of the header table is left as it is: there the
// smallest value counts too (RFC 7541, section 4.2).
func (c *framedConn) settings(frame []byte) []byte {
	all := frame[frameHeader:]
	kept := frame[:frameHeader]
	for len(all) > 0 {
		one := all[:settingLength]
		all = all[settingLength:]
		if id := binary.BigEndian.Uint16(one); id == settingTableSize || !named(id, all) {
			kept = append(kept, one...) // never beyond what was read
		}
	}
	length := len(kept) - frameHeader
	kept[0], kept[1], kept[2] = 0, byte(length>>8), byte(length)
	return kept
}

// named reports whether settings name id.
func named(id uint16, settings []byte) bool {
	for ; len(settings) > 0; settings = settings[settingLength:] {
		if binary.BigEndian.Uint16(settings) == id {
			return true
		}
	}
	return false
}

// malformed goes on with a header block that was not said to be whole: a frame of the
// type CONTINUATION that ends it with the field X. Names are in lower case, so that
// net/http resets the stream, with PROTOCOL_ERROR, and header compression goes on.
var malformed = [...]byte{0, 0, 4, frameContinuation, flagEndHeaders, 0, 0, 0, 0, 0, 1, 'X', 0}

// block takes in a frame of a header block.
func (c *framedConn) block(frame []byte) []byte {
	payload := frame[frameHeader:]
	kind, flags := frame[3], frame[4]
	if kind == frameHeaders {
		var ok bool
		if payload, ok = fragment(payload, flags); !ok {
			return frame // ends its stream, or all, and is not decoded there either
		}
		c.foreign = false
	}
	if _, err := c.fields.Write(payload); err != nil {
		c.fields = nil
		return frame
	}
	if flags&flagEndHeaders == 0 {
		return frame
	}
	if err := c.fields.Close(); err != nil {
		c.fields = nil
		return frame
	}
	if !c.foreign {
		return frame
	}
	frame[4] &^= flagEndHeaders
	end := malformed
	copy(end[5:frameHeader], frame[5:frameHeader]) // the stream
	return append(frame, end[:]...)
}

// fragment is what a HEADERS frame's payload has of the header block.
func fragment(payload []byte, flags byte) (_ []byte, ok bool) {
	padding, before := 0, 0
	if flags&flagPadded != 0 {
		before++
	}
	if flags&flagPriority != 0 {
		before += 5
	}
	if len(payload) < before {
		return nil, false
	}
	if flags&flagPadded != 0 {
		padding = int(payload[0])
	}
	if payload = payload[before:]; len(payload) < padding {
		return nil, false
	}
	return payload[:len(payload)-padding], true
}

func (c *framedConn) CloseWrite() error { return closeWrite(c.Conn) }

// tlsKey is where a request's context has the state of its framedConn.
type tlsKey struct{}

// withConn is http.Server.ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	switch c := c.(type) {
	case *framedConn:
		return context.WithValue(ctx, tlsKey{}, &c.state)
	case *secureConn:
		if c.gather != nil {
			return context.WithValue(ctx, gatherKey{}, c.gather)
		}
	}
	return ctx
}

// showTLS makes Request.TLS what it is, whatever scheme a request of HTTP/2 claims.
func showTLS(r *http.Request) {
	if state, ok := r.Context().Value(tlsKey{}).(*tls.ConnectionState); ok {
		r.TLS = state
	}
}
