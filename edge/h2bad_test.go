package edge

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rawH2 is a connection on which a test says what no client would.
type rawH2 struct {
	t      *testing.T
	conn   net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
}

func (r *rig) rawH2() *rawH2 {
	r.t.Helper()
	h := &rawH2{t: r.t, conn: r.dialTLS("app.edge.test", "h2")}
	h.framer = http2.NewFramer(h.conn, h.conn)
	h.framer.AllowIllegalWrites = true
	h.hpack = hpack.NewEncoder(&h.block)
	io.WriteString(h.conn, http2.ClientPreface)
	if err := h.framer.WriteSettings(); err != nil {
		r.t.Fatal(err)
	}
	return h
}

// headers encodes name, value, name, value, …
func (h *rawH2) headers(fields ...string) []byte {
	h.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := h.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			h.t.Fatal(err)
		}
	}
	return h.block.Bytes()
}

// outcome reads until the stream or the connection ends, and says how: a status
// of the edge's, or "reset".
func (h *rawH2) outcome(stream uint32) string {
	h.t.Helper()
	status := ""
	decoder := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			status = f.Value
		}
	})
	for {
		frame, err := h.framer.ReadFrame()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			h.t.Fatal("no answer")
		}
		if err != nil {
			return "reset"
		}
		ended := false
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			if _, err := decoder.Write(f.HeaderBlockFragment()); err != nil {
				h.t.Fatal(err)
			}
			ended = f.StreamEnded() && f.StreamID == stream
		case *http2.DataFrame:
			ended = f.StreamEnded() && f.StreamID == stream
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				if status == "" {
					status = "reset"
				}
				return status
			}
		case *http2.GoAwayFrame:
			return "reset"
		}
		if ended {
			return status
		}
	}
}

// What HTTP/2 can say and HTTP/1.1 would understand as something else.
func TestHTTP2Downgrade(t *testing.T) {
	r := newRig(t, nil)
	var upstream seen
	r.upstream(1, upstream.serve)
	r.apply(httpEntry(1, "app.edge.test"))
	first := []string{":method", "POST", ":scheme", "https", ":authority", "app.edge.test", ":path", "/first"}
	with := func(more ...string) []string { return append(first[:len(first):len(first)], more...) }
	for name, test := range map[string]struct {
		fields []string
		data   string
		want   string // "": any; "refused": 400 or reset
	}{
		"new line in a value":       {with("x", "y\r\n\r\n"+smuggled), "", "reset"},
		"line feed in a value":      {with("x", "y\nContent-Length: 0"), "", "reset"},
		"NUL in a value":            {with("x", "y\x00"), "", "reset"},
		"new line in a name":        {with("x\r\ny", "z"), "", "reset"},
		"colon in a name":           {with("transfer-encoding: chunked\r\nx", "y"), "", "reset"},
		"upper case":                {with("X", "y"), "", "reset"},
		"transfer-encoding":         {with("transfer-encoding", "chunked"), "0\r\n\r\n" + smuggled, "reset"},
		"connection":                {with("connection", "x"), "", "reset"},
		"upgrade":                   {with("upgrade", "websocket"), "", "reset"},
		"te":                        {with("te", "chunked"), "", "reset"},
		"length too short":          {with("content-length", "0"), smuggled, ""},
		"length too long":           {with("content-length", "1000"), smuggled, "400"},
		"two lengths":               {with("content-length", "0", "content-length", "49"), "", "400"},
		"length that is none":       {with("content-length", "+1"), "x", "refused"},
		"new line in the path":      {append(first[:6:6], ":path", "/first HTTP/1.1\r\nHost: app.edge.test\r\n\r\n"+smuggled), "", "reset"},
		"blank in the path":         {append(first[:6:6], ":path", "/first HTTP/1.1"), "", "400"},
		"new line in the method":    {append([]string{":method", "GET /smuggled HTTP/1.1\r\nX: "}, first[2:]...), "", "reset"},
		"blank in the method":       {append([]string{":method", "GET /smuggled"}, first[2:]...), "", "400"},
		"new line in the authority": {append(append(first[:4:4], ":authority", "app.edge.test\r\nX: y"), first[6:]...), "", "reset"},
		"user in the authority":     {append(append(first[:4:4], ":authority", "x@app.edge.test"), first[6:]...), "", "reset"},
		"path in the authority":     {append(append(first[:4:4], ":authority", "app.edge.test/x"), first[6:]...), "", "400"},
		"path in the port":          {append(append(first[:4:4], ":authority", "app.edge.test:/x"), first[6:]...), "", "400"},
		"script in the port":        {append(append(first[:4:4], ":authority", `app.edge.test:"><script>`), first[6:]...), "", "400"},
		"name in brackets":          {append(append(first[:4:4], ":authority", "[app.edge.test]:443"), first[6:]...), "", "400"},
		"blank in the query":        {append(first[:6:6], ":path", "/first?x HTTP/1.0"), "", "400"},
		"no authority":              {append(first[:4:4], first[6:]...), "", "400"},
		"unknown pseudo-header":     {append([]string{":x", "y"}, first...), "", "reset"},
		"pseudo-header after":       {append([]string{"x", "y"}, first...), "", "reset"},
		"two paths":                 {append(first[:len(first):len(first)], ":path", "/smuggled"), "", "reset"},
	} {
		t.Run(name, func(t *testing.T) {
			h := r.rawH2()
			err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.headers(test.fields...), EndHeaders: true, EndStream: test.data == ""})
			if err == nil && test.data != "" {
				err = h.framer.WriteData(1, true, []byte(test.data))
			}
			if err != nil && test.want != "reset" {
				t.Fatal(err)
			}
			got := h.outcome(1)
			if test.want == "refused" && (got == "400" || got == "reset") {
				got = "refused"
			}
			if got != test.want && test.want != "" {
				t.Errorf("%s, want %s", got, test.want)
			}
			for _, line := range upstream.take() {
				if line != "POST /first" { // its body breaks off there
					t.Errorf("the upstream saw %s", line)
				}
			}
		})
	}
	t.Run("good", func(t *testing.T) {
		h := r.rawH2()
		h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.headers(with("content-length", "3", "host", "b.edge.test")...), EndHeaders: true})
		h.framer.WriteData(1, true, []byte("abc"))
		if got := h.outcome(1); got != "200" {
			t.Error(got)
		}
	})
}

// A malformed request ends its stream and nothing else (RFC 9113, section 8.1.1): what
// is known of header compression goes on, in both directions.
func TestHTTP2FieldsOfConnections(t *testing.T) {
	r := newRig(t, nil)
	var upstream seen
	r.upstream(1, upstream.serve)
	r.apply(httpEntry(1, "app.edge.test"))
	h := r.rawH2()
	h.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	next := func() http2.Frame {
		for {
			frame, err := h.framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch frame.(type) {
			case *http2.MetaHeadersFrame, *http2.RSTStreamFrame, *http2.GoAwayFrame:
				return frame
			}
		}
	}
	good := []string{":method", "GET", ":scheme", "https", ":authority", "app.edge.test", ":path", "/good", "x-kept", "in the table"}
	for i, field := range [][]string{{"connection", "close"}, {"keep-alive", "1"}, {"proxy-connection", "close"}, {"upgrade", "x"}, {"transfer-encoding", "chunked"}, {"te", "gzip"}, {"te", "trailers"}} {
		bad := append(good[:len(good):len(good)], "x-other", field[0])
		block := h.headers(append(bad, field...)...)
		stream := uint32(4*i + 1)
		// In pieces, with all that may stand in the first.
		err := errors.Join(h.framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: stream, EndStream: true, BlockFragment: block[:3], PadLength: 7,
			Priority: http2.PriorityParam{StreamDep: 0, Weight: 9},
		}), h.framer.WriteContinuation(stream, false, block[3:5]), h.framer.WriteContinuation(stream, true, block[5:]))
		if err != nil {
			t.Fatal(err)
		}
		switch f := next().(type) {
		case *http2.RSTStreamFrame:
			if f.StreamID != stream || f.ErrCode != http2.ErrCodeProtocol || field[1] == "trailers" {
				t.Errorf("%s: %v", field, f)
			}
		case *http2.MetaHeadersFrame:
			if f.PseudoValue("status") != "200" || field[1] != "trailers" {
				t.Errorf("%s: %v", field, f)
			}
		default:
			t.Fatalf("%s: %v", field, f)
		}
		err = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream + 2, EndStream: true, EndHeaders: true, BlockFragment: h.headers(append(good, "x-other", field[0])...)})
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := next().(*http2.MetaHeadersFrame); !ok || f.StreamID != stream+2 || f.PseudoValue("status") != "200" {
			t.Errorf("after %s: %v", field, f)
		}
	}
}

// Who agreed on HTTP/2 and speaks something else is not understood: HTTP/1.1 would come
// in beside the strict framing of its own connections.
func TestHTTP2WithoutPreface(t *testing.T) {
	r := newRig(t, nil)
	var upstream seen
	r.upstream(1, upstream.serve)
	r.apply(httpEntry(1, "app.edge.test"))
	for _, said := range []string{"INVALID CONNECTION PREFACE\r\n\r\n", "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"} {
		conn := r.dialTLS("app.edge.test", "h2")
		if _, err := io.WriteString(conn, said); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if errors.Is(err, os.ErrDeadlineExceeded) || len(answer) > 0 {
			t.Errorf("%q: %q, %v; want the end", said, answer, err)
		}
	}
	if lines := upstream.take(); len(lines) > 0 {
		t.Errorf("the upstream saw %q", lines)
	}
}

// A setting may be named twice, and the last value counts (RFC 9113, section 6.5.3).
func TestHTTP2SettingsTwice(t *testing.T) {
	r := newRig(t, nil)
	r.upstream(1, greet)
	r.apply(httpEntry(1, "app.edge.test"))
	h := r.rawH2()
	err := errors.Join(h.framer.WriteSettings(
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14}),
		h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true,
			BlockFragment: h.headers(":method", "GET", ":scheme", "https", ":authority", "app.edge.test", ":path", "/")}))
	if err != nil {
		t.Fatal(err)
	}
	acks := 0
	for {
		frame, err := h.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				acks++
			}
		case *http2.DataFrame:
			if len(f.Data()) != 1 {
				t.Errorf("%d bytes in a window of 1", len(f.Data()))
			}
			if acks == 0 {
				t.Error("settings are not acknowledged")
			}
			return
		}
	}
}

// A visitor cannot have a request over TLS look as if it came without.
func TestHTTP2Scheme(t *testing.T) {
	r := newRig(t, nil)
	protos := make(chan string, 1)
	r.upstream(1, func(w http.ResponseWriter, r *http.Request) { protos <- r.Header.Get("X-Forwarded-Proto") })
	r.apply(httpEntry(1, "app.edge.test"), httpEntry(2, "b.other.test"))
	for _, authority := range []string{"app.edge.test", "b.other.test"} {
		h := r.rawH2()
		err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true,
			BlockFragment: h.headers(":method", "GET", ":scheme", "http", ":authority", authority, ":path", "/")})
		if err != nil {
			t.Fatal(err)
		}
		status := h.outcome(1)
		if authority != "app.edge.test" {
			if status != "421" {
				t.Errorf("%s on a connection to another name: %s", authority, status)
			}
			continue
		}
		if status != "200" {
			t.Fatal(status)
		}
		if proto := <-protos; proto != "https" {
			t.Errorf("the upstream is told %s", proto)
		}
	}
}
