package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// said is a connection on which all was said.
type said struct {
	net.Conn
	r io.Reader
}

func (c said) Read(p []byte) (int, error) { return c.r.Read(p) }

// framed reads what visitor said through a framedConn, at most size bytes at a time.
func framed(visitor []byte, size int) ([]byte, error) {
	c := newFramedConn(nil, tls.ConnectionState{})
	c.Conn = said{r: bytes.NewReader(visitor)}
	var out []byte
	p := make([]byte, size)
	for {
		n, err := c.Read(p)
		out = append(out, p[:n]...)
		if err != nil {
			return out, err
		}
	}
}

// visitorSays writes frames after the preface.
func visitorSays(write func(*http2.Framer)) []byte {
	b := bytes.NewBufferString(preface2)
	f := http2.NewFramer(b, nil)
	f.AllowIllegalWrites = true
	write(f)
	return b.Bytes()
}

func headerBlock(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a Buffer takes all
	}
	return b.Bytes()
}

// What is as RFC 9113 asks for arrives as it was sent, and so does what net/http
// must judge.
func TestFramesPassUnchanged(t *testing.T) {
	request := headerBlock(":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", "te", "trailers", "x-connection", "close")
	for name, write := range map[string]func(*http2.Framer){
		"nothing": func(f *http2.Framer) {},
		"requests": func(f *http2.Framer) {
			f.WriteSettings(http2.Setting{ID: 4, Val: 1}, http2.Setting{ID: 3, Val: 2})
			f.WriteSettingsAck()
			for stream := uint32(1); stream < 5; stream += 2 {
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: request[:4], PadLength: 3})
				f.WriteContinuation(stream, true, request[4:])
				f.WriteData(stream, true, make([]byte, 70000))
			}
			f.WritePing(false, [8]byte{1})
		},
		"the table's size twice":      func(f *http2.Framer) { f.WriteSettings(http2.Setting{ID: 1, Val: 0}, http2.Setting{ID: 1, Val: 4096}) },
		"settings of no length":       func(f *http2.Framer) { f.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 7)) },
		"more settings than are read": func(f *http2.Framer) { f.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 6*101)) },
		"a frame too large": func(f *http2.Framer) {
			f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, make([]byte, 16385))
		},
		"padding beyond the end": func(f *http2.Framer) { f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded, 1, []byte{2, 0}) },
		"padding of nothing":     func(f *http2.Framer) { f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded, 1, nil) },
		"no room for a priority": func(f *http2.Framer) { f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPriority, 1, []byte{1}) },
		"what cannot be decoded": func(f *http2.Framer) {
			f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
			f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 3, headerBlock("connection", "close"))
		},
		"a block that breaks off": func(f *http2.Framer) {
			f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0, 9})
		},
	} {
		sent := visitorSays(write)
		for _, size := range []int{1, 9, 1 << 20} {
			if got, err := framed(sent, size); !bytes.Equal(got, sent) || err != io.EOF {
				t.Errorf("%s, read by %d: %d bytes of %d, %v", name, size, len(got), len(sent), err)
			}
		}
	}
}

// A field as long as net/http takes it does not end the judging of requests after it.
func TestLongestField(t *testing.T) {
	sent := visitorSays(func(f *http2.Framer) {
		long := headerBlock(":method", "GET", "x", strings.Repeat("x", MaxHeader+100))
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: long[:9]})
		for rest := long[9:]; len(rest) > 0; {
			n := min(len(rest), maxFrame)
			f.WriteContinuation(1, n == len(rest), rest[:n])
			rest = rest[n:]
		}
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, BlockFragment: headerBlock(":method", "GET", "te", "gzip")})
	})
	end := malformed
	end[8] = 3 // the stream
	if got, err := framed(sent, 1<<20); err != io.EOF || !bytes.HasSuffix(got, end[:]) {
		t.Errorf("%v, the last bytes are %q; want %q", err, got[len(got)-len(end):], end)
	}
}

// What does not begin as HTTP/2 is not read at all, wherever it is cut.
func TestNoPreface(t *testing.T) {
	for _, sent := range []string{"", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r" + preface2, "GET / HTTP/1.1\r\nHost: a\r\n\r\n" + preface2} {
		for _, size := range []int{1, 14, 1 << 20} {
			if got, err := framed([]byte(sent), size); len(got) > 0 || err == nil {
				t.Errorf("%q: %q, %v", sent, got, err)
			}
		}
	}
}

// Of a setting that is named twice the last value is left, and the others in their order.
func TestSettingsOnce(t *testing.T) {
	sent := visitorSays(func(f *http2.Framer) {
		f.WriteSettings(http2.Setting{ID: 4, Val: 1}, http2.Setting{ID: 3, Val: 2}, http2.Setting{ID: 4, Val: 3}, http2.Setting{ID: 77, Val: 5}, http2.Setting{ID: 4, Val: 4})
		f.WritePing(false, [8]byte{})
	})
	got, err := framed(sent, 100)
	if err != io.EOF {
		t.Fatal(err)
	}
	r := http2.NewFramer(nil, bytes.NewReader(got[len(preface2):]))
	frame, err := r.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	var left []http2.Setting
	frame.(*http2.SettingsFrame).ForeachSetting(func(s http2.Setting) error { left = append(left, s); return nil })
	if want := []http2.Setting{{ID: 3, Val: 2}, {ID: 77, Val: 5}, {ID: 4, Val: 4}}; !slices.Equal(left, want) {
		t.Errorf("%v", left)
	}
	if frame, err := r.ReadFrame(); err != nil || frame.Header().Type != http2.FramePing {
		t.Errorf("%v, %v", frame, err)
	}
}

// FuzzFrames holds three things: how the bytes are cut decides nothing; what
// http2.Framer reads of requests before, it reads after; and no field of a connection
// is left in them.
func FuzzFrames(f *testing.F) {
	f.Add(visitorSays(func(f *http2.Framer) {
		f.WriteSettings(http2.Setting{ID: 4, Val: 1}, http2.Setting{ID: 4, Val: 2})
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: headerBlock(":method", "GET", "connection", "close"), PadLength: 1})
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: headerBlock(":method", "GET")})
		f.WriteContinuation(3, true, headerBlock("te", "x"))
	})[len(preface2):], uint16(3))
	f.Add(visitorSays(func(f *http2.Framer) {
		f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, []byte{48, 0})
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, BlockFragment: headerBlock("te", "x")})
	})[len(preface2):], uint16(1))
	f.Fuzz(func(t *testing.T, frames []byte, cut uint16) {
		sent := append([]byte(preface2), frames...)
		whole, err := framed(sent, 1<<20)
		pieces, errPieces := framed(sent, int(cut)+1)
		if !bytes.Equal(whole, pieces) || !errors.Is(errPieces, err) {
			t.Fatalf("whole: %q, %v; in pieces: %q, %v", whole, err, pieces, errPieces)
		}
		before, after := requests(frames), requests(whole[len(preface2):])
		i := 0
		for _, r := range before {
			if slices.ContainsFunc(r.Fields, func(f hpack.HeaderField) bool { return ofConnection(f.Name, f.Value) }) {
				continue
			}
			if i == len(after) || r.StreamID != after[i].StreamID || !slices.Equal(r.Fields, after[i].Fields) {
				t.Fatalf("%v is not among %v", r, after)
			}
			i++
		}
		if i != len(after) {
			t.Errorf("%v is too much", after[i:])
		}
	})
}

// requests are the header blocks that are well-formed, until the framing ends.
func requests(sent []byte) []*http2.MetaHeadersFrame {
	f := http2.NewFramer(io.Discard, bytes.NewReader(sent))
	f.ReadMetaHeaders = hpack.NewDecoder(headerTable, nil)
	f.SetMaxReadFrameSize(maxFrame)
	f.MaxHeaderListSize = MaxHeader
	var all []*http2.MetaHeadersFrame
	for {
		frame, err := f.ReadFrame()
		var ofStream http2.StreamError
		if err != nil && !errors.As(err, &ofStream) {
			return all
		}
		if r, ok := frame.(*http2.MetaHeadersFrame); ok && err == nil && !r.Truncated {
			kept := *r
			kept.Fields = slices.Clone(r.Fields)
			head := *r.HeadersFrame
			kept.HeadersFrame = &head
			all = append(all, &kept)
		}
	}
}
