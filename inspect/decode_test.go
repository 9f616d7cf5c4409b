package inspect

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// encoders by Content-Encoding.
func encoders(t testing.TB) map[string]func(io.Writer) io.WriteCloser {
	return map[string]func(io.Writer) io.WriteCloser{
		"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"br":      func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
		"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		"raw deflate": func(w io.Writer) io.WriteCloser {
			f, err := flate.NewWriter(w, 6)
			if err != nil {
				t.Fatal(err)
			}
			return f
		},
		"zstd": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	}
}

func encode(t testing.TB, to func(io.Writer) io.WriteCloser, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := to(&b)
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecode(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(r.IntN(64))
	}
	for name, to := range encoders(t) {
		coding := strings.TrimPrefix(name, "raw ")
		for _, plain := range [][]byte{nil, []byte("hello"), noise} {
			wire := encode(t, to, plain)
			got, cut, err := decode(wire, strings.ToUpper(coding))
			if err != nil || cut || !bytes.Equal(got, plain) {
				t.Errorf("%s: %d bytes of %d, cut %v, %v", name, len(got), len(plain), cut, err)
			}
		}
		wire := encode(t, to, noise)
		got, cut, err := decode(wire[:len(wire)/2], coding)
		if err != nil || !cut || len(got) == 0 || !bytes.HasPrefix(noise, got) {
			t.Errorf("%s, half of it: %d bytes, cut %v, %v", name, len(got), cut, err)
		}
		bomb := encode(t, to, make([]byte, maxDecoded+1000))
		if got, cut, err := decode(bomb, coding); err != nil || !cut || len(got) != maxDecoded {
			t.Errorf("%s, a bomb: %d bytes, cut %v, %v", name, len(got), cut, err)
		}
		if _, _, err := decode([]byte("this is nothing of the kind \xff\xfe"), coding); err == nil && name != "raw deflate" && name != "deflate" {
			t.Errorf("%s: noise was decoded", name)
		}
	}
	twice := encode(t, encoders(t)["br"], encode(t, encoders(t)["gzip"], []byte("twice")))
	if got, _, err := decode(twice, "gzip, identity, br"); err != nil || string(got) != "twice" {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"rot13", "gzip,gzip,gzip,gzip,gzip"} {
		if _, _, err := decode([]byte("x"), bad); err == nil {
			t.Errorf("%s was decoded", bad)
		}
	}
}

// deflated compresses messages as permessage-deflate does, with or without
// context takeover.
func deflated(t testing.TB, forget bool, messages ...string) [][]byte {
	t.Helper()
	var out [][]byte
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, 9)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		b.Reset()
		if forget {
			w.Reset(&b)
		}
		if _, err := io.WriteString(w, m); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		out = append(out, bytes.Clone(bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))))
	}
	return out
}

func TestDeflate(t *testing.T) {
	cfg := Config{}.withDefaults()
	long := strings.Repeat("window ", 9000) // longer than one
	texts := []string{"hello hello hello", "hello hello hello", "", long, long + "!", "hello"}
	for _, forget := range []bool{false, true} {
		f := &inflater{forget: forget}
		for n, p := range deflated(t, forget, texts...) {
			out, cut, err := f.message(p, false, &cfg)
			want := texts[n][:min(len(texts[n]), cfg.MessageLimit)]
			if err != nil || string(out) != want || cut != (len(texts[n]) > len(want)) {
				t.Errorf("forget %v, %d: %d bytes, cut %v, %v", forget, n, len(out), cut, err)
			}
			if len(f.window) > 3*flateWindow {
				t.Errorf("the window has %d bytes", len(f.window))
			}
		}
		p := deflated(t, forget, "one", "two", "three")
		if _, _, err := f.message(p[0][:1], true, &cfg); err != errInflateCut {
			t.Errorf("cut: %v", err)
		}
		_, _, err := f.message(p[1], false, &cfg)
		if lost := err == errInflateLost; lost == forget {
			t.Errorf("forget %v, after a cut one: %v", forget, err)
		}
	}
	f := &inflater{}
	if _, _, err := f.message([]byte("\xff\xff\xff"), false, &cfg); err != errInflateBad {
		t.Errorf("noise: %v", err)
	}
	f = &inflater{}
	if _, _, err := f.message(deflated(t, true, strings.Repeat("\x00", maxInflated+1))[0], false, &cfg); err != errInflateCut {
		t.Errorf("a bomb: %v", err)
	}
}

// TestDeflateFrames: compressed messages are listed decompressed, also when
// they come in several frames with others in between.
func TestDeflateFrames(t *testing.T) {
	p := deflated(t, false, "hello hello", "hello again")
	answer := strings.TrimSuffix(wsOK, "\n") + "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\n\n"
	got := describeAll(talk(open(t, Config{}), []turn{req(ws), ans(answer),
		{toVisitor, frame(0xc1, string(p[0]), false)},
		{toVisitor, frame(0x41, string(p[1][:3]), false) + frame(0x8a, "", false) + frame(0x80, string(p[1][3:]), false)},
		{toUpstream, frame(0xc1, string(deflated(t, true, "x")[0]), true) + frame(0x81, "plain", true)},
	}, visitorEnds, nil))
	for _, want := range []string{
		`| 1 to_visitor text size=`, `frames=1 "hello hello" | 2 to_visitor pong`, `frames=2 "hello again" | 4 to_upstream text`, `"x" | 5 to_upstream text size=5 frames=1 "plain"`,
	} {
		if len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s has no %s", got, want)
		}
	}
	if p := parseDeflateParams(fields{{"Sec-WebSocket-Extensions", "x, permessage-deflate; server_no_context_takeover; client_max_window_bits=15"}}); !p.negotiated || !p.forget[toVisitor] || p.forget[toUpstream] {
		t.Errorf("%+v", p)
	}
}

// TestBadFrames: what breaks the rules ends the list, and nothing else.
func TestBadFrames(t *testing.T) {
	for name, bytes := range map[string]string{
		"continuation first":   frame(0x80, "x", false),
		"two messages at once": frame(0x01, "x", false) + frame(0x81, "y", false),
		"a long ping":          frame(0x89, strings.Repeat("p", 126), false),
		"a ping in parts":      frame(0x09, "p", false),
		"a length of 2^63":     "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		got := describeAll(talk(open(t, Config{}), []turn{req(ws), ans(wsOK), {toVisitor, bytes}, {toVisitor, frame(0x81, "later", false)}, {toUpstream, frame(0x81, "other way", true)}}, visitorEnds, nil))
		if len(got) != 1 || !strings.Contains(got[0], "error size=0") || strings.Contains(got[0], "later") || !strings.Contains(got[0], "other way") {
			t.Errorf("%s: %s", name, got)
		}
	}
}
