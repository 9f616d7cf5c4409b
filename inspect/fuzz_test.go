package inspect

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// fuzzConfig has low limits, so that short inputs pass them.
var fuzzConfig = Config{BodyLimit: 32, HeadLimit: 256, MessageLimit: 16, MaxMessages: 8, MaxBytes: 1 << 20}

// fuzzTalk parses a conversation at once and in pieces. Both must give the same, if
// HTTP it is; neither may fail.
func fuzzTalk(t *testing.T, turns []turn, seed uint64) []*exchange {
	i := New(fuzzConfig)
	defer i.Close()
	whole := talk(i, turns, upstreamEnds, nil)
	for _, x := range whole {
		i.detail(x)
		i.harEntry(x)
		i.curl(x)
		if x.memory() > 1<<20 {
			t.Errorf("an exchange of %d bytes", x.memory())
		}
	}
	r := rand.New(rand.NewPCG(seed, 0))
	pieces := New(fuzzConfig)
	defer pieces.Close()
	parts := talk(pieces, turns, upstreamEnds, func(n int) []int {
		cuts := make([]int, r.IntN(6))
		for i := range cuts {
			cuts[i] = r.IntN(n + 1)
		}
		slices.Sort(cuts)
		return cuts
	})
	// What is lost or opaque depends on where writes begin.
	sound := func(list []*exchange) bool {
		return !slices.ContainsFunc(list, func(x *exchange) bool { return x.kind == KindOpaque || x.err != "" })
	}
	if sound(whole) {
		if a, b := describeAll(whole), describeAll(parts); !slices.Equal(a, b) {
			t.Errorf("at once\n%s\nin pieces\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
	}
	return whole
}

func FuzzRequests(f *testing.F) {
	for _, c := range conversations() {
		var b strings.Builder
		for _, u := range c.turns {
			if u.dir == toUpstream {
				b.WriteString(u.text)
			}
		}
		f.Add([]byte(b.String()), uint64(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		answers := crlf(strings.Repeat(ok, 3))
		fuzzTalk(t, []turn{{toUpstream, string(b)}, {toVisitor, answers}}, seed)
	})
}

func FuzzResponses(f *testing.F) {
	for _, c := range conversations() {
		var b strings.Builder
		for _, u := range c.turns {
			if u.dir == toVisitor {
				b.WriteString(u.text)
			}
		}
		f.Add([]byte(b.String()), uint64(1))
	}
	requests := crlf(get + strings.Replace(get, "GET", "HEAD", 1) + ws)
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		fuzzTalk(t, []turn{{toUpstream, requests}, {toVisitor, string(b)}}, seed)
		fuzzTalk(t, []turn{{toUpstream, crlf(ws)}, {toVisitor, string(b)}}, seed)
	})
}

func FuzzWebSocketFrames(f *testing.F) {
	f.Add([]byte(frame(0x81, "hello", true)+frame(0x89, "", false)), false)
	f.Add([]byte(frame(0x01, "a", false)+frame(0x80, "b", false)+frame(0x88, "\x03\xe8x", false)), true)
	f.Add([]byte(frame(0xc1, string(deflated(f, false, "hello hello")[0]), false)), true)
	f.Add([]byte("\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x05abcde"), false)
	f.Fuzz(func(t *testing.T, b []byte, compressed bool) {
		list := func(step int) []Message {
			cfg := fuzzConfig.withDefaults()
			x := &exchange{origin: &origin{}}
			r := newFrameReader(x, toUpstream, &cfg, deflateParams{negotiated: compressed})
			for at := 0; at < len(b); at += step {
				r.write(b[at:min(len(b), at+step)], time.Time{})
			}
			if len(x.log.list) > cfg.MaxMessages || x.log.sum < 0 || x.log.extra < 0 {
				t.Errorf("%d messages, %d, %d", len(x.log.list), x.log.sum, x.log.extra)
			}
			return x.log.list
		}
		whole, pieces := list(len(b)+1), list(1)
		if !slices.EqualFunc(whole, pieces, func(a, b Message) bool {
			same := bytes.Equal(a.Data, b.Data)
			a.Data, b.Data = nil, nil
			return same && a.Text == b.Text && a.Type == b.Type && a.Size == b.Size && a.Frames == b.Frames && a.Cut == b.Cut && a.Note == b.Note && a.Number == b.Number
		}) {
			t.Errorf("at once %+v, byte by byte %+v", whole, pieces)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for name, to := range encoders(f) {
		f.Add(encode(f, to, []byte("hello hello")), strings.TrimPrefix(name, "raw "))
	}
	f.Add([]byte("x"), "gzip, br")
	f.Fuzz(func(t *testing.T, b []byte, coding string) {
		if out, _, _ := decode(b, coding); len(out) > max(maxDecoded, len(b)) {
			t.Errorf("%d bytes", len(out))
		}
	})
}
