package inspect

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func heap() int64 {
	runtime.GC()
	runtime.GC() // the first moves pools to their victims, the second frees those
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemory: a flood of whatever is kept stays within its bound, as the heap
// sees it.
func TestMemory(t *testing.T) {
	const bound = 8 << 20
	floods := map[string]func(feed func(direction, string), n int){
		"small requests": func(feed func(direction, string), n int) {
			for k := range n * 20 {
				feed(toUpstream, crlf(fmt.Sprintf("GET /%d HTTP/1.1\nHost: h\n\n", k)))
				feed(toVisitor, crlf(ok))
			}
		},
		"bodies": func(feed func(direction, string), n int) {
			body := strings.Repeat("b", 100<<10)
			for range n {
				feed(toUpstream, crlf("POST / HTTP/1.1\nContent-Length: 102400\n\n")+body)
				feed(toVisitor, crlf("HTTP/1.1 200 OK\nContent-Length: 102400\n\n")+body)
			}
		},
		"headers": func(feed func(direction, string), n int) {
			head := strings.Repeat("A: b\r\n", 400)
			for range n * 3 {
				feed(toUpstream, "GET / HTTP/1.1\r\n"+head+"\r\n")
				feed(toVisitor, "HTTP/1.1 204 No\r\n"+head+"\r\n")
			}
		},
		"trailers": func(feed func(direction, string), n int) {
			for range n {
				feed(toUpstream, crlf("POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n0\n"+strings.Repeat("X-T: "+strings.Repeat("v", 90)+"\n", 300)+"\n"))
				feed(toVisitor, crlf(ok))
			}
		},
		"events": func(feed func(direction, string), n int) {
			feed(toUpstream, crlf(get))
			feed(toVisitor, crlf("HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\n"))
			for range n * 4 {
				feed(toVisitor, "data: "+strings.Repeat("e", 5000)+"\n\n")
			}
		},
		"frames": func(feed func(direction, string), n int) {
			feed(toUpstream, crlf(ws))
			feed(toVisitor, crlf(wsOK))
			for range n * 4 {
				feed(toUpstream, frame(0x81, strings.Repeat("f", 5000), true))
				feed(toVisitor, frame(0x82, "\x00", false))
			}
		},
		"requests without answers": func(feed func(direction, string), n int) {
			for range n * 20 {
				feed(toUpstream, crlf(get))
			}
		},
		"heads without end": func(feed func(direction, string), n int) {
			for range n * 20 {
				feed(toUpstream, "GET / HTTP/1.1\r\nX: "+strings.Repeat("h", 2000))
			}
		},
		"noise": func(feed func(direction, string), n int) {
			r := rand.New(rand.NewPCG(1, 2))
			for range n * 20 {
				b := make([]byte, 1000)
				for i := range b {
					b[i] = byte(r.Uint32())
				}
				feed(direction(r.IntN(2)), string(b))
			}
		},
	}
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			before := heap()
			i := open(t, Config{MaxBytes: bound, MaxExchanges: 1 << 30})
			var conns []net.Conn
			var wg sync.WaitGroup
			for range 4 {
				a, b := net.Pipe()
				defer b.Close()
				c := i.Tap(a, Meta{Tunnel: "app"}, nil)
				conns = append(conns, c)
				wg.Go(func() {
					flood(func(dir direction, s string) { c.(*tapped).note(dir, []byte(s)) }, 300)
				})
			}
			wg.Wait()
			if n := i.queued.Load(); n > i.queueMax+largeChunk {
				t.Errorf("%d bytes are queued; the bound is %d", n, i.queueMax)
			}
			for _, c := range conns {
				mark, wake := c.(*tapped).session.sync()
				c.(*tapped).session.wake(wake)
				<-mark
			}
			if used := heap() - before; used > bound*5/4 {
				t.Errorf("the heap grew by %d bytes; the bound is %d", used, bound)
			}
			if u := i.Usage(); u.Bytes > u.MaxBytes || u.Exchanges == 0 {
				t.Errorf("%+v", u)
			}
			for _, c := range conns {
				c.Close()
			}
		})
	}
}

// TestRing: bounds hold after each step, what is kept is the newest, and what
// was evicted never comes back.
func TestRing(t *testing.T) {
	r := newRing(20*exchangeOverhead, 15, 1<<20)
	rnd := rand.New(rand.NewPCG(3, 4))
	var all []*exchange
	for n := range uint64(2000) {
		if n%3 == 0 || len(all) == 0 {
			all = append(all, &exchange{origin: &origin{}, sequence: n + 1})
		}
		x := all[max(0, len(all)-1-rnd.IntN(30))]
		if !x.gone {
			x.request.body.add(make([]byte, rnd.IntN(400)), nil, 0)
		}
		wasGone := x.gone
		if kept := r.update(x, time.Time{}); kept == x.gone || (wasGone && kept) {
			t.Fatalf("step %d: kept %v, gone %v, before %v", n, kept, x.gone, wasGone)
		}
		sum := int64(0)
		for k, x := range r.list {
			sum += int64(x.charged)
			if x.gone || r.find(x.sequence) != x || x.charged != x.memory() {
				t.Fatalf("step %d: entry %d is not right", n, k)
			}
		}
		if sum != r.bytes || sum > r.mostBytes || len(r.list) > r.most || len(r.byID) != len(r.list) {
			t.Fatalf("step %d: %d bytes counted, %d there, %d entries, %d by id", n, r.bytes, sum, len(r.list), len(r.byID))
		}
	}
	r.clear()
	if n, b := r.stats(); n != 0 || b != 0 {
		t.Errorf("%d exchanges, %d bytes after clear", n, b)
	}
}
