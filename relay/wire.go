package relay

import (
	"encoding/binary"
	"net"
	"sync/atomic"
)

// recordHeader is what is in front of each TLS record, in bytes; the last two are
// the length of what follows (RFC 8446, section 5.1).
const recordHeader = 5

// wireSize is what a wide Wire reads at once: two of the largest records (RFC 8446,
// section 5.2). Much more was slower, being out of the processor's nearer caches when
// it is decrypted.
const wireSize = 2 * (recordHeader + 16<<10 + 256)

// Wire is the connection under the TLS of a stream of packets. Records leave
// together, and several come with one call; crypto/tls writes each by itself, and
// reads little more than one at a time.
type Wire struct {
	net.Conn
	gathering Gathering

	kernel source  // of what is read when it is wide; nil: it never is
	first  []byte  // what was read before, and is to be read again
	in     *buffer // nil: nothing waits in it
	rest   []byte  // of in: what waits
	header [recordHeader]byte
	have   int // of header
	left   int // bytes of the record that are still to be read
	wide   atomic.Bool
}

// NewWire makes a Wire of conn, of which first was read before.
func NewWire(conn net.Conn, first []byte) *Wire {
	return &Wire{Conn: conn, kernel: newKernelSource(conn, wireSize, func() bool { return false }), first: first}
}

// Widen has two records read at once from now on, as is right for who is trusted with
// the memory. A wire that waits holds none of it.
func (w *Wire) Widen() { w.wide.Store(true) }

// Read reads no further than to the end of a record, or of its header, where the wire
// reads ahead: what crypto/tls has beyond that it moves to the front of its buffer, and
// makes that larger. It is for one goroutine at a time.
func (w *Wire) Read(p []byte) (int, error) {
	if w.kernel == nil {
		return w.read(p)
	}
	if w.left > 0 {
		n, err := w.read(p[:min(len(p), w.left)])
		w.left -= n
		return n, err
	}
	if w.have == 0 && len(w.rest) >= recordHeader && len(p) >= recordHeader {
		w.left = recordHeader + bodySize(w.rest)
		return w.Read(p)
	}
	n, err := w.read(p[:min(len(p), recordHeader-w.have)])
	w.have += copy(w.header[w.have:], p[:n])
	if w.have == recordHeader {
		w.have, w.left = 0, bodySize(w.header[:])
	}
	return n, err
}

func bodySize(header []byte) int { return int(binary.BigEndian.Uint16(header[recordHeader-2:])) }

func (w *Wire) read(p []byte) (int, error) {
	if len(w.first) > 0 {
		n := copy(p, w.first)
		if w.first = w.first[n:]; len(w.first) == 0 {
			w.first = nil // let go of the memory
		}
		return n, nil
	}
	if len(w.rest) == 0 {
		if w.kernel == nil || !w.wide.Load() {
			return w.Conn.Read(p)
		}
		b, n, err := w.kernel.read()
		if n == 0 {
			return 0, err
		}
		w.in, w.rest = b, b[:n]
	}
	n := copy(p, w.rest)
	if w.rest = w.rest[n:]; len(w.rest) == 0 {
		buffers.giveBack(w.in)
		w.in, w.rest = nil, nil
	}
	return n, nil
}

// Write sends p, or keeps it for Together.
func (w *Wire) Write(p []byte) (int, error) { return w.gathering.Write(w.Conn, p) }

// Together calls write, and sends at its end what was written meanwhile.
func (w *Wire) Together(write func() (int, error)) (int, error) {
	return w.gathering.Together(w.Conn, write)
}
