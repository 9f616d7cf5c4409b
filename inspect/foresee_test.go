package inspect

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestForesight has conversations pass in pieces of any length while the parser is
// behind by any number of them: what is foreseen changes nothing of what is
// understood, and spares copies.
func TestForesight(t *testing.T) {
	fill := strings.Repeat("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 3000) // a body like heads
	page := func(n int) string { return fmt.Sprintf("Content-Length: %d\n\n", n) + strings.Repeat("p", n) }
	var answers []string
	var requests []string
	add := func(request, answer string) {
		requests, answers = append(requests, crlf(request)), append(answers, crlf(answer))
	}
	add(get, "HTTP/1.1 200 OK\n"+page(100_000))
	add(get, ok)
	add(get, "HTTP/1.1 200 OK\nContent-Type: text/event-stream\n"+fmt.Sprintf("Content-Length: %d\n\n", 50_000*7)+strings.Repeat("data:x\x00", 50_000))
	add(strings.Replace(get, "GET", "HEAD", 1), "HTTP/1.1 200 OK\nContent-Length: 100000\n\n")
	add(get, "HTTP/1.1 404 Not Found\n"+page(70_000))
	add(strings.Replace(get, "GET", "HEAD", 1), "HTTP/1.1 200 OK\nContent-Length: 90000\n\n")
	add(get, "HTTP/1.1 304 Not Modified\nContent-Length: 80000\n\n")
	add(get, "HTTP/1.1 103 Early Hints\n\nHTTP/1.1 200 OK\n"+page(60_000))
	add(get, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"+fmt.Sprintf("%x\n", 90_000)+strings.Repeat("c", 90_000)+"\n0\n\n")
	add(get, "HTTP/1.1 200 OK\n"+fmt.Sprintf("Content-Length: %d\n\n", len(fill))+fill)
	add(get, "HTTP/1.1 200 OK\n"+page(rushLimit+1))
	add(get, "HTTP/1.1 204 No Content\n\n")
	add(get, "HTTP/1.1 200 OK\n"+page(300_000))
	add(get, ok)
	talk := func(t *testing.T, r *rand.Rand, foresee, behind bool) (list []string, most int64) {
		i := open(t, Config{MaxBytes: 64 << 20, QueueBytes: 4 << 20})
		i.ring.rush.until = time.Now().Add(time.Hour)
		s := newStream(t, i)
		if !foresee {
			s.foresight.rush = nil
		}
		pass := func(dir direction, b []byte) {
			for len(b) > 0 {
				n := min(len(b), 1+r.IntN(59_400))
				s.push(dir, b[:n])
				b = b[n:]
				most = max(most, int64(s.bytes))
				if !behind || r.IntN(4) == 0 {
					s.drain()
				}
			}
		}
		for k := 0; k < len(answers); {
			n := 1 + r.IntN(min(3, len(answers)-k)) // so many are pipelined
			pass(toUpstream, []byte(strings.Join(requests[k:k+n], "")))
			if r.IntN(2) == 0 {
				s.drain()
			}
			pass(toVisitor, []byte(strings.Join(answers[k:k+n], "")))
			k += n
		}
		s.end(func(e *ends) { e.closed = true })
		s.drain()
		all := i.ring.newest()
		slices.Reverse(all)
		for _, x := range all {
			d := i.detail(x)
			list = append(list, fmt.Sprint(describe(x), d.Response.CutWhy))
		}
		return list, most
	}
	synctest.Test(t, func(t *testing.T) {
		var waited [2]int64
		for seed := range uint64(60) {
			want, all := talk(t, rand.New(rand.NewPCG(seed, 3)), false, seed%2 == 0)
			got, some := talk(t, rand.New(rand.NewPCG(seed, 3)), true, seed%2 == 0)
			if len(want) != len(answers) || !slices.Equal(got, want) {
				for k := range got {
					if k >= len(want) || got[k] != want[k] {
						t.Errorf("seed %d, %d: got\n%.300s … %s\nwant\n%.300s … %s", seed, k, got[k], got[k][max(0, len(got[k])-200):], want[min(k, len(want)-1)], want[min(k, len(want)-1)][max(0, len(want[min(k, len(want)-1)])-200):])
					}
				}
				t.Fatalf("seed %d: %d exchanges, without foresight %d, of %d", seed, len(got), len(want), len(answers))
			}
			waited[0], waited[1] = waited[0]+all, waited[1]+some
		}
		if waited[1] >= waited[0] {
			t.Errorf("at most %d bytes waited to be parsed, without foresight %d", waited[1], waited[0])
		}
	})
}

// TestForesightSpares: answers of a connection that is kept alive are copied as far as
// they are kept, though the parser never comes between.
func TestForesightSpares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := open(t, Config{})
		i.ring.rush.until = time.Now().Add(time.Hour)
		s := newStream(t, i)
		answer := []byte(length(strings.Repeat("p", 100<<10)).text)
		for range 20 {
			s.push(toUpstream, []byte(crlf(get)))
			for p := answer; len(p) > 0; {
				n := min(len(p), 59_400)
				s.push(toVisitor, p[:n])
				p = p[n:]
			}
		}
		if most := 20 * (2*largeChunk + 2*smallChunk + 4*chunkOverhead); s.bytes > most {
			t.Errorf("%d bytes wait to be parsed; at most %d are to be", s.bytes, most)
		}
		s.drain()
		list := i.ring.newest()
		for _, x := range list {
			if m := i.detail(x).Response; m.Size != 100<<10 || m.Kept != rushLimit || !m.Done || m.CutWhy != rushWhy {
				t.Errorf("%+v", m)
			}
		}
		if len(list) != 20 {
			t.Errorf("%d exchanges of 20", len(list))
		}
	})
}

// TestForesightAtItsBeginning: of an exchange that began before the rush, the reason is
// the rush's, too.
func TestForesightAtItsBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := open(t, Config{})
		s := newStream(t, i)
		s.say(req(get))
		i.ring.rush.until = time.Now().Add(time.Hour)
		s.say(length(strings.Repeat("p", 100<<10)))
		if m := s.newest(); m.Kept != rushLimit || m.CutWhy != rushWhy || !m.Done {
			t.Errorf("%+v", m)
		}
	})
}

// TestForesightWithinBodies: a body that looks like an answer is none.
func TestForesightWithinBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := open(t, Config{})
		i.ring.rush.until = time.Now().Add(time.Hour)
		s := newStream(t, i)
		inner := length(strings.Repeat("p", 30_000)).text
		s.say(req(get), ans("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"+fmt.Sprintf("%x\n", len(inner)-10_000)))
		s.say(turn{toVisitor, inner[:len(inner)-10_000] + "\r\n0\r\n\r\n"})
		s.say(req(get), ans(ok))
		list := i.ring.newest()
		if len(list) != 2 || i.detail(list[1]).Response.Size != int64(len(inner)-10_000) || i.detail(list[0]).State != StateDone {
			t.Errorf("%.300s", describeAll(list))
		}
	})
}

// TestForesightOfFull: a queue that is full has no more chunks for what was foreseen.
func TestForesightOfFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := open(t, Config{QueueBytes: 100 << 10})
		i.ring.rush.until = time.Now().Add(time.Hour)
		s := newStream(t, i)
		answer := []byte(length(strings.Repeat("p", 50_000)).text)
		for range 1000 {
			s.push(toVisitor, answer)
		}
		if s.bytes > s.bound+2*chunkOverhead {
			t.Errorf("the queue holds %d bytes; its bound is %d", s.bytes, s.bound)
		}
	})
}
