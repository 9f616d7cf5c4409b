package inspect

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// TestKeptBodies has bodies of all lengths come in all portions: what is kept is
// what came, and is counted as what it takes.
func TestKeptBodies(t *testing.T) {
	const limit = 40_000
	for _, portion := range []int{1, 700, 2 << 10, 9_000, 16 << 10, 59_400} {
		for _, size := range []int{0, 1, 1500, 16 << 10, 39_999, limit, limit + 1, 100_000} {
			body := make([]byte, size)
			for i := range body {
				body[i] = byte(i / 251)
			}
			i := open(t, Config{BodyLimit: limit})
			s := i.newSession(Meta{Tunnel: "app"}, nil)
			s.push(toUpstream, []byte(crlf(get)))
			s.drain()
			s.push(toVisitor, []byte(crlf("HTTP/1.1 200 OK\nContent-Length: "+strconv.Itoa(size)+"\n\n")))
			for rest := body; len(rest) > 0; {
				n := min(portion, len(rest))
				s.push(toVisitor, rest[:n])
				if portion > 1 || len(rest)%1000 == 0 {
					s.drain()
				}
				rest = rest[n:]
			}
			s.drain()
			m := &i.ring.newest()[0].response
			if want := body[:min(size, limit)]; !bytes.Equal(m.body.bytes(), want) || m.body.size != len(want) || m.cut != (size > limit) {
				t.Fatalf("%d bytes in portions of %d: kept %d, cut %v", size, portion, m.body.size, m.cut)
			}
			memory := 0
			for _, p := range m.body.pieces {
				memory += pieceOverhead + cap(p.data)
				if p.in != nil {
					memory += p.in.cost() - cap(p.data)
				}
			}
			if m.body.memory != memory {
				t.Errorf("%d bytes in portions of %d: counts %d, takes %d", size, portion, m.body.memory, memory)
			}
		}
	}
}

// TestBodiesStayApart has exchanges come and go much faster than the ring holds
// them, while others read what is in it: nobody ever sees bytes of another body.
func TestBodiesStayApart(t *testing.T) {
	i := open(t, Config{MaxBytes: 4 << 20})
	var traffic, readers sync.WaitGroup
	over := make(chan struct{})
	for n := range 4 {
		a, b := net.Pipe()
		defer b.Close()
		c := i.Tap(a, Meta{Tunnel: "app"}, nil)
		defer c.Close()
		traffic.Go(func() {
			for k := range 200 {
				letter := string(rune('a' + (4*k+n)%26))
				body := strings.Repeat(letter, 1_000+(k*7919)%90_000)
				c.(*tapped).note(toUpstream, []byte(crlf("GET /"+letter+" HTTP/1.1\nHost: h\n\n")))
				answer := []byte(crlf(fmt.Sprintf("HTTP/1.1 200 OK\nContent-Length: %d\n\n", len(body))) + body)
				for len(answer) > 0 {
					m := min(len(answer), 59_400)
					c.(*tapped).note(toVisitor, answer[:m])
					clear(answer[:m]) // it is the relay's buffer, and used again
					answer = answer[m:]
				}
				mark, wake := c.(*tapped).session.sync()
				c.(*tapped).session.wake(wake)
				<-mark
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for {
				for _, x := range i.ring.newest() {
					x.mu.Lock()
					target := x.target
					x.mu.Unlock()
					got := x.storedBody(toVisitor).bytes
					if len(got) > 0 && string(got) != strings.Repeat(target[1:], len(got)) {
						t.Errorf("%s has a body of others", target)
						return
					}
				}
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	traffic.Wait()
	close(over)
	readers.Wait()
	if u := i.Usage(); u.Exchanges == 0 || u.Exchanges >= 800 {
		t.Errorf("%d exchanges of 800 are kept; some were to be, and some to go", u.Exchanges)
	}
}
