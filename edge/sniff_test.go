package edge

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// onlyReads is a connection that is nothing but what is read from it.
type onlyReads struct {
	net.Conn
	io.Reader
}

func (c onlyReads) Read(p []byte) (int, error) { return c.Reader.Read(p) }

// peekHello hears a ClientHello that nobody answers.
func peekHello(r io.Reader) (*hello, error) {
	t := &tap{Conn: onlyReads{Reader: r}, choose: func(*hello) *tls.Config { return nil }}
	if _, err := hear(t, newHearing()); err != nil {
		return nil, err
	}
	return t.hello, nil
}

// clientHello returns the bytes of a real one.
func clientHello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan []byte, 1)
	go func() {
		var all bytes.Buffer
		_, err := peekHello(io.TeeReader(server, &all))
		server.Close()
		if err != nil {
			t.Errorf("a real hello: %v", err)
		}
		done <- all.Bytes()
	}()
	tls.Client(client, config).Handshake() // fails once server is closed
	client.Close()
	return <-done
}

// manyProtocols makes a hello larger than one record can be.
func manyProtocols() []string {
	var all []string
	for i := range 100 {
		all = append(all, fmt.Sprintf("%03d%s", i, strings.Repeat("x", 240)))
	}
	return all
}

func TestPeekHello(t *testing.T) {
	for name, config := range map[string]*tls.Config{
		"usual":   {ServerName: "app.example.com", NextProtos: []string{"h2", "http/1.1"}},
		"TLS 1.2": {ServerName: "app.example.com", MaxVersion: tls.VersionTLS12},
		"no name": {InsecureSkipVerify: true},
		"large":   {ServerName: "app.example.com", NextProtos: manyProtocols()},
	} {
		raw := clientHello(t, config)
		// A post-quantum key share alone has 1,216 bytes, and fits into no segment with
		// the rest.
		if name == "usual" && len(raw) <= 1400 {
			t.Fatalf("the usual hello has only %d bytes", len(raw))
		}
		if name == "large" && len(raw) <= 16<<10+5 {
			t.Fatalf("the large hello has only %d bytes", len(raw))
		}
		for how, r := range map[string]io.Reader{
			"whole":        bytes.NewReader(raw),
			"byte by byte": iotest.OneByteReader(bytes.NewReader(raw)),
			"halves":       iotest.HalfReader(bytes.NewReader(raw)),
			"tiny records": bytes.NewReader(resplit(raw, 7)),
		} {
			h, err := peekHello(r)
			if err != nil {
				t.Errorf("%s, %s: %v", name, how, err)
				continue
			}
			if h.ServerName != config.ServerName || !slices.Equal(h.Protocols, config.NextProtos) {
				t.Errorf("%s, %s: %q %d protocols", name, how, h.ServerName, len(h.Protocols))
			}
			if how != "tiny records" && !bytes.Equal(h.Bytes, raw) {
				t.Errorf("%s, %s: kept %d of %d bytes", name, how, len(h.Bytes), len(raw))
			}
		}
	}
}

// resplit cuts the message in raw into records of n bytes.
func resplit(raw []byte, n int) []byte {
	var message, out []byte
	for len(raw) > 0 {
		size := int(raw[3])<<8 | int(raw[4])
		message = append(message, raw[5:5+size]...)
		raw = raw[5+size:]
	}
	for len(message) > 0 {
		k := min(n, len(message))
		out = append(out, 22, 3, 1, 0, byte(k))
		out = append(out, message[:k]...)
		message = message[k:]
	}
	return out
}

// A whole handshake through the greeter, the hello arriving in the worst way.
func TestHandshakeInPieces(t *testing.T) {
	r := newRig(t, nil)
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	for name, protocols := range map[string][]string{
		"small": {"http/1.1"},
		"large": append(manyProtocols(), "http/1.1"),
	} {
		conn := tls.Client(&dribble{Conn: r.dialHTTPS()}, &tls.Config{ServerName: "app.edge.test", RootCAs: r.certs.Roots, NextProtos: protocols})
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: app.edge.test\r\nConnection: close\r\n\r\n")
		b, err := io.ReadAll(conn)
		if err != nil || !bytes.HasSuffix(b, []byte("hello from app.edge.test")) {
			t.Errorf("%s: %q %v", name, b, err)
		}
	}
}

// dribble writes byte by byte.
type dribble struct{ net.Conn }

func (d *dribble) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestPeekHelloIsBounded(t *testing.T) {
	// A handshake message that announces 64 KiB less one and never ends, in
	// records of one byte.
	endless := io.MultiReader(
		bytes.NewReader(resplit(append([]byte{22, 3, 1, 0, 4}, 1, 0, 255, 255), 1)),
		repeat{22, 3, 1, 0, 1, 0})
	counted := &counter{r: endless}
	_, err := peekHello(counted)
	if !errors.Is(err, errHelloTooLong) {
		t.Errorf("%v", err)
	}
	if counted.n > maxHello {
		t.Errorf("read %d bytes", counted.n)
	}
}

// repeat gives its bytes over and over.
type repeat []byte

func (r repeat) Read(p []byte) (int, error) {
	if len(p) < len(r) {
		return copy(p, r), nil // only good for readers that take whole records
	}
	return copy(p, bytes.Repeat(r, len(p)/len(r))), nil
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func FuzzClientHelloPeek(f *testing.F) {
	// Short ones: without the kilobyte of a post-quantum key share.
	short := []tls.CurveID{tls.X25519}
	f.Add(clientHello(f, &tls.Config{ServerName: "a.b", NextProtos: []string{"h2"}, CurvePreferences: short}))
	f.Add(clientHello(f, &tls.Config{ServerName: "a.b", MaxVersion: tls.VersionTLS12, NextProtos: []string{"acme-tls/1"}, CurvePreferences: short}))
	f.Add(clientHello(f, &tls.Config{InsecureSkipVerify: true, CurvePreferences: short}))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := peekHello(bytes.NewReader(b))
		pieces, err2 := peekHello(iotest.OneByteReader(bytes.NewReader(b)))
		if (err == nil) != (err2 == nil) {
			t.Fatalf("whole: %v; in pieces: %v", err, err2)
		}
		if err != nil {
			var bad *helloError
			if !errors.As(err, &bad) {
				t.Fatalf("%T", err)
			}
			return
		}
		if whole.ServerName != pieces.ServerName || !slices.Equal(whole.Protocols, pieces.Protocols) {
			t.Fatalf("%+v, in pieces %+v", whole, pieces)
		}
		for _, h := range []*hello{whole, pieces} {
			if !bytes.HasPrefix(b, h.Bytes) || len(h.Bytes) > maxHello {
				t.Fatalf("replays %d bytes that are not what came", len(h.Bytes))
			}
		}
		// Whoever takes the connection next reads the same.
		again, err := peekHello(&replayed{Conn: onlyReads{Reader: bytes.NewReader(nil)}, first: whole.Bytes})
		if err != nil || again.ServerName != whole.ServerName {
			t.Fatalf("replayed: %+v %v", again, err)
		}
	})
}
