package inspect

import "slices"

// kept is what is kept of a body: its first bytes, in pieces. A piece that fills
// most of the chunk in which it came stays there, so that a long body is copied
// once on its way from the traffic into the ring; others are copied together.
type kept struct {
	pieces []piece
	size   int // bytes
	memory int // that they take
}

// piece is a part of a body. Bytes that were copied have no chunk.
type piece struct {
	data []byte
	in   *chunk
}

const pieceOverhead = 32

// add keeps p, which lies in c; c may be nil. more is how many bytes are known to
// come behind it.
func (k *kept) add(p []byte, c *chunk, more int64) {
	if len(p) == 0 {
		return
	}
	k.size += len(p)
	if c != nil && len(p) >= cap(c.data)/2 {
		c.retain()
		k.pieces = append(k.pieces, piece{p[:len(p):len(p)], c})
		k.memory += pieceOverhead + c.cost()
		return
	}
	if n := len(k.pieces); n > 0 {
		if last := &k.pieces[n-1]; last.in == nil && len(last.data)+len(p) <= largeChunk {
			k.memory -= cap(last.data)
			last.data = append(last.data, p...)
			k.memory += cap(last.data)
			return
		}
	}
	room := min(int64(len(p))+more, largeChunk)
	data := append(make([]byte, 0, max(int(room), len(p))), p...)
	k.pieces = append(k.pieces, piece{data: data})
	k.memory += pieceOverhead + cap(data)
}

// bytes is a copy: what is kept may be given up, and overwritten, at any time.
func (k *kept) bytes() []byte { return k.appendTo(nil) }

func (k *kept) appendTo(b []byte) []byte {
	b = slices.Grow(b, k.size)
	for _, p := range k.pieces {
		b = append(b, p.data...)
	}
	return b
}

// drop gives the chunks back.
func (k *kept) drop() {
	for _, p := range k.pieces {
		if p.in != nil {
			p.in.release()
		}
	}
	*k = kept{}
}
