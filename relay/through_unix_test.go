//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package relay

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// told is a connection that is read below, and notes what it is told of.
type told struct {
	*net.TCPConn

	mu   sync.Mutex // guards what follows
	text strings.Builder
	err  error
}

func (c *told) Through() (net.Conn, func([]byte, error)) {
	return c.TCPConn, func(p []byte, err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.text.Write(p)
		if err != nil {
			c.err = err
		}
	}
}

func (c *told) Read([]byte) (int, error) { panic("it is read below") }

// TestThrough: what is read below is told, and no buffer is held meanwhile.
func TestThrough(t *testing.T) {
	for name, reset := range map[string]bool{"end": false, "reset": true} {
		t.Run(name, func(t *testing.T) {
			client, a := tcpPair(t)
			b, server := tcpPair(t)
			c := &told{TCPConn: a}
			done := start(t, t.Context(), c, b)
			send(t, client, "ping")
			expect(t, server, "ping")
			eventually(t, "all buffers are back", func() bool { return buffers.out.Load() == 0 })
			send(t, client, "pong")
			expect(t, server, "pong")
			want := io.EOF
			if reset {
				want = syscall.ECONNRESET
				Abort(client)
				expectReset(t, server)
			} else {
				client.Close()
				expectEOF(t, server)
				server.Close()
			}
			if got := wait(t, done); (got.err != nil) != reset {
				t.Errorf("error %v", got.err)
			}
			if c.text.String() != "pingpong" || !errors.Is(c.err, want) {
				t.Errorf("told of %q and %v", c.text.String(), c.err)
			}
		})
	}
}
