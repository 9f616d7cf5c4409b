package wg

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// outboxSize is how many bytes may wait for a stream that takes them too
	// slowly. What comes then is dropped, as by any router whose queue is full.
	outboxSize = 512 << 10
	// outboxBurst is how many may wait where neither they nor what is being written
	// have taken longer than outboxPatience:
	// what connections over a short path may have under way together, up to 2 MB
	// (netstack, peer.allot), comes at once when a goroutine had to wait for a
	// processor, and each packet that is dropped then costs the rate of a round trip.
	outboxBurst = 2 << 20
	// outboxPatience is little enough not to be felt, and much more than what a
	// fast stream takes to write what waits.
	outboxPatience = 20 * time.Millisecond
	// maxFrame is the largest frame.
	maxFrame = frameHeader + 0xffff
	// blockSize fits any frame, and what leaves with one call.
	blockSize = maxFrame
	// recordSize is what a TLS record holds (RFC 8446, section 5.1).
	recordSize = 16 << 10
)

// Wire is what the connection under TLS may be, so that the records of one block
// leave in one write, and several come with one read; relay.Wire is one. What
// crypto/tls makes of a stream suits its reader when records are not smaller than they
// may be, as they are on new connections otherwise
// (tls.Config.DynamicRecordSizingDisabled).
type Wire interface {
	// Together calls write, and sends at its end what was written meanwhile.
	Together(write func() (int, error)) (int, error)
	// Widen has much read at once from now on.
	Widen()
}

// block is a run of whole frames that wait.
type block struct{ frames []byte } // of capacity blockSize

// blocks are those that are not in use, of all streams of a set.
type blocks struct{ pool sync.Pool }

func (bs *blocks) get() *block { return bs.pool.Get().(*block) }

func (bs *blocks) put(b *block) {
	b.frames = b.frames[:0]
	bs.pool.Put(b)
}

// outbox holds the frames that wait for a stream. An empty one holds no block.
type outbox struct {
	blocks *blocks

	mu      sync.Mutex // guards what follows
	full    []*block   // in order; frames are added to the last
	spare   []*block   // what take returned before
	bytes   int        // in all of full
	writing bool       // what take returned last is not written yet
	since   time.Time  // when that was taken, or else when the first of full came
	closed  bool
}

// put adds packets, and tells for how many there was no room.
func (o *outbox) put(packets [][]byte) (dropped int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, errStreamClosed
	}
	for i, p := range packets {
		if len(p) > maxFrame-frameHeader {
			return 0, fmt.Errorf("a packet of %d bytes is too large for a stream", len(p))
		}
		size := frameHeader + len(p)
		if o.bytes+size > o.room() {
			return len(packets) - i, nil
		}
		if o.bytes == 0 && !o.writing {
			o.since = time.Now()
		}
		o.bytes += size
		last := len(o.full) - 1
		if last < 0 || len(o.full[last].frames)+size > blockSize {
			o.full = append(o.full, o.blocks.get())
			last++
		}
		b := o.full[last]
		b.frames = binary.BigEndian.AppendUint16(b.frames, uint16(len(p)))
		b.frames = append(b.frames, p...)
	}
	return 0, nil
}

// room is how many bytes may wait now.
func (o *outbox) room() int {
	if o.bytes+maxFrame > outboxSize && time.Since(o.since) < outboxPatience {
		return outboxBurst
	}
	return outboxSize
}

// take empties the outbox. What it returns is good until the next call, which means
// that it was written, and the blocks are the caller's.
func (o *outbox) take() []*block {
	o.mu.Lock()
	defer o.mu.Unlock()
	taken := o.full
	clear(o.spare)
	o.full, o.spare, o.bytes = o.spare[:0], taken, 0
	if o.writing = len(taken) > 0; o.writing {
		o.since = time.Now()
	}
	return taken
}

// close drops what waits and takes nothing more.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.full, o.spare, o.bytes, o.closed = nil, nil, 0, true
}

// writeBlock writes frames to a stream's connection. Where it is TLS, no frame
// that fits a record is cut in two, so that the reader finds whole frames in each;
// the records leave together.
func writeBlock(c net.Conn, wire Wire, frames []byte) error {
	if wire == nil {
		_, err := c.Write(frames)
		return err
	}
	_, err := wire.Together(func() (int, error) {
		n := 0
		for n < len(frames) {
			m, err := c.Write(frames[n : n+recordRun(frames[n:])])
			n += m
			if err != nil {
				return n, err
			}
		}
		return n, nil
	})
	return err
}

// recordRun is how many bytes of frames go into the next record, or, where the
// first frame is too large for one, into the next records.
func recordRun(frames []byte) int {
	end := 0
	for {
		packet, _, size := nextFrame(frames[end:])
		if packet == nil || end > 0 && end+size > recordSize {
			return end
		}
		end += size
	}
}
