package inspect

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// BenchmarkRoundTrip is a request and its answer over loopback TCP, with and
// without a tap. Pages of 2 KiB are what a web app mostly sends.
func BenchmarkRoundTrip(b *testing.B) {
	request := crlf("GET /api/orders?page=1 HTTP/1.1\nHost: app.example.com\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\nAccept-Encoding: gzip, deflate, br, zstd\nCookie: session=0123456789abcdef0123456789abcdef\nX-Forwarded-For: 198.51.100.7\nX-Forwarded-Host: app.example.com\nX-Forwarded-Proto: https\n\n")
	answer := crlf("HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: 2048\nDate: Sat, 21 Nov 2026 10:00:00 GMT\n\n") + strings.Repeat("x", 2048)
	for _, on := range []bool{false, true} {
		b.Run(map[bool]string{false: "off", true: "on"}[on], func(b *testing.B) {
			near, far := pair(b)
			c := net.Conn(near)
			if on {
				c = open(b, Config{}).Tap(near, Meta{Tunnel: "app"}, nil)
			}
			for _, end := range []net.Conn{near, far} {
				if err := end.SetDeadline(time.Time{}); err != nil {
					b.Fatal(err)
				}
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				buf := make([]byte, len(request))
				for {
					if _, err := io.ReadFull(far, buf); err != nil {
						return
					}
					if _, err := far.Write([]byte(answer)); err != nil {
						return
					}
				}
			}()
			buf := make([]byte, len(answer))
			out := []byte(request)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(out); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			c.Close()
			<-done
		})
	}
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
