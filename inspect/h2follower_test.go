package inspect

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// h2Uploads is a connection with a long body in each direction, padded in part, and
// calls of gRPC between its frames.
func h2Uploads(t testing.TB) (turns []turn) {
	up, down := newH2Block(), newH2Block()
	say := func(dir direction, frames ...string) { turns = append(turns, turn{dir, strings.Join(frames, "")}) }
	message := "\x00\x00\x00\x00\x05hello"
	say(toUpstream, h2Start, h2frame(4, 0, 0, ""))
	say(toVisitor, h2frame(4, 0, 0, ""))
	say(toUpstream,
		h2frame(h2Headers, h2EndHeaders, 1, up.of(t, ":method", "POST", ":path", "/long")),
		h2frame(h2Headers, h2EndHeaders, 3, up.of(t, ":method", "POST", ":path", "/call", "content-type", "application/grpc")))
	say(toVisitor,
		h2frame(h2Headers, h2EndHeaders, 1, down.of(t, ":status", "200")),
		h2frame(h2Headers, h2EndHeaders, 3, down.of(t, ":status", "200", "content-type", "application/grpc")))
	for n := range 40 {
		flags, long := byte(0), strings.Repeat(string(rune('a'+n%26)), 3000)
		if n%7 == 0 {
			flags, long = h2Padded, "\x09"+long+strings.Repeat("\x00", 9)
		}
		if n == 39 {
			flags |= h2EndStream
		}
		for _, dir := range []direction{toUpstream, toVisitor} {
			say(dir, h2frame(h2Data, flags, 1, long), h2frame(h2Data, 0, 3, message))
		}
	}
	say(toUpstream, h2frame(h2Data, h2EndStream, 3, ""))
	say(toVisitor, h2frame(h2Headers, h2EndHeaders|h2EndStream, 3, down.of(t, "grpc-status", "0")))
	return turns
}

// TestHTTP2Spared: what is told of a connection is the same, whether the ends of long
// bodies are copied or not, however the bytes come.
func TestHTTP2Spared(t *testing.T) {
	want := []string{
		`http done POST /long | request 120000 `, ` cut done | 200 OK | answer 120000 `,
		`grpc done POST /call | request 400 `, ` done grpc=40 | 200 OK | answer 400 `, ` done grpc=40 grpc-status=0`,
	}
	pass := func(seed uint64, spare bool) (told []string, copied int) {
		i := open(t, Config{BodyLimit: 5000, QueueBytes: 4 << 20})
		s := i.newSession(Meta{}, nil)
		if !spare {
			s.follower.preface = -1
		}
		r := rand.New(rand.NewPCG(seed, 0))
		for _, u := range h2Uploads(t) {
			for p := []byte(u.text); len(p) > 0; {
				n := 1 + r.IntN(len(p))
				if seed == 0 {
					n = len(p)
				}
				s.push(u.dir, p[:n])
				p = p[n:]
				if r.IntN(3) == 0 {
					s.drain()
				}
			}
			for c := s.queue.head; c != nil; c = c.next {
				copied += len(c.data)
			}
			s.drain()
		}
		list := i.ring.newest()
		slices.Reverse(list)
		return describeAll(list), copied
	}
	for seed := range uint64(50) {
		all, copied := pass(seed, false)
		text := strings.Join(all, "\n")
		for _, part := range want {
			if !strings.Contains(text, part) {
				t.Fatalf("seed %d: %s\ndoes not say %q", seed, text, part)
			}
		}
		told, spared := pass(seed, true)
		if !slices.Equal(told, all) {
			t.Fatalf("seed %d: spared\n%s\ncopied\n%s", seed, strings.Join(told, "\n"), text)
		}
		if seed == 0 && spared > copied/3 { // what is padded is copied, and the gRPC
			t.Errorf("%d bytes were copied; without sparing %d", spared, copied)
		}
	}
}

// TestHTTP2BeyondTheQueue: a body that would fill the queue many times while no worker
// comes leaves room for what follows, so that this can be read.
func TestHTTP2BeyondTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := open(t, Config{BodyLimit: 20_000, QueueBytes: 100 << 10})
		s := newStream(t, i)
		up, down := newH2Block(), newH2Block()
		frame := strings.Repeat("f", 16<<10)
		head := func(id uint32) turn {
			return turn{toUpstream, h2frame(h2Headers, h2EndHeaders|h2EndStream, id, up.of(t, ":method", "GET", ":path", "/"))}
		}
		s.say(turn{toUpstream, h2Start}, head(1))
		s.say(turn{toVisitor, h2frame(h2Headers, h2EndHeaders, 1, down.of(t, ":status", "200")) + h2frame(h2Data, 0, 1, frame) + h2frame(h2Data, 0, 1, frame)})
		for range 30 {
			s.push(toVisitor, []byte(h2frame(h2Data, 0, 1, frame)))
		}
		s.say(turn{toVisitor, h2frame(h2Data, h2EndStream, 1, frame)})
		if m := s.newest(); m.Size != 33*16<<10 || m.Kept != 20_000 || !m.Done || m.CutWhy != "no more than that is kept of any body" {
			t.Errorf("%+v", m)
		}
		s.say(head(3), turn{toVisitor, h2frame(h2Headers, h2EndHeaders, 3, down.of(t, ":status", "200")) + h2frame(h2Data, h2EndStream, 3, "next")})
		if m := s.newest(); m.Size != 4 || !m.Done || m.Cut {
			t.Errorf("%+v", m)
		}
		if n := len(s.follower.ways[toVisitor].full); n != 0 {
			t.Errorf("%d streams are remembered", n)
		}
	})
}

// TestHTTP2SparedCostsLess: what the queue holds while no worker comes is never more for
// what is spared, however small the frames are.
func TestHTTP2SparedCostsLess(t *testing.T) {
	for _, size := range []int{1, 100, 1000, leastSpared - 1, leastSpared, 4 << 10, 16 << 10} {
		var cost [2]int // copied, spared
		for spare := range 2 {
			i := open(t, Config{BodyLimit: 1000, QueueBytes: 64 << 20, MaxBytes: 256 << 20})
			s := i.newSession(Meta{}, nil)
			if spare == 0 {
				s.follower.preface = -1
			}
			up, down := newH2Block(), newH2Block()
			s.push(toUpstream, []byte(h2Start+h2frame(h2Headers, h2EndHeaders|h2EndStream, 1, up.of(t, ":method", "GET", ":path", "/"))))
			s.push(toVisitor, []byte(h2frame(h2Headers, h2EndHeaders, 1, down.of(t, ":status", "200"))+h2frame(h2Data, 0, 1, strings.Repeat("f", 2000))))
			s.drain()
			before := s.queue.bytes
			frames := strings.Repeat(h2frame(h2Data, 0, 1, strings.Repeat("f", size)), 1+200_000/size)
			for p := []byte(frames); len(p) > 0; {
				n := min(len(p), 60_000)
				s.push(toVisitor, p[:n])
				p = p[n:]
			}
			cost[spare] = s.queue.bytes - before
		}
		if cost[1] > cost[0] {
			t.Errorf("frames of %d bytes cost %d when they are spared, %d when they are copied", size, cost[1], cost[0])
		}
	}
}
