package inspect

import (
	"bytes"
	"time"
)

// maxChunkLine bounds the line before a chunk, with its extensions.
const maxChunkLine = 4 << 10

// stepLine takes bytes up to the end of a line.
func (s *session) stepLine(r *reader, p []byte, at time.Time) int {
	limit := maxChunkLine
	if r.phase == inTrailer {
		limit = s.insp.cfg.HeadLimit
	}
	n := bytes.IndexByte(p, '\n') + 1
	whole := n > 0
	if !whole {
		n = len(p)
	}
	if len(r.carry)+n > limit {
		s.lose(errChunk.Error(), at)
		return len(p)
	}
	line := p[:n]
	if !whole || len(r.carry) > 0 || r.phase == inTrailer {
		r.carry = append(r.carry, line...)
		line = r.carry[r.scanned:]
	}
	if !whole {
		return n
	}
	line = bytes.TrimRight(line, "\r\n")
	if r.phase == inTrailer {
		s.trailerLine(r, line, at)
		return n
	}
	if err := s.chunkLine(r, line); err != nil {
		s.lose(err.Error(), at)
		return len(p)
	}
	return n
}

func (s *session) chunkLine(r *reader, line []byte) error {
	defer func() { r.carry = nil }()
	if r.phase == inChunkEnd {
		if len(line) > 0 {
			return errChunk
		}
		r.phase = inChunkSize
		return nil
	}
	size, err := chunkSize(line)
	if err != nil {
		return err
	}
	r.phase, r.left = inChunk, size
	if size == 0 {
		r.phase = inTrailer
	}
	return nil
}

// trailerLine collects trailers in carry; scanned is where the next begins.
func (s *session) trailerLine(r *reader, line []byte, at time.Time) {
	if len(line) > 0 {
		r.scanned = len(r.carry)
		return
	}
	list, err := parseFields(string(r.carry))
	r.carry, r.scanned = nil, 0
	if err != nil {
		s.lose(err.Error(), at)
		return
	}
	x := r.exchange
	if len(list) > 0 {
		x.change(func() {
			if !x.gone {
				x.half(r.dir).trailers = list
			}
		})
	}
	s.messageRead(r, at)
}
