package edge

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

// batched has what a test sends go out in large pieces: a record of TLS for each
// frame of a flood takes a loaded machine longer than the flood is about.
func (h *rawH2) batched() *bufio.Writer {
	w := bufio.NewWriterSize(h.conn, 16<<10)
	h.framer = http2.NewFramer(w, h.conn)
	h.framer.AllowIllegalWrites = true
	return w
}

// Streams that are opened and reset at once (CVE-2023-44487) do not dial more than
// a tunnel may, though the dials of requests that are over go on.
func TestRapidReset(t *testing.T) {
	const bound = 100
	r := newRig(t, func(r *rig) { r.limits.dials = bound })
	var mu sync.Mutex
	running, most := 0, 0
	first := make(chan struct{}, 1)
	r.dialer.set(1, func(ctx context.Context) (net.Conn, error) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		select {
		case first <- struct{}{}:
		default:
		}
		<-ctx.Done()
		mu.Lock()
		running--
		mu.Unlock()
		return nil, ctx.Err()
	})
	r.apply(httpEntry(1, "app.edge.test"))
	h := r.rawH2()
	go io.Copy(io.Discard, h.conn) // what the server says does not matter
	w := h.batched()
	open := func(stream uint32) error {
		return h.framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: stream, EndHeaders: true, EndStream: true,
			BlockFragment: h.headers(":method", "GET", ":scheme", "https", ":authority", "app.edge.test", ":path", "/"),
		})
	}
	// One that stays, so that it is seen that requests come through at all.
	if err := errors.Join(open(1), w.Flush()); err != nil {
		t.Fatal(err)
	}
	await(t, first, "dial")
	var err error
	for i := uint32(1); i <= 5000 && err == nil; i++ {
		if err = open(2*i + 1); err == nil {
			err = h.framer.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
		}
	}
	// An error says that the server has had enough.
	if err = errors.Join(err, w.Flush()); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	h.conn.Close()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if most > bound {
		t.Errorf("%d dials ran at once, more than %d", most, bound)
	}
}

// Endless headers and frames that ask for answers which nobody reads: the server
// gives the connection up before it holds much.
func TestHTTP2Floods(t *testing.T) {
	const (
		enough = 32 << 20 // bytes sent: more than kernels hold for both sides
		most   = 4 << 20  // bytes held
	)
	held := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for name, flood := range map[string]func(*rawH2) error{
		"CONTINUATION": func(h *rawH2) error {
			fragment := h.headers("x", strings.Repeat("y", 8<<10))
			return h.framer.WriteContinuation(1, false, fragment)
		},
		"SETTINGS": func(h *rawH2) error { return h.framer.WriteSettings() },
		"PING":     func(h *rawH2) error { return h.framer.WritePing(false, [8]byte{}) },
		"RST":      func(h *rawH2) error { return h.framer.WriteData(1, false, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.cfg.HTTPS = smallBuffers{r.cfg.HTTPS} })
			r.upstream(1, greet)
			r.apply(httpEntry(1, "app.edge.test"))
			h := r.rawH2()
			out := h.batched()
			if name == "CONTINUATION" {
				h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.headers(":method", "GET")})
			}
			before := held()
			counter := &countingWriter{w: out}
			h.framer = http2.NewFramer(counter, h.conn)
			h.framer.AllowIllegalWrites = true
			var err error
			limit := enough
			if name == "SETTINGS" {
				limit = 512 << 10
			}
			for err == nil && counter.n < limit {
				err = flood(h)
			}
			if err == nil {
				err = out.Flush()
			}
			// Settings are answered in turn, and their number alone does no harm.
			if err == nil && name != "SETTINGS" {
				_, err = io.Copy(io.Discard, h.conn) // a GOAWAY goes before the end
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after %d bytes the connection is still there: %v", counter.n, err)
			}
			if after := held(); after > before+most {
				t.Errorf("%d bytes made the edge hold %d", counter.n, after-before)
			}
			// Others are not touched by it.
			if _, body := r.get(r.client(nil), "https://app.edge.test/"); body != "hello from app.edge.test" {
				t.Errorf("%q", body)
			}
		})
	}
}

// smallBuffers has the kernel hold little of what visitors do not read, so that it
// is the server that has to.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetWriteBuffer(16 << 10)
	}
	return c, err
}

type countingWriter struct {
	w io.Writer
	n int
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += n
	return n, err
}
