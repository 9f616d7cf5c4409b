package edge

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/mholt/acmez/v3"

	"github.com/wgexpose/wgexpose/relay"
)

// maxHello bounds what a visitor may send before its first message is complete,
// in bytes. Post-quantum key shares and long lists make 2 KiB common; crypto/tls
// itself takes up to 64 KiB.
const maxHello = 64 << 10

// usualHello is what most send, in bytes.
const usualHello = 2 << 10

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

// hear reads one ClientHello from t, however it is cut into records and segments.
// crypto/tls itself parses it, once: where t.choose names a configuration, the
// handshake goes on with that, and the connection that results is returned; else
// nothing has been written, and t has what was read, for whoever takes the
// connection. Without a hello in t the error is a *helloError. hearing is a
// configuration of newHearing. Closing t ends it; for a context crypto/tls would start
// a goroutine.
func hear(t *tap, hearing *tls.Config) (*tls.Conn, error) {
	secure := tls.Server(t, hearing)
	err := secure.Handshake()
	switch {
	case t.passing && err == nil:
		return secure, nil
	case t.passing:
		return nil, err
	case t.hello != nil:
		return nil, nil
	case err == nil:
		err = errors.New("no ClientHello") // cannot be: the handshake starts with one
	}
	bad := &helloError{Answer: t.written, Err: err}
	if record := (tls.RecordHeaderError{}); errors.As(err, &record) && looksLikeHTTP(t.read) {
		bad.Answer = []byte(plainOnTLS)
	}
	return nil, bad
}

// newHearing makes the configuration of all that is heard at one listener. It has
// the keys of the session tickets of all that t.choose may name.
func newHearing() *tls.Config {
	return &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		return info.Conn.(*tap).heard(info)
	}}
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

// tap is a visitor's connection as crypto/tls sees it. Until it is clear who takes
// the connection, what is read is kept, and what is written stays here.
type tap struct {
	net.Conn
	choose  func(*hello) *tls.Config // what to go on with; nil: nothing
	hello   *hello                   // once there is one
	passing bool                     // the handshake goes on
	read    []byte
	written []byte

	gathered relay.Gathering
}

// heard is tls.Config.GetConfigForClient.
func (t *tap) heard(info *tls.ClientHelloInfo) (*tls.Config, error) {
	t.hello = &hello{ServerName: info.ServerName, Protocols: slices.Clone(info.SupportedProtos), Bytes: t.read}
	config := t.choose(t.hello)
	if config == nil {
		return nil, errHelloSeen
	}
	t.passing, t.read, t.hello.Bytes = true, nil, nil
	return config, nil
}

func (t *tap) Read(p []byte) (int, error) {
	if t.passing {
		return t.Conn.Read(p)
	}
	left := maxHello - len(t.read)
	if left <= 0 {
		return 0, errHelloTooLong
	}
	n, err := t.Conn.Read(p[:min(len(p), left)])
	if t.read == nil {
		t.read = make([]byte, 0, usualHello)
	}
	t.read = append(t.read, p[:n]...)
	return n, err
}

func (t *tap) Write(p []byte) (int, error) {
	if t.passing {
		return t.gathered.Write(t.Conn, p)
	}
	t.written = append(t.written, p...)
	return len(p), nil
}

// Hold and Release implement proxy.Gatherer.
func (t *tap) Hold() bool     { return t.gathered.Hold() }
func (t *tap) Release() error { return t.gathered.Release(t.Conn) }

// Abort ends the connection with a reset.
func (t *tap) Abort() { relay.Abort(t.Conn) }

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
