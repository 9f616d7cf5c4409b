package inspect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stream is a connection whose bytes come when a test says so.
type stream struct {
	t testing.TB
	*session
}

func newStream(t testing.TB, i *Inspector) stream { return stream{t, i.newSession(Meta{}, nil)} }

// say has all pass in pieces as a relay moves them, and be parsed.
func (s stream) say(turns ...turn) {
	for _, u := range turns {
		for p := []byte(u.text); len(p) > 0; {
			n := min(len(p), 59_400)
			s.push(u.dir, p[:n])
			clear(p[:n]) // it is the relay's buffer, and used again
			p = p[n:]
		}
	}
	s.drain()
}

func length(body string) turn {
	return ans("HTTP/1.1 200 OK\nContent-Length: " + strconv.Itoa(len(body)) + "\n\n" + body)
}

// newest is the last answer's body as the API tells of it.
func (s stream) newest() Half {
	s.t.Helper()
	list := s.insp.ring.newest()
	if len(list) == 0 {
		s.t.Fatal("nothing is kept")
	}
	return s.insp.detail(list[0]).Response
}

// rushed has so much pass that there is a rush.
func (s stream) rushed() {
	s.t.Helper()
	body := strings.Repeat("r", 100<<10)
	for range 1000 {
		if s.insp.Usage().Rush {
			return
		}
		s.say(req(get), length(body))
	}
	s.t.Fatal("there is no rush")
}

// small is a ring that 70 bodies of 100 KiB turn over.
var small = Config{MaxBytes: 8 << 20, QueueBytes: 1 << 20}

// TestRush: bodies are whole while somebody can look at them before they go, and
// short while nobody can; that depends on the traffic alone.
func TestRush(t *testing.T) {
	const size = 100 << 10
	body := strings.Repeat("b", size)
	synctest.Test(t, func(t *testing.T) {
		i := open(t, small)
		s := newStream(t, i)
		visit := func(pause time.Duration) Half {
			time.Sleep(pause)
			s.say(req(get), length(body))
			return s.newest()
		}
		for n := range 300 { // the ring is turned over four times, each time in seven seconds
			if m := visit(100 * time.Millisecond); m.Kept != size || m.Cut {
				t.Fatalf("slow, %d: %+v", n, m)
			}
		}
		time.Sleep(time.Minute)
		whole := 0
		for m := visit(0); m.Kept == size && whole < 1000; m = visit(time.Millisecond) {
			whole++
		}
		if most := int(i.ring.mostBytes / size); whole < most*9/10 || whole > most {
			t.Errorf("the rush began after %d bodies; the ring has room for %d", whole, most)
		}
		// As fast as is just enough. What is kept of it would now fit for 12 seconds.
		for n := range 2000 {
			m := visit(rushTime * size / time.Duration(i.ring.mostBytes))
			if m.Kept != rushLimit || m.Size != size || !m.Cut || !m.Done || m.CutWhy != rushWhy {
				t.Fatalf("fast, %d: %+v", n, m)
			}
		}
		if u := i.Usage(); !u.Rush || u.BodyLimit != rushLimit {
			t.Errorf("%+v", u)
		}
		visit(0)
		if m := visit(rushTime); m.Kept != size || m.Cut || m.CutWhy != "" {
			t.Errorf("after it: %+v", m)
		}
		if u := i.Usage(); u.Rush || u.BodyLimit != 256<<10 {
			t.Errorf("after it: %+v", u)
		}
	})
}

// TestRushOfSmall: what is short anyway is whole in a rush.
func TestRushOfSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(t, open(t, small))
		s.rushed()
		for _, size := range []int{0, 1, rushLimit - 1, rushLimit} {
			body := strings.Repeat("s", size)
			s.say(req("POST / HTTP/1.1\nContent-Length: "+strconv.Itoa(size)+"\n\n"+body), length(body))
			x := s.insp.ring.newest()[0]
			for _, dir := range []direction{toUpstream, toVisitor} {
				if b := x.storedBody(dir); string(b.bytes) != body || b.cut || b.cutWhy != "" {
					t.Errorf("%d bytes, %v: %d, %v, %q", size, dir, len(b.bytes), b.cut, b.cutWhy)
				}
			}
		}
	})
}

// TestRushFraming: whatever frames a body of which the end is not kept, what comes
// behind it is understood.
func TestRushFraming(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 10<<10)
	short := body[:rushLimit]
	post := "POST / HTTP/1.1\nHost: h\n"
	chunks := func(of int) string {
		var b strings.Builder
		for rest := body; rest != ""; {
			n := min(of, len(rest))
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		return b.String() + "0\r\nX-Sum: 1\r\n\r\n"
	}
	long := fmt.Sprint("Content-Length: ", len(body), "\n\n")
	half := func(name, body string, size int) string { return fmt.Sprintf("%s %d %q", name, size, body) }
	request := "http done POST / | " + half("request", short, len(body)) + " cut done"
	answer := " | 200 OK | " + half("answer", short, len(body)) + " cut done"
	after := `http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`
	for _, c := range []conversation{
		{"by length", []turn{req(post + long + body), ans("HTTP/1.1 200 OK\n" + long + body), req(get), ans(ok)}, visitorEnds,
			[]string{request + answer, after}},
		{"large chunks", []turn{req(post + "Transfer-Encoding: chunked\n\n"), {toUpstream, chunks(50_000)}, ans("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"), {toVisitor, chunks(70_000)}, req(get), ans(ok)}, visitorEnds,
			[]string{request + " X-Sum=1" + answer + " X-Sum=1", after}},
		{"small chunks", []turn{req(get), ans("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"), {toVisitor, chunks(1000)}, req(get), ans(ok)}, visitorEnds,
			[]string{`http done GET / | request 0 "" done` + answer + " X-Sum=1", after}},
		{"to the end", []turn{req(get), ans("HTTP/1.1 200 OK\n\n" + body)}, upstreamEnds,
			[]string{`http done GET / | request 0 "" done` + answer}},
		{"pipelined", []turn{req(strings.Repeat(get, 3) + strings.Replace(get, "GET", "HEAD", 1) + get), ans(strings.Repeat("HTTP/1.1 200 OK\n"+long+body, 3) + "HTTP/1.1 200 OK\n" + long + ok)}, visitorEnds,
			[]string{`http done GET / | request 0 "" done` + answer, `http done GET / | request 0 "" done` + answer, `http done GET / | request 0 "" done` + answer,
				`http done HEAD / | request 0 "" done | 200 OK | answer 0 "" done`, after}},
		{"cut off", []turn{req(get), ans("HTTP/1.1 200 OK\n" + long + body[:100_000])}, upstreamEnds,
			[]string{`http failed GET / | request 0 "" done | 200 OK | ` + half("answer", short, 100_000) + ` cut | error: the upstream closed the connection in the middle of the answer`}},
		{"gRPC", []turn{req("POST /s/M HTTP/1.1\nContent-Type: application/grpc-web+proto\n" + long), {toUpstream, strings.Repeat("\x00\x00\x00\x03\xfb"+strings.Repeat("g", 1019), 160)}, ans(ok)}, visitorEnds,
			[]string{"grpc done POST /s/M | " + half("request", strings.Repeat("\x00\x00\x00\x03\xfb"+strings.Repeat("g", 1019), 16), len(body)) + ` cut done grpc=160 | 200 OK | answer 2 "ok" done`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := open(t, small)
				newStream(t, i).rushed()
				i.Clear()
				s := newStream(t, i)
				s.say(c.turns...)
				s.end(func(e *ends) { *e = c.ends })
				s.drain()
				list := i.ring.newest()
				slices.Reverse(list)
				if got := describeAll(list); !slices.Equal(got, c.want) {
					t.Errorf("got\n%.2000s\nwant\n%.2000s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
				}
			})
		})
	}
}

// TestRushHTTP2: the same of frames.
func TestRushHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := open(t, small)
		newStream(t, i).rushed()
		s := newStream(t, i)
		up, down := newH2Block(), newH2Block()
		frame := strings.Repeat("f", 16<<10)
		s.say(turn{toUpstream, h2Start})
		for id := uint32(1); id < 20; id += 2 {
			s.say(turn{toUpstream, h2frame(h2Headers, h2EndHeaders|h2EndStream, id, up.of(t, ":method", "GET", ":path", "/"))},
				turn{toVisitor, h2frame(h2Headers, h2EndHeaders, id, down.of(t, ":status", "200")) + strings.Repeat(h2frame(h2Data, 0, id, frame), 5) + h2frame(h2Data, h2EndStream, id, "end")})
			if m := s.newest(); m.Kept != rushLimit || m.Size != 5*16<<10+3 || !m.Cut || !m.Done || m.CutWhy != rushWhy {
				t.Fatalf("stream %d: %+v", id, m)
			}
		}
	})
}

// TestRushReplay: a request that is not whole says why it is not sent again, and
// whoever sends one again sees all of its answer.
func TestRushReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := open(t, small)
		s := newStream(t, i)
		s.rushed()
		s.origin.redial = redialOf(nil)
		body := strings.Repeat("b", 40_000)
		s.say(req("POST /in HTTP/1.1\nHost: h\nContent-Length: 40000\n\n"+body), ans(ok))
		x := i.ring.newest()[0]
		if _, err := x.replayRequest(Changes{}); !errors.Is(err, ErrNotWhole) || !strings.Contains(err.Error(), rushWhy) {
			t.Errorf("it is replayed: %v", err)
		}
		other := []byte("other")
		if o, err := x.replayRequest(Changes{Body: &other}); err != nil || string(o.body) != "other" {
			t.Errorf("with a body of its own: %v", err)
		}
		again := newStream(t, i)
		again.replay(i.nextID(), x.sequence)
		again.say(req(get), length(body))
		if m := again.newest(); m.Kept != len(body) || m.Cut {
			t.Errorf("the answer to a replay: %+v", m)
		}
	})
}

// TestCutWhy: whoever looks at a body that is not whole is told why, wherever that is.
func TestCutWhy(t *testing.T) {
	const unread = "more came at once than could be read along"
	body := strings.Repeat("b", 300<<10)
	head := turn{toVisitor, crlf("HTTP/1.1 200 OK\nContent-Length: " + strconv.Itoa(len(body)) + "\n\n")}
	for name, c := range map[string]struct {
		pass func(s stream)
		want string
	}{
		"whole": {func(s stream) { s.say(length(body[:256<<10])) }, ""},
		"long":  {func(s stream) { s.say(length(body)) }, "no more than that is kept of any body"},
		"long, and the end is not copied": {func(s stream) { s.say(head, turn{toVisitor, body[:256<<10]}); s.say(turn{toVisitor, body[256<<10:]}) },
			"no more than that is kept of any body"},
		"more than the queue takes": {func(s stream) { s.bound = 64 << 10; s.say(head, turn{toVisitor, body}) }, unread},
		"in a rush":                 {func(s stream) { s.rushed(); s.say(req(get), length(body)) }, rushWhy},
		"in a rush, and the end is not copied": {func(s stream) {
			s.rushed()
			s.say(req(get), head, turn{toVisitor, body[:16<<10]})
			s.say(turn{toVisitor, body[16<<10:]})
		},
			rushWhy},
		"cut off": {func(s stream) {
			s.say(head, turn{toVisitor, body[:10]})
			s.end(func(e *ends) { e.answers = true })
			s.drain()
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := open(t, small)
				s := newStream(t, i)
				if !strings.Contains(name, "rush") {
					s.say(req(get))
				}
				c.pass(s)
				if m := s.newest(); m.CutWhy != c.want || (c.want == "") != (!m.Cut || !m.Done) {
					t.Errorf("%+v; want %q", m, c.want)
				}
				x := i.ring.newest()[0]
				if e := i.harEntry(x); c.want != "" && e.Response.Content.Comment != "only the beginning of the body was kept: "+c.want {
					t.Errorf("HAR: %q", e.Response.Content.Comment)
				}
			})
		})
	}
}
