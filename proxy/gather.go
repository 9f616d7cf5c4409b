package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
)

const (
	// heldMost bounds what is held of an answer, in bytes: with the frames of TLS it
	// fits what a Gatherer keeps.
	heldMost = 64 << 10

	// leastPiece is not worth a read of its own.
	leastPiece = 8 << 10
)

// gatherKey is where a request's context has the [Gatherer] of its connection.
type gatherKey struct{}

// gathering makes one write of what is there of an answer at the same time. By itself
// httputil.ReverseProxy flushes the header, from another goroutine, and then each
// piece that it reads, of which net/http's server makes up to three writes: what fills
// its buffer up, what is left, and what is less than a buffer. Each is a TLS record, a
// system call, and a packet that wakes the visitor.
//
// Where the visitor's connection is no [Gatherer], or carries the answers of several
// requests, the server is at least flushed no more often than that.
//
// Nothing waits: what is held leaves before a read of the upstream's connection that
// would block.
type gathering struct {
	w    http.ResponseWriter
	to   Gatherer      // nil: the server alone holds what is written, as much as it likes
	from *upstreamConn // by which the answer comes; nil: by another kind of connection
	on   bool          // set before the answer begins, if at all

	mu      sync.Mutex // guards all below, and w: the reverse proxy flushes the header from another goroutine
	holding bool
	held    int  // bytes written since Hold
	begun   bool // flushed once
	broken  bool // the answer broke off
}

// follow has ctx tell by which connection the answer comes.
func (g *gathering) follow(ctx context.Context) context.Context {
	g.to, _ = ctx.Value(gatherKey{}).(Gatherer)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { g.from, _ = info.Conn.(*upstreamConn) },
		// The transport is about to wait for the next answer, while the read of the body
		// that met the end has not returned yet.
		PutIdleConn: func(error) {
			if g.on {
				g.from.done(g)
			}
		},
	})
}

// begin has what follows of the answer held, where it can be told when to let go. The
// connection of an answer without a body is another request's by now.
func (g *gathering) begin(res *http.Response) {
	if g.from == nil || g.from.readable == nil || res.StatusCode == http.StatusSwitchingProtocols || empty(res) {
		return
	}
	g.on = true
	res.Body = &awaited{ReadCloser: res.Body, g: g}
}

// empty reports whether an answer is a header and nothing else, as is one to HEAD that
// says how long it would be.
func empty(res *http.Response) bool { return res.ContentLength == 0 || res.Body == http.NoBody }

// hold is called before something is written.
func (g *gathering) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holdLocked()
}

func (g *gathering) holdLocked() {
	switch {
	case g.to == nil:
		g.holding = true
	case !g.holding:
		g.holding, g.held = g.to.Hold(), 0
	}
}

// write writes a piece of the answer.
func (g *gathering) write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holdLocked()
	n, err := g.w.Write(b)
	if g.to == nil {
		return n, err
	}
	if g.held += n; err == nil && g.held > heldMost-leastPiece {
		err = g.letGoLocked()
	}
	return n, err
}

// room is how much may be written before what is held leaves; more than leastPiece.
func (g *gathering) room() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.to == nil || !g.holding {
		return heldMost
	}
	return heldMost - g.held
}

// flush makes the server let go of what it has; what is held stays so. Where only the
// server holds, that is for the header, which says by it that no length is known.
func (g *gathering) flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.to == nil && g.begun {
		return nil
	}
	g.begun = true
	return http.NewResponseController(g.w).Flush()
}

// letGo sends what is held.
func (g *gathering) letGo() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.letGoLocked()
}

func (g *gathering) letGoLocked() error {
	if !g.holding {
		return nil
	}
	g.holding, g.begun = false, true
	err := http.NewResponseController(g.w).Flush()
	if g.to != nil {
		err = errors.Join(err, g.to.Release())
	}
	return err
}

// breakOff notes that the rest of the answer does not come.
func (g *gathering) breakOff() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken = true
}

// end is called when nothing more is written. The server lets go of what it has by itself
// when the handler returns, and over HTTP/2 says that it was all; but of an answer that
// broke off it drops what it has.
func (g *gathering) end() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.to == nil && !g.broken {
		return nil
	}
	return g.letGoLocked()
}

// awaited is the body of an answer that is held.
type awaited struct {
	io.ReadCloser
	g *gathering
}

func (b *awaited) Read(p []byte) (int, error) {
	b.g.from.beforeWait(b.g)
	defer b.g.from.done(b.g)
	n, err := b.ReadCloser.Read(p[:min(len(p), b.g.room())])
	if err != nil && err != io.EOF {
		b.g.breakOff()
	}
	return n, err
}
