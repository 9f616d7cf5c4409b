package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/mholt/acmez/v3"

	"github.com/wgexpose/wgexpose/relay"
)

// maxHello bounds what a visitor may send before its first message is complete,
// in bytes. Post-quantum key shares and long lists make 2 KiB common; crypto/tls
// itself takes up to 64 KiB.
const maxHello = 64 << 10

// hello is what a ClientHello asks for, and the bytes that it came in.
type hello struct {
	ServerName string   // SNI as sent; empty when there was none
	Protocols  []string // ALPN
	Bytes      []byte   // all that was read, the message and what came with it
}

// isChallenge reports whether the visitor is an ACME authority that checks a
// name by TLS-ALPN-01 (RFC 8737, section 3).
func (h *hello) isChallenge() bool {
	return slices.Equal(h.Protocols, []string{acmez.ACMETLS1Protocol})
}

var (
	errHelloSeen    = errors.New("ClientHello complete")
	errHelloTooLong = errors.New("ClientHello too long")
)

// helloError says that a visitor sent no ClientHello. Answer holds what it
// should be told, if anything: a TLS alert, or words where it spoke plain HTTP.
type helloError struct {
	Answer []byte
	Err    error
}

func (e *helloError) Error() string { return fmt.Sprintf("read ClientHello: %v", e.Err) }
func (e *helloError) Unwrap() error { return e.Err }

// peekHello reads one ClientHello from r, however it is cut into records and
// segments, and nothing is written. crypto/tls itself parses it: whoever takes
// the connection later with crypto/tls reads the same message in the same way.
// The error is a *helloError.
func peekHello(r io.Reader) (*hello, error) {
	tap := &tap{r: r}
	var seen *hello
	config := &tls.Config{
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			seen = &hello{ServerName: info.ServerName, Protocols: slices.Clone(info.SupportedProtos)}
			return nil, errHelloSeen
		},
	}
	err := tls.Server(tap, config).HandshakeContext(context.Background())
	if seen != nil {
		seen.Bytes = tap.read
		return seen, nil
	}
	if err == nil {
		err = errors.New("no ClientHello") // cannot be: the handshake starts with one
	}
	bad := &helloError{Answer: tap.written, Err: err}
	if record := (tls.RecordHeaderError{}); errors.As(err, &record) && looksLikeHTTP(tap.read) {
		bad.Answer = []byte(plainOnTLS)
	}
	return nil, bad
}

// plainOnTLS answers http:// on the HTTPS port.
const plainOnTLS = "HTTP/1.1 400 Bad Request\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\n" +
	"Cache-Control: no-store\r\n" +
	"Wgexpose-Error: plain_http\r\n" +
	"Connection: close\r\n\r\n" +
	"This port speaks HTTPS. Use an address that begins with https:// instead.\n"

func looksLikeHTTP(b []byte) bool {
	if len(b) < 5 {
		return false
	}
	switch string(b[:5]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "PATCH", "DELET", "OPTIO":
		return true
	}
	return false
}

// tap is the connection that crypto/tls sees while it parses a hello: it reads
// from the visitor and keeps all it read. What is written stays here too.
type tap struct {
	r       io.Reader
	read    []byte
	written []byte
}

func (t *tap) Read(p []byte) (int, error) {
	left := maxHello - len(t.read)
	if left <= 0 {
		return 0, errHelloTooLong
	}
	n, err := t.r.Read(p[:min(len(p), left)])
	t.read = append(t.read, p[:n]...)
	return n, err
}

func (t *tap) Write(p []byte) (int, error) {
	t.written = append(t.written, p...)
	return len(p), nil
}

func (t *tap) Close() error                     { return nil }
func (t *tap) LocalAddr() net.Addr              { return nil }
func (t *tap) RemoteAddr() net.Addr             { return nil }
func (t *tap) SetDeadline(time.Time) error      { return nil }
func (t *tap) SetReadDeadline(time.Time) error  { return nil }
func (t *tap) SetWriteDeadline(time.Time) error { return nil }

// replayed is a visitor's connection whose first bytes were read already.
// Reading gives them again.
type replayed struct {
	net.Conn
	first []byte
}

func (c *replayed) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(p, c.first)
		if c.first = c.first[n:]; len(c.first) == 0 {
			c.first = nil // let go of the memory
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *replayed) CloseWrite() error { return closeWrite(c.Conn) }

// Abort ends the connection with a reset.
func (c *replayed) Abort() { relay.Abort(c.Conn) }

// closeWrite ends the sending side of c, if c can do that.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
