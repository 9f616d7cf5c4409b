package inspect

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// h2Script is a random connection of HTTP/2: up to 12 streams at once, each frame of
// which comes whenever it likes.
type h2Script struct {
	t       testing.TB
	r       *rand.Rand
	blocks  [2]*h2block
	turns   []turn
	next    uint32
	streams []*h2ScriptStream
}

type h2ScriptStream struct {
	id    uint32
	kind  string // content type
	begun [2]bool
	ended [2]bool
}

func (s *h2Script) say(dir direction, frames string) {
	s.turns = append(s.turns, turn{dir, frames})
}

// head says a header block, in several frames at times.
func (s *h2Script) head(dir direction, id uint32, flags byte, block string) {
	payload := block
	if s.r.IntN(4) == 0 {
		payload, flags = "\x00\x00\x00\x00\x10"+payload, flags|h2Priority
	}
	cut := len(payload)
	if s.r.IntN(3) == 0 {
		cut = len(payload) - s.r.IntN(len(block)+1)
	}
	first, rest := payload[:cut], payload[cut:]
	if s.r.IntN(4) == 0 {
		pad := s.r.IntN(256)
		first, flags = string([]byte{byte(pad)})+first+strings.Repeat("p", pad), flags|h2Padded
	}
	if cut == len(payload) {
		s.say(dir, h2frame(h2Headers, flags|h2EndHeaders, id, first))
		return
	}
	half := s.r.IntN(len(rest) + 1)
	s.say(dir, h2frame(h2Headers, flags, id, first)+h2frame(h2Continuation, 0, id, rest[:half])+h2frame(h2Continuation, h2EndHeaders, id, rest[half:]))
}

// data says a piece of a body. Its bytes look like frames of their own.
func (s *h2Script) data(dir direction, id uint32, flags byte) {
	n := []int{0, 1, 8, 9, 10, 100, 1000, 4000, 9000}[s.r.IntN(9)]
	fake := h2frame(byte(s.r.IntN(10)), byte(s.r.IntN(256)), id, "x")
	body := strings.Repeat(fake, n/len(fake)+1)[:n]
	if s.r.IntN(4) == 0 {
		pad := s.r.IntN(256)
		body, flags = string([]byte{byte(pad)})+body+strings.Repeat("p", pad), flags|h2Padded
	}
	if s.r.IntN(4) == 0 {
		id |= 1 << 31 // reserved, and ignored
	}
	s.say(dir, h2frame(h2Data, flags, id, body))
}

func (s *h2Script) step() {
	dir := direction(s.r.IntN(2))
	if len(s.streams) < 12 && s.r.IntN(4) == 0 {
		x := &h2ScriptStream{id: s.next, kind: []string{"text/plain", "application/grpc", "text/event-stream"}[s.r.IntN(3)]}
		s.next += 2
		x.begun[toUpstream] = true
		flags := byte(0)
		if s.r.IntN(3) == 0 {
			flags, x.ended[toUpstream] = h2EndStream, true
		}
		s.head(toUpstream, x.id, flags, s.blocks[toUpstream].of(s.t, ":method", "POST", ":path", fmt.Sprintf("/%d", x.id), "content-type", x.kind))
		s.streams = append(s.streams, x)
		return
	}
	if s.r.IntN(8) == 0 || len(s.streams) == 0 {
		kind := []byte{2, 4, 6, 8, 0xfa}[s.r.IntN(5)]
		s.say(dir, h2frame(kind, byte(s.r.IntN(256)), 0, strings.Repeat("\x00", s.r.IntN(30))))
		return
	}
	n := s.r.IntN(len(s.streams))
	x := s.streams[n]
	switch {
	case s.r.IntN(40) == 0:
		s.say(dir, h2frame(h2Reset, 0, x.id, "\x00\x00\x00\x08"))
		if s.r.IntN(2) == 0 { // the other end has not heard of that
			s.data(1-dir, x.id, 0)
		}
		x.ended = [2]bool{true, true}
	case x.ended[dir]:
	case !x.begun[dir]:
		x.begun[dir] = true
		s.head(dir, x.id, 0, s.blocks[dir].of(s.t, ":status", "200", "content-type", x.kind))
	case s.r.IntN(12) == 0:
		x.ended[dir] = true
		if s.r.IntN(2) == 0 {
			s.data(dir, x.id, h2EndStream)
		} else {
			s.head(dir, x.id, h2EndStream, s.blocks[dir].of(s.t, "x-sum", fmt.Sprint(s.r.IntN(3))))
		}
	default:
		s.data(dir, x.id, 0)
	}
	if x.ended == [2]bool{true, true} {
		s.streams = slices.Delete(s.streams, n, n+1)
	}
}

// h2Random is a connection, in which for some seeds a byte is wrong.
func h2Random(t testing.TB, seed uint64, wrong bool) []turn {
	s := &h2Script{t: t, r: rand.New(rand.NewPCG(seed, 7)), blocks: [2]*h2block{newH2Block(), newH2Block()}, next: 1}
	s.say(toUpstream, h2Start)
	for range 300 {
		s.step()
	}
	if wrong {
		u := &s.turns[1+s.r.IntN(len(s.turns)-1)]
		p := []byte(u.text)
		p[s.r.IntN(min(h2HeaderSize, len(p)))] = byte(s.r.IntN(256))
		u.text = string(p)
	}
	return s.turns
}

// TestHTTP2SparedAtRandom: whatever comes, in whatever pieces, the same is told of it
// whether the ends of long bodies are copied or not.
func TestHTTP2SparedAtRandom(t *testing.T) {
	spared := 0
	for seed := range uint64(30) {
		wrong := seed%5 == 4
		turns := h2Random(t, seed, wrong)
		pass := func(spare bool) (told []string, copied int) {
			i := open(t, Config{BodyLimit: []int{1, 2000, 20_000}[seed%3], QueueBytes: 64 << 20, MaxBytes: 256 << 20})
			s := i.newSession(Meta{}, nil)
			if !spare {
				s.follower.preface = -1
			}
			drain := func() {
				for c := s.queue.head; c != nil; c = c.next {
					copied += len(c.data)
				}
				s.drain()
			}
			r := rand.New(rand.NewPCG(seed, 8))
			for n, u := range turns {
				for p := []byte(u.text); len(p) > 0; {
					k := len(p)
					switch {
					case n == 0:
						k = 1
					case seed%4 == 1:
						k = 1 + r.IntN(len(p))
					case seed%4 == 2:
						k = min(len(p), 1+r.IntN(12))
					}
					s.push(u.dir, p[:k])
					p = p[k:]
					if r.IntN(6) == 0 {
						drain()
					}
				}
			}
			drain()
			if !wrong && s.lost {
				t.Fatalf("seed %d: the connection was lost", seed)
			}
			for dir, w := range s.follower.ways {
				if s.h2 != nil && len(w.full) > len(s.h2.streams) {
					t.Errorf("seed %d: %d streams are remembered %v, %d followed", seed, len(w.full), direction(dir), len(s.h2.streams))
				}
			}
			return describeAll(i.ring.newest()), copied
		}
		all, copied := pass(false)
		told, less := pass(true)
		if !slices.Equal(told, all) {
			t.Fatalf("seed %d: spared\n%s\ncopied\n%s", seed, strings.Join(told, "\n"), strings.Join(all, "\n"))
		}
		spared += copied - less
	}
	if spared == 0 {
		t.Error("nothing was spared")
	}
}
