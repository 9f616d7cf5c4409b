package origin

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// TCP is a TCP server whose connections a function serves.
type TCP struct {
	addr string
}

// StartTCP serves each connection with serve on a goroutine of its own, until
// the test ends, when the connections are closed.
func StartTCP(t testing.TB, serve func(*net.TCPConn)) *TCP {
	t.Helper()
	ln := listen(t)
	var (
		mu    sync.Mutex // guards conns and ended
		conns = make(map[net.Conn]bool)
		ended bool
		wg    sync.WaitGroup
	)
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if ended {
				c.Close()
			} else {
				conns[c] = true
			}
			mu.Unlock()
			wg.Go(func() {
				serve(c.(*net.TCPConn))
				c.Close()
				mu.Lock()
				defer mu.Unlock()
				delete(conns, c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		ended = true
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return &TCP{addr: ln.Addr().String()}
}

// Addr returns host:port.
func (s *TCP) Addr() string { return s.addr }

// Echo sends back what it gets.
func Echo(c *net.TCPConn) { io.Copy(c, c) }

// Digest answers only after the end of what it is sent: "<length> <sha256>\n".
func Digest(c *net.TCPConn) {
	if n, sum, err := Sum(c); err == nil {
		fmt.Fprintf(c, "%d %s\n", n, sum)
	}
}
