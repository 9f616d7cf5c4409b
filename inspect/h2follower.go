package inspect

import "encoding/binary"

// h2Follower tells a queue which bytes of HTTP/2 are of bodies of which enough is
// kept. It follows the frames alone, so it must see all bytes of a connection that is
// HTTP/2 from its first one; of any other it tells nothing. It is guarded by queue.mu.
type h2Follower struct {
	preface int // bytes of it that have come; -1: this is no HTTP/2
	ways    [2]h2Way
}

// h2Way is one direction.
type h2Way struct {
	follows bool
	header  [h2HeaderSize]byte // of the frame under way
	have    int                // bytes of it that have come
	left    int64              // payload bytes that are to come
	full    map[uint32]bool    // streams of whose bodies no more is kept; the parser tells
}

const h2WholePreface = h2Preface + "\r\n\r\n" + h2PrefaceRest

// begin looks whether a connection is HTTP/2. p are bytes of a direction that come at
// an offset; those that it takes are to be copied.
func (f *h2Follower) begin(dir direction, p []byte, offset int64) (n int) {
	w := &f.ways[dir]
	switch {
	case w.follows:
	case dir == toVisitor:
		w.follows = offset == 0 && f.preface == len(h2WholePreface)
	case f.preface >= 0 && int64(f.preface) == offset:
		n = min(len(p), len(h2WholePreface)-f.preface)
		if string(p[:n]) != h2WholePreface[f.preface:f.preface+n] {
			f.preface = -1
			return n
		}
		f.preface += n
		w.follows = f.preface == len(h2WholePreface)
	}
	return n
}

// next takes from the beginning of p bytes that are to be copied, and how many behind
// them are not.
func (w *h2Way) next(p []byte) (keep, skip int) {
	if !w.follows {
		return len(p), 0
	}
	for keep < len(p) {
		if w.left > 0 {
			n := int(min(w.left, int64(len(p)-keep)))
			w.left -= int64(n)
			if w.unwanted() {
				return keep, n
			}
			keep += n
			continue
		}
		n := copy(w.header[w.have:], p[keep:])
		keep += n
		if w.have += n; w.have == h2HeaderSize {
			h := w.header
			w.have, w.left = 0, h2Length(h[:])
		}
	}
	return keep, 0
}

// leastSpared is how long the payload of a frame is at least that is not copied. The
// gap and the chunk for the next frame's header take that much in the queue: small
// frames would fill it sooner than their bytes do, and bytes that are wanted be missing.
const leastSpared = smallChunk + 2*chunkOverhead

// unwanted tells whether the frame under way is a part of a body of which enough is
// kept, and long. Padded ones are copied: the parser reads how much of them is padding.
func (w *h2Way) unwanted() bool {
	h := w.header[:]
	return len(w.full) > 0 && h2Length(h) >= leastSpared && h[3] == h2Data && h[4]&h2Padded == 0 && w.full[h2StreamID(h[5:])]
}

// h2Length reads how long a frame's payload is (RFC 9113, 4.1).
func h2Length(p []byte) int64 { return int64(p[0])<<16 | int64(p[1])<<8 | int64(p[2]) }

// h2StreamID reads a stream's number (RFC 9113, 4.1).
func h2StreamID(p []byte) uint32 { return binary.BigEndian.Uint32(p) & (1<<31 - 1) }

// unwantStream has no more of a stream's body copied, or forgets that stream. The
// parser calls it, for no more streams than it follows.
func (q *queue) unwantStream(dir direction, id uint32, unwanted bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := &q.follower.ways[dir]
	switch {
	case !unwanted:
		delete(w.full, id)
	case w.full == nil:
		w.full = map[uint32]bool{id: true}
	default:
		w.full[id] = true
	}
}
