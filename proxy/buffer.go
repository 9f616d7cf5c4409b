package proxy

import (
	"io"
	"sync"
)

const (
	// copySize holds two TLS records, and what the overlay delivers at once.
	copySize = 32 << 10

	// leanSize is enough for a WebSocket's small talk. Thousands of idle ones
	// hold two of these each.
	leanSize = 2 << 10
)

var copyPool = sync.Pool{New: func() any { return new([copySize]byte) }}

// copyBuffers lends httputil.ReverseProxy its buffers. It goes through pointers
// to arrays, so that giving one back allocates nothing.
type copyBuffers struct{}

func (copyBuffers) Get() []byte  { return copyPool.Get().(*[copySize]byte)[:] }
func (copyBuffers) Put(b []byte) { copyPool.Put((*[copySize]byte)(b)) }

// copyLean copies until EOF. It waits with a small buffer and borrows a large
// one while much is coming.
func copyLean(dst io.Writer, src io.Reader) (total int64, err error) {
	small := make([]byte, leanSize)
	buf := small
	defer func() {
		if len(buf) > leanSize {
			copyBuffers{}.Put(buf)
		}
	}()
	for {
		n, rerr := src.Read(buf)
		if n > 0 {
			written, err := dst.Write(buf[:n])
			total += int64(written)
			if err != nil {
				return total, err
			}
		}
		switch {
		case rerr == io.EOF:
			return total, nil
		case rerr != nil:
			return total, rerr
		case len(buf) == leanSize && n == leanSize:
			buf = copyBuffers{}.Get()
		case len(buf) > leanSize && n <= leanSize:
			copyBuffers{}.Put(buf)
			buf = small
		}
	}
}
