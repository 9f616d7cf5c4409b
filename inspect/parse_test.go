package inspect

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// conversation is what passes a connection, and what is to be understood.
type conversation struct {
	name  string
	turns []turn
	ends  ends
	want  []string
}

const (
	get  = "GET / HTTP/1.1\nHost: h\n\n"
	ok   = "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"
	ws   = "GET /ws HTTP/1.1\nHost: h\nConnection: keep-alive, Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: a\n\n"
	wsOK = "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n"
)

func conversations() []conversation {
	return []conversation{
		{"one", []turn{req(get), ans(ok)}, visitorEnds, []string{
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`}},
		{"keep-alive", []turn{req(get), ans(ok), req("POST /b HTTP/1.1\nHost: h\nContent-Length: 4\n\nbody"), ans("HTTP/1.1 201 Created\nContent-Length: 0\n\n")}, visitorEnds, []string{
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`,
			`http done POST /b | request 4 "body" done | 201 Created | answer 0 "" done`}},
		{"pipelining", []turn{req(get + strings.ReplaceAll(get, "GET /", "GET /2") + strings.ReplaceAll(get, "GET", "HEAD")), ans(ok + "HTTP/1.1 404 No\nContent-Length: 3\n\nyes" + "HTTP/1.1 200 OK\nContent-Length: 99\n\n")}, visitorEnds, []string{
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`,
			`http done GET /2 | request 0 "" done | 404 No | answer 3 "yes" done`,
			`http done HEAD / | request 0 "" done | 200 OK | answer 0 "" done`}},
		{"chunked both ways", []turn{
			req("PUT /c HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\nTrailer: X-Sum\n\n3\nabc\n4;ext=1\ndefg\n0\nX-Sum: 7\n\n"),
			ans("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n1\nx\n0\n\n"), req(get), ans(ok)}, visitorEnds, []string{
			`http done PUT /c | request 7 "abcdefg" done X-Sum=7 | 200 OK | answer 1 "x" done`,
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`}},
		{"expect", []turn{
			req("POST / HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 3\n\n"), ans("HTTP/1.1 100 Continue\n\n"), req("abc"),
			ans("HTTP/1.1 103 Early Hints\nLink: </a>\n\n" + ok)}, visitorEnds, []string{
			`http done POST / | request 3 "abc" done | [100 103] | 200 OK | answer 2 "ok" done`}},
		{"until the end", []turn{req("GET / HTTP/1.0\n\n"), ans("HTTP/1.0 200 OK\n\nall of it")}, upstreamEnds, []string{
			`http done GET / | request 0 "" done | 200 OK | answer 9 "all of it" done`}},
		{"no body by status", []turn{req(get), ans("HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n"), req(get), ans("HTTP/1.1 204 No Content\n\n"), req(get), ans(ok)}, visitorEnds, []string{
			`http done GET / | request 0 "" done | 304 Not Modified | answer 0 "" done`,
			`http done GET / | request 0 "" done | 204 No Content | answer 0 "" done`,
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`}},
		{"early answer", []turn{req("POST / HTTP/1.1\nHost: h\nContent-Length: 6\n\nabc"), ans("HTTP/1.1 413 Large\nContent-Length: 1\n\n!"), req("def"), req(get), ans(ok)}, visitorEnds, []string{
			`http done POST / | request 6 "abcdef" done | 413 Large | answer 1 "!" done`,
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`}},
		{"early answer, then the end", []turn{req("POST / HTTP/1.1\nHost: h\nContent-Length: 6\n\nabc"), ans("HTTP/1.1 413 Large\nContent-Length: 0\n\n")}, upstreamEnds, []string{
			`http failed POST / | request 3 "abc" cut | 413 Large | answer 0 "" done | error: the answer was complete before the request was`}},
		{"upgrade refused", []turn{req(ws), ans("HTTP/1.1 403 Forbidden\nContent-Length: 2\n\nno"), req(get), ans(ok)}, visitorEnds, []string{
			`http done GET /ws | request 0 "" done | 403 Forbidden | answer 2 "no" done`,
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`}},
		{"upgrade to something", []turn{req("GET / HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: x\n\nearly"), ans("HTTP/1.1 101 Go\nConnection: Upgrade\nUpgrade: x\n\nabc"), req("late")}, upstreamEnds, []string{
			`upgrade done GET / | request 9 "" done | 101 Go | answer 3 "" done | upgrade x`}},
		{"connect", []turn{req("CONNECT a:1 HTTP/1.1\nHost: a:1\n\n"), ans("HTTP/1.1 200 OK\n\n"), req("12"), ans("345")}, visitorEnds, []string{
			`upgrade done CONNECT a:1 | request 2 "" done | 200 OK | answer 3 "" done | upgrade CONNECT`}},
		{"websocket", []turn{req(ws), ans(wsOK), {toUpstream, frame(0x81, "hello", true)}, {toVisitor, frame(0x01, "wor", false) + frame(0x89, "p", false) + frame(0x80, "ld", false)},
			{toUpstream, frame(0x88, "\x03\xe8bye", true)}}, visitorEnds, []string{
			`websocket done GET /ws | request 22 "" done | 101 Switching Protocols | answer 12 "" done | upgrade websocket` +
				` | 1 to_upstream text size=5 frames=1 "hello" | 2 to_visitor ping size=1 frames=1 "p" | 3 to_visitor text size=5 frames=2 "world"` +
				` | 4 to_upstream close code=1000 size=5 frames=1 "bye"`}},
		{"websocket, spoken before the answer", []turn{req(ws), {toUpstream, frame(0x82, "\xff", true)}, ans(wsOK)}, visitorEnds, []string{
			`websocket done GET /ws | request 7 "" done | 101 Switching Protocols | answer 0 "" done | upgrade websocket | 1 to_upstream binary size=1 frames=1 "\xff"`}},
		{"events", []turn{req(get), ans("HTTP/1.1 200 OK\nContent-Type: text/event-stream; charset=utf-8\n\n"),
			{toVisitor, "\ufeff: hi\n\nevent: add\r\nid: 7\r\ndata: a\r\ndata:b\r\n\r\ndata\n\ndata: c\r\r"}}, upstreamEnds, []string{
			`sse done GET / | request 0 "" done | 200 OK | answer 62 "\ufeff: hi\n\nevent: add\r\nid: 7\r\ndata: a\r\ndata:b\r\n\r\ndata\n\ndata: c\r\r" done` +
				` | 1 to_visitor event name=add id=7 size=2 frames=0 "a\nb" | 2 to_visitor event name= id=7 size=0 frames=0 "" | 3 to_visitor event name= id=7 size=1 frames=0 "c"`}},
		{"grpc", []turn{req("POST /s/M HTTP/1.1\nHost: h\nContent-Type: application/grpc-web+proto\nContent-Length: 12\n\n"), {toUpstream, "\x00\x00\x00\x00\x02hi\x00\x00\x00\x00\x00"},
			ans("HTTP/1.1 200 OK\nContent-Type: application/grpc-web+proto\nContent-Length: 13\n\n"), {toVisitor, "\x00\x00\x00\x00\x01x\x80\x00\x00\x00\x02a:"}}, visitorEnds, []string{
			`grpc done POST /s/M | request 12 "\x00\x00\x00\x00\x02hi\x00\x00\x00\x00\x00" done grpc=2 | 200 OK | answer 13 "\x00\x00\x00\x00\x01x\x80\x00\x00\x00\x02a:" done grpc=1`}},
		{"grpc in base64", []turn{req("POST /s/M HTTP/1.1\nHost: h\nContent-Type: application/grpc-web-text\nContent-Length: 20\n\nAAAAAAE=AAAAAAAAAAEB"), ans(ok)}, visitorEnds, []string{
			`grpc done POST /s/M | request 20 "AAAAAAE=AAAAAAAAAAEB" done grpc=2 | 200 OK | answer 2 "ok" done`}},
		{"folded and bare lines", []turn{{toUpstream, "\r\nGET / HTTP/1.1\nHost: h\nA: b\n  c\n\n"}, ans(ok)}, visitorEnds, []string{
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`}},
		{"no answer", []turn{req(get)}, upstreamEnds, []string{
			`http failed GET / | request 0 "" done | 0  | answer 0 "" cut | error: the upstream closed the connection without an answer`}},
		{"reset", []turn{req(get), ans("HTTP/1.1 200 OK\nContent-Length: 9\n\nabc")}, resetByUp, []string{
			`http failed GET / | request 0 "" done | 200 OK | answer 3 "abc" cut | error: the upstream reset the connection`}},
		{"reset before the end that there is none of", []turn{req(get), ans("HTTP/1.1 200 OK\n\nabc")}, resetByUp, []string{
			`http failed GET / | request 0 "" done | 200 OK | answer 3 "abc" cut | error: the upstream reset the connection`}},
		{"cut off", []turn{req(get), ans("HTTP/1.1 200 OK\nContent-Length: 9\n\nabc")}, upstreamEnds, []string{
			`http failed GET / | request 0 "" done | 200 OK | answer 3 "abc" cut | error: the upstream closed the connection in the middle of the answer`}},
		{"the visitor leaves", []turn{req(get), ans("HTTP/1.1 200 OK\n\nabc")}, visitorEnds, []string{
			`http failed GET / | request 0 "" done | 200 OK | answer 3 "abc" cut | error: the connection was closed in the middle of the answer`}},
		{"no HTTP", []turn{req("\x16\x03\x01 hello\n")}, visitorEnds, []string{
			`opaque failed   | request 11 "\x16\x03\x01 hello\r\n" cut | 0  | answer 0 "" cut | error: this is not HTTP/1.1`}},
		{"nearly HTTP/2", []turn{req("PRI * HTTP/2.0\nA: b\n\n")}, visitorEnds, []string{
			`opaque failed   | request 24 "PRI * HTTP/2.0\r\nA: b\r\n\r\n" cut | 0  | answer 0 "" cut | error: this is not HTTP/1.1`}},
		{"half a head", []turn{req("GET / HTTP/1.1\nHo")}, visitorEnds, []string{
			`opaque failed   | request 18 "GET / HTTP/1.1\r\nHo" cut | 0  | answer 0 "" cut | error: the connection ended in the middle of a request's header`}},
		{"two lengths", []turn{req("POST / HTTP/1.1\nContent-Length: 1\nContent-Length: 2\n\n")}, visitorEnds, []string{
			`opaque failed   | request 57 "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" cut | 0  | answer 0 "" cut | error: the Content-Length cannot be understood`}},
		{"a bad chunk", []turn{req(get), ans("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nabX\n")}, visitorEnds, []string{
			`http failed GET / | request 0 "" done | 200 OK | answer 2 "ab" cut | error: the chunked body cannot be understood`}},
		{"an answer out of turn", []turn{ans(ok), req(get)}, visitorEnds, []string{
			`http failed GET / | request 0 "" done | 0  | answer 0 "" cut | error: the connection was closed before there was an answer`}},
	}
}

// frame makes a WebSocket frame from its first byte and payload.
func frame(first byte, payload string, masked bool) string {
	b := []byte{first}
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, bit|byte(n))
	case n < 1<<16:
		b = append(b, bit|126, byte(n>>8), byte(n))
	default:
		b = append(b, bit|127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	if !masked {
		return string(b) + payload
	}
	mask := [4]byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i&3])
	}
	return string(b)
}

func TestConversations(t *testing.T) {
	for _, c := range conversations() {
		t.Run(c.name, func(t *testing.T) {
			got := describeAll(talk(open(t, Config{}), c.turns, c.ends, nil))
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestChunking: where the bytes of a conversation are cut has no influence on
// what is understood.
func TestChunking(t *testing.T) {
	for _, c := range conversations() {
		switch c.name {
		case "no HTTP", "two lengths": // how much of it is shown depends on what came at once
			continue
		case "an answer out of turn": // a new beginning is sought where a write begins
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			everywhere := func(n int) []int {
				cuts := make([]int, n)
				for i := range cuts {
					cuts[i] = i
				}
				return cuts
			}
			for seed := range uint64(60) {
				r := rand.New(rand.NewPCG(seed, 1))
				split := func(n int) []int {
					cuts := make([]int, r.IntN(8))
					for i := range cuts {
						cuts[i] = r.IntN(n + 1)
					}
					slices.Sort(cuts)
					return cuts
				}
				if seed == 0 {
					split = everywhere
				}
				got := describeAll(talk(open(t, Config{}), c.turns, c.ends, split))
				if !slices.Equal(got, c.want) {
					t.Fatalf("seed %d: got\n%s\nwant\n%s", seed, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
				}
			}
		})
	}
}

// TestLimits: what is over a limit is cut, and told so.
func TestLimits(t *testing.T) {
	small := Config{BodyLimit: 4, HeadLimit: 64, MessageLimit: 3, MaxMessages: 2}
	many := strings.Repeat("X: y\n", 20)
	for _, c := range []conversation{
		{"bodies", []turn{req("POST / HTTP/1.1\nContent-Length: 6\n\nabcdef"), ans("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nabc\n3\ndef\n0\n\n"), req(get), ans(ok)}, visitorEnds, []string{
			`http done POST / | request 6 "abcd" cut done | 200 OK | answer 6 "abcd" cut done`,
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`}},
		{"request head", []turn{req("GET / HTTP/1.1\n" + many + "\n"), ans(ok)}, visitorEnds, []string{
			`opaque failed   | request 64 "GET / HTTP/1.1\r\nX: y\r\nX: y\r\nX: y\r\nX: y\r\nX: y\r\nX: y\r\nX: y\r\nX: y\r\n" cut | 0  | answer 0 "" cut | error: the header is longer than what is kept`}},
		{"answer head", []turn{req(get), ans("HTTP/1.1 200 OK\n" + many + "\n")}, visitorEnds, []string{
			`http failed GET / | request 0 "" done | 0  | answer 0 "" cut | error: the header is longer than what is kept`}},
		{"messages", []turn{req(get), ans("HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\ndata: one\n\ndata: three\n\ndata: äö\n\n")}, upstreamEnds, []string{
			`sse done GET / | request 0 "" done | 200 OK | answer 42 "data" cut done | 2 to_visitor event size=5 frames=0 "thr" cut | 3 to_visitor event size=4 frames=0 "ä" cut`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := describeAll(talk(open(t, small), c.turns, c.ends, nil))
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
	t.Run("pending", func(t *testing.T) {
		list := talk(open(t, Config{}), []turn{req(strings.Repeat(get, maxPending+50))}, visitorEnds, nil)
		if len(list) != maxPending || !strings.Contains(describe(list[0]), "too many requests") {
			t.Errorf("%d exchanges, the first %s", len(list), describe(list[0]))
		}
	})
	t.Run("fields", func(t *testing.T) {
		list := talk(open(t, Config{}), []turn{req("GET / HTTP/1.1\n" + strings.Repeat("a:b\n", maxFields+1) + "\n")}, visitorEnds, nil)
		if len(list) != 1 || !strings.Contains(describe(list[0]), errFields.Error()) {
			t.Errorf("%s", describeAll(list))
		}
	})
}

// TestGaps: missing bytes within a body leave the rest readable; others end
// what is under way, and the next request begins anew.
func TestGaps(t *testing.T) {
	type piece struct {
		dir  direction
		text string
		gap  int64
	}
	in := func(s string) piece { return piece{dir: toUpstream, text: crlf(s)} }
	out := func(s string) piece { return piece{dir: toVisitor, text: crlf(s)} }
	for _, c := range []struct {
		name   string
		pieces []piece
		want   []string
	}{
		{"in a body", []piece{in(get), out("HTTP/1.1 200 OK\nContent-Length: 6\n\nab"), {toVisitor, "", 3}, out("f"), in(get), out(ok)}, []string{
			`http done GET / | request 0 "" done | 200 OK | answer 6 "ab" cut done`,
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`}},
		{"to the end of a body", []piece{in("POST / HTTP/1.1\nContent-Length: 6\n\nab"), {toUpstream, "", 4}, out(ok), in(get), out(ok)}, []string{
			`http done POST / | request 6 "ab" cut done | 200 OK | answer 2 "ok" done`,
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`}},
		{"over the end of a body", []piece{in(get), out("HTTP/1.1 200 OK\nContent-Length: 6\n\nab"), {toVisitor, "", 30}, in(get), out(ok)}, []string{
			`http failed GET / | request 0 "" done | 200 OK | answer 2 "ab" cut | error: too much came at once to read along; bytes are missing`,
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`}},
		{"a request", []piece{{toUpstream, "", 30}, out(ok), out("more"), in("x"), in(get), out(ok)}, []string{
			`http done GET / | request 0 "" done | 200 OK | answer 2 "ok" done`}},
		{"in a frame", []piece{in(ws), out(wsOK), {toVisitor, "\x82\x05ab", 0}, {toVisitor, "", 3}, {toVisitor, frame(0x81, "x", false), 0}}, []string{
			`websocket done GET /ws | request 0 "" done | 101 Switching Protocols | answer 10 "" done | upgrade websocket | 1 to_visitor binary size=5 frames=1 "ab" cut | 2 to_visitor text size=1 frames=1 "x"`}},
		{"between frames", []piece{in(ws), out(wsOK), {toVisitor, "", 3}, in(get), out(ok)}, []string{
			`websocket failed GET /ws | request 0 "" done | 101 Switching Protocols | answer 0 "" done | upgrade websocket | error: too much came at once to read along; bytes are missing`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := open(t, Config{})
			s := i.newSession(Meta{}, nil)
			for _, p := range c.pieces {
				k := &chunk{dir: p.dir, data: []byte(p.text)}
				if p.gap > 0 {
					k.data, k.gap[p.dir] = nil, p.gap
				}
				s.parse(k)
			}
			s.finish(visitorEnds)
			s.flush()
			list := i.ring.newest()
			slices.Reverse(list)
			if got := describeAll(list); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
		cut   bool
	}{{"abc", 3, "abc", false}, {"abcd", 3, "abc", true}, {"ab€", 4, "ab", true}, {"ab€", 5, "ab€", false}, {"€x", 1, "", true}, {"\xff\xff\xff\xff\xff", 3, "\xff\xff\xff", true}} {
		if got, cut := text([]byte(c.in), c.limit); got != c.want || cut != c.cut {
			t.Errorf("text(%q, %d) = %q, %v", c.in, c.limit, got, cut)
		}
	}
}

func TestFraming(t *testing.T) {
	for _, c := range []struct {
		dir    direction
		fields string
		want   string
	}{
		{toUpstream, "", "0 0 <nil>"},
		{toVisitor, "", "2 0 <nil>"},
		{toUpstream, "Content-Length: 5", "0 5 <nil>"},
		{toUpstream, "Content-Length: 5, 5", "0 5 <nil>"},
		{toUpstream, "content-length: 5\ncontent-length: 5", "0 5 <nil>"},
		{toUpstream, "Content-Length: +5", "0 0 the Content-Length cannot be understood"},
		{toUpstream, "Content-Length: 9223372036854775808", "0 0 the Content-Length cannot be understood"},
		{toUpstream, "Content-Length: 5\nTransfer-Encoding: Chunked", "1 0 <nil>"},
		{toUpstream, "Transfer-Encoding: chunked, gzip", "0 0 the Transfer-Encoding cannot be understood"},
		{toVisitor, "Transfer-Encoding: chunked, gzip", "2 0 <nil>"},
		{toVisitor, "Transfer-Encoding: gzip\nTransfer-Encoding: chunked", "1 0 <nil>"},
	} {
		list, err := parseFields(c.fields)
		if err != nil {
			t.Fatal(err)
		}
		how, n, err := list.bodyFraming(c.dir)
		if got := fmt.Sprintf("%d %d %v", how, n, err); got != c.want {
			t.Errorf("%v %q: %s; want %s", c.dir, c.fields, got, c.want)
		}
	}
}
