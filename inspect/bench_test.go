package inspect

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/wgexpose/wgexpose/relay"
)

// BenchmarkRelay is requests of several visitors through a relay to a web
// server, over loopback TCP, with and without a tap. Besides the wall clock it
// tells the processor time of all, which other programs disturb less.
func BenchmarkRelay(b *testing.B) {
	for _, size := range []int{2 << 10, 100 << 10} { // what web apps mostly send, and pictures
		page := []byte(strings.Repeat("x", size))
		app := upstreamOf(b, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(size))
			_, _ = w.Write(page)
		})
		for _, on := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB/%s", size>>10, map[bool]string{false: "off", true: "on"}[on]), func(b *testing.B) {
				visit(b, relayed(b, app, on))
			})
		}
	}
}

func visit(b *testing.B, front string) {
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	b.ReportAllocs()
	b.ResetTimer()
	start := cpuTime()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			a, err := client.Get(front)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, a.Body); err != nil {
				b.Error(err)
			}
			a.Body.Close()
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/op")
}

// relayed is the address of a relay to app.
func relayed(b *testing.B, app *httptest.Server, tap bool) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var conns sync.WaitGroup
	i := open(b, Config{})
	b.Cleanup(func() {
		l.Close()
		cancel()
		conns.Wait()
	})
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				up, err := redialOf(app)(ctx)
				if err != nil {
					c.Close()
					return
				}
				if tap {
					up = i.Tap(up, Meta{Tunnel: "app"}, redialOf(app))
				}
				_, _ = relay.Copy(ctx, c, up) // ends with the client's connections
			})
		}
	})
	return "http://" + l.Addr().String() + "/api/orders?page=1"
}

// BenchmarkParse is what a worker does for one exchange.
func BenchmarkParse(b *testing.B) {
	i := open(b, Config{})
	s := i.newSession(Meta{Tunnel: "app"}, nil)
	request := []byte(crlf("GET /api/orders HTTP/1.1\nHost: app.example.com\nUser-Agent: x\nAccept: */*\nCookie: a=b\nX-Forwarded-For: 198.51.100.7\n\n"))
	answer := []byte(crlf("HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: 2048\n\n") + strings.Repeat("x", 2048))
	up, down := &chunk{dir: toUpstream, data: request}, &chunk{dir: toVisitor, data: answer}
	b.ReportAllocs()
	for b.Loop() {
		s.parse(up)
		s.parse(down)
		s.flush()
	}
}

// BenchmarkStream is a long body: all but its beginning is passed over.
func BenchmarkStream(b *testing.B) {
	i := open(b, Config{})
	a, far := net.Pipe()
	defer far.Close()
	c := i.Tap(a, Meta{}, nil).(*tapped)
	defer c.Close()
	c.note(toUpstream, []byte(crlf(get)))
	c.note(toVisitor, []byte(crlf("HTTP/1.1 200 OK\nContent-Length: 9000000000000000000\n\n")))
	piece := make([]byte, 64<<10)
	b.SetBytes(int64(len(piece)))
	for b.Loop() {
		c.note(toVisitor, piece)
	}
}
