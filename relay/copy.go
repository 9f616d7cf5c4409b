package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Stats counts the bytes that one connection took from the other. They are
// right also when Copy returns an error: only bytes that a Write accepted.
type Stats struct{ AtoB, BtoA int64 }

// lastWords is how long the opposite direction may still deliver what a
// broken connection had sent before it broke: a server that refuses an upload
// answers, then resets.
const lastWords = 5 * time.Second

// Copy moves bytes between a and b until both directions have ended, and
// closes both connections before it returns. It returns nil when both sides
// ended cleanly, else the first thing that went wrong; for a reset, on
// whichever side and in whichever call, errors.Is(err, syscall.ECONNRESET).
//
// It owns both connections from the call on. When ctx ends, both are aborted
// and Copy returns context.Cause(ctx). Deadlines set earlier still hold; clear
// them first. While no bytes move, it holds no buffer if the connection can be
// waited on (see the package comment), and one if not.
func Copy(ctx context.Context, a, b net.Conn) (Stats, error) {
	p := &pair{a: a, b: b, running: 2, ended: make(chan struct{})}
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cancelled)
		p.fail(context.Cause(ctx))
		p.abort()
	})

	ab := newDirection(p, "a to b", a, b)
	ba := newDirection(p, "b to a", b, a)
	ab.opposite, ba.opposite = ba, ab
	p.watch = newWatch(ab, ba)

	// This goroutine is for the direction that needs one to wait.
	here, there := ab, ba
	if here.parks() {
		here, there = there, here
	}
	go there.run()
	here.run()
	<-p.ended

	p.watch.stop()
	if !stop() {
		<-cancelled
	}
	return Stats{AtoB: ab.moved, BtoA: ba.moved}, p.finish()
}

// pair is what the two directions share.
type pair struct {
	a, b  net.Conn
	watch *watch

	mu      sync.Mutex  // guards what follows
	running int         // directions that still move bytes
	err     error       // what went wrong first
	broken  bool        // err is set and both ends are to be aborted
	grace   *time.Timer // see lastWords

	abortOnce sync.Once

	ended chan struct{} // closed after both directions have run
}

// fail notes err, unless something went wrong before.
func (p *pair) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failLocked(err)
}

func (p *pair) failLocked(err error) {
	if p.err == nil {
		p.err = err
	}
	p.broken = true
}

// failSoon notes err and leaves the direction that still runs, if any, a
// limited time to end by itself.
func (p *pair) failSoon(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failLocked(err)
	if p.running > 1 && p.grace == nil {
		p.grace = time.AfterFunc(lastWords, p.abort)
	}
}

// isBroken reports whether an end must not be passed on as a clean one.
func (p *pair) isBroken() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

// done notes that a direction moves no more bytes. After the second, the
// connections are closed.
func (p *pair) done() {
	p.mu.Lock()
	p.running--
	last, broken := p.running == 0, p.broken
	p.mu.Unlock()
	switch {
	case !last:
	case broken:
		p.abort()
	default:
		// Both directions have ended and their ends were passed on; what
		// Close may still complain about concerns nobody.
		_ = p.a.Close()
		_ = p.b.Close()
	}
	if last {
		close(p.ended)
	}
}

// abort resets both connections. It may be called beside anything.
func (p *pair) abort() {
	p.abortOnce.Do(func() {
		Abort(p.a)
		Abort(p.b)
	})
}

// finish is called after both directions have returned.
func (p *pair) finish() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.grace != nil {
		p.grace.Stop() // a late abort of closed connections does nothing
	}
	return p.err
}

// direction moves bytes one way.
type direction struct {
	*pair
	name     string // for errors
	src, dst net.Conn
	source   source // of src
	opposite *direction
	moved    int64 // bytes; read after run

	sentFIN   atomic.Bool // this direction has begun to half-close dst
	closedDst atomic.Bool // it closed dst, which has no half-close
	progress  progress
}

func newDirection(p *pair, name string, src, dst net.Conn) *direction {
	d := &direction{pair: p, name: name, src: src, dst: dst}
	d.source = newSource(src, d.resume, func() bool { return d.opposite.sentFIN.Load() })
	return d
}

// parks tells whether the direction needs no goroutine while it waits.
func (d *direction) parks() bool {
	_, ok := d.source.(*callingSource)
	return ok
}

func (d *direction) resume() { go d.run() }

// run moves bytes until the direction ends, or until it is parked; then resume
// goes on.
func (d *direction) run() {
	if d.pump() {
		return
	}
	d.progress.end()
	d.watch.start()
	d.done()
}

// pump copies until src ends or either side breaks, and tells the other side. It
// reports whether it is parked instead.
func (d *direction) pump() (parked bool) {
	for {
		b, n, err := d.source.read()
		if err == errParked {
			return true
		}
		if b != nil {
			d.progress.begin()
			d.watch.start()
			written, werr := d.dst.Write(b[:n])
			d.progress.begun()
			buffers.giveBack(b)
			d.moved += int64(written)
			if werr != nil {
				// dst takes no more. What it sent before may still be
				// on its way to src, so src is not reset yet.
				d.failSoon(fmt.Errorf("relay %s: write: %w", d.name, asReset(werr)))
				return false
			}
		}
		switch {
		case err == nil:
		case err == io.EOF, d.opposite.closedDst.Load():
			d.end()
			return false
		default:
			// Everything that src sent has been passed on, and nothing
			// can reach it any more.
			d.fail(fmt.Errorf("relay %s: read: %w", d.name, asReset(err)))
			d.abort()
			return false
		}
	}
}

// end passes the clean end of src on to dst.
func (d *direction) end() {
	if d.isBroken() {
		return // dst shall see a reset, which done or abort sends
	}
	d.sentFIN.Store(true)
	if err := d.closeWrite(); err != nil {
		d.failSoon(fmt.Errorf("relay %s: close: %w", d.name, asReset(err)))
	}
}

func (d *direction) closeWrite() error {
	switch dst := d.dst.(type) {
	case *tls.Conn:
		// CloseWrite refuses before the handshake, which an end before the
		// first byte can overtake.
		if err := dst.Handshake(); err != nil {
			return err
		}
		return dst.CloseWrite()
	case interface{ CloseWrite() error }:
		return dst.CloseWrite()
	}
	// The only end that such a connection knows is a whole one.
	d.closedDst.Store(true)
	return d.dst.Close()
}

// Abort closes c so that its peer sees a reset where c's kind has one, and not an
// end: what was sent is not whole.
func Abort(c net.Conn) {
	switch conn := c.(type) {
	case interface{ Abort() }:
		conn.Abort()
		return
	case interface{ NetConn() net.Conn }: // TLS: without a close_notify, which would be a clean end
		Abort(conn.NetConn())
		return
	case interface{ SetLinger(int) error }:
		_ = conn.SetLinger(0) // fails only on a closed socket, and then is not needed
	}
	_ = c.Close()
}
