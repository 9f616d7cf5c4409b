//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package relay

import (
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
)

// mailbox is a connection that calls when there is something to read: each
// string in it is what one Read gives.
type mailbox struct {
	net.Conn // what is written goes here

	mu     sync.Mutex // guards what follows
	letter []string
	closed bool
	call   func()
}

func (m *mailbox) put(s string) {
	m.mu.Lock()
	m.letter = append(m.letter, s)
	m.mu.Unlock()
	m.notify()
}

func (m *mailbox) notify() {
	m.mu.Lock()
	f := m.call
	m.call = nil
	m.mu.Unlock()
	if f != nil {
		f()
	}
}

func (m *mailbox) WhenReadable(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.letter) > 0 || m.closed {
		return true
	}
	m.call = f
	return false
}

func (m *mailbox) Read(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.letter) == 0 {
		return 0, io.EOF
	}
	n := copy(p, m.letter[0])
	m.letter = m.letter[1:]
	return n, nil
}

// finish is the end of what there is to read.
func (m *mailbox) finish() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.notify()
}

func (m *mailbox) CloseWrite() error { return m.Conn.(*net.TCPConn).CloseWrite() }

func (m *mailbox) Close() error {
	m.finish()
	return m.Conn.Close()
}

// TestIdlePairsHaveOneGoroutine copies between connections that call and
// kernel sockets, which need a goroutine to wait for.
func TestIdlePairsHaveOneGoroutine(t *testing.T) {
	const pairs = 50
	before := runtime.NumGoroutine()
	var ends []func()
	for range pairs {
		client, a := tcpPair(t)
		b, server := tcpPair(t)
		box := &mailbox{Conn: a}
		done := start(t, t.Context(), box, b)
		box.put("one")
		expect(t, server, "one")
		send(t, server, "two")
		expect(t, client, "two")
		box.put("three")
		expect(t, server, "three")
		ends = append(ends, func() {
			server.Close()
			box.finish()
			if got := wait(t, done); got.err != nil || got.Stats != (Stats{AtoB: 8, BtoA: 3}) {
				t.Errorf("%+v", got)
			}
		})
	}
	// start has one goroutine for each, which is Copy's caller.
	eventually(t, "each pair has one goroutine", func() bool { return runtime.NumGoroutine() <= before+pairs })
	for _, end := range ends {
		end()
	}
}
