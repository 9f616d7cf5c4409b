package inspect

import (
	"encoding/base64"
	"strings"
	"time"
)

// grpcCounter counts the length-prefixed messages of gRPC and gRPC-Web: a byte
// of flags, four of length, the message (github.com/grpc/grpc,
// doc/PROTOCOL-HTTP2.md). gRPC-Web's last frame, with the top bit set, holds
// trailers and is no message. The text variant is the same in base64.
type grpcCounter struct {
	exchange *exchange
	dir      direction
	text     bool
	quad     []byte // up to four characters of base64
	prefix   []byte // up to five bytes
	left     int64
}

func newGRPCCounter(x *exchange, dir direction, list fields) *grpcCounter {
	return &grpcCounter{exchange: x, dir: dir, text: strings.HasPrefix(list.find("Content-Type"), "application/grpc-web-text")}
}

func (g *grpcCounter) write(p []byte, _ time.Time) {
	if !g.text {
		g.frames(p)
		return
	}
	for _, c := range p {
		if g.quad = append(g.quad, c); len(g.quad) < 4 {
			continue
		}
		var raw [3]byte
		// Each piece may be padded on its own. What is no base64 counts
		// for nothing.
		n, err := base64.StdEncoding.Decode(raw[:], g.quad)
		if err == nil {
			g.frames(raw[:n])
		}
		g.quad = g.quad[:0]
	}
}

func (g *grpcCounter) frames(p []byte) {
	for len(p) > 0 {
		if g.left > 0 {
			n := min(g.left, int64(len(p)))
			g.left -= n
			p = p[n:]
			continue
		}
		n := min(5-len(g.prefix), len(p))
		g.prefix = append(g.prefix, p[:n]...)
		p = p[n:]
		if len(g.prefix) < 5 {
			return
		}
		b := g.prefix
		g.left = int64(b[1])<<24 | int64(b[2])<<16 | int64(b[3])<<8 | int64(b[4])
		if b[0]&0x80 == 0 {
			g.exchange.change(func() { g.exchange.half(g.dir).messages++ })
		}
		g.prefix = g.prefix[:0]
	}
}
