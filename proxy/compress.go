package proxy

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// leastCompressed is the length of an answer, in bytes, that is worth it: a
// smaller one goes out in one packet either way.
const leastCompressed = 1 << 10

// encoder is what gzip and zstd writers have in common. Flush makes what was
// written so far readable.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// encoders keeps the encoders of one coding for the next answers: they are large.
type encoders struct {
	coding string // as Accept-Encoding and Content-Encoding name it
	pool   sync.Pool
}

// codings are the ones that there are, the better one first.
var codings = []*encoders{
	{coding: "zstd", pool: sync.Pool{New: func() any {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
			zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(512<<10))
		if err != nil {
			panic(err) // of fixed options: cannot happen
		}
		return encoder(e)
	}}},
	{coding: "gzip", pool: sync.Pool{New: func() any {
		e, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
		if err != nil {
			panic(err) // of a fixed level: cannot happen
		}
		return encoder(e)
	}}},
}

// compress makes an upstream's answer smaller where that changes nothing else:
// the visitor asks for it, the upstream has not done it, and the answer is whole
// text. The answer still goes out piece by piece as the upstream sends it.
func compress(res *http.Response) {
	h := res.Header
	if !compressible(res) {
		return
	}
	if !mentions(h["Vary"], "Accept-Encoding") {
		h.Add("Vary", "Accept-Encoding") // of the answers that are not compressed too (RFC 9110, section 12.5.5)
	}
	with := acceptedCoding(res.Request.Header["Accept-Encoding"])
	if with == nil || res.Request.Method == http.MethodHead {
		return
	}
	h.Set("Content-Encoding", with.coding)
	h.Del("Content-Length")
	h.Del("Accept-Ranges") // of what the visitor does not see
	if tag := h.Get("Etag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		h.Set("Etag", "W/"+tag) // the same thing in other bytes (RFC 9110, section 8.8.1)
	}
	res.ContentLength = -1
	body := &compressed{src: res.Body, from: with, enc: with.pool.Get().(encoder)}
	body.enc.Reset(&body.out)
	res.Body = body
}

// compressible reports whether an answer is of a kind that compression is for.
func compressible(res *http.Response) bool {
	h := res.Header
	switch {
	case res.StatusCode < http.StatusOK, res.StatusCode == http.StatusNoContent, res.StatusCode == http.StatusResetContent,
		res.StatusCode == http.StatusPartialContent, res.StatusCode == http.StatusNotModified:
		return false
	case res.Request.Header.Get("Range") != "", h.Get("Content-Range") != "":
		return false
	case h.Get("Content-Encoding") != "", mentions(h["Cache-Control"], "no-transform"):
		return false
	case h.Get("Content-Digest") != "", h.Get("Digest") != "", h.Get("Content-Md5") != "":
		return false // of the bytes as they are
	}
	if length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && length < leastCompressed {
		return false
	}
	media, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && isText(media)
}

// isText reports whether a media type is text or about as compressible. Not
// among them: event streams, which are read as they come by programs that know
// no compressed ones, and gRPC, which compresses by itself.
func isText(media string) bool {
	if media == "text/event-stream" {
		return false
	}
	if strings.HasPrefix(media, "text/") || strings.HasSuffix(media, "+json") || strings.HasSuffix(media, "+xml") {
		return !strings.HasPrefix(media, "application/grpc") && !strings.HasPrefix(media, "application/connect")
	}
	switch media {
	case "application/json", "application/javascript", "application/x-javascript", "application/xml",
		"application/wasm", "application/x-ndjson", "application/jsonl", "application/yaml", "application/x-yaml",
		"application/toml", "application/sql", "application/rtf", "application/vnd.ms-fontobject",
		"image/bmp", "image/x-icon", "image/vnd.microsoft.icon", "font/ttf", "font/otf":
		return true
	}
	return false
}

// mentions reports whether a header of comma-separated words has one of them, or
// "*".
func mentions(values []string, word string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); strings.EqualFold(part, word) || part == "*" {
				return true
			}
		}
	}
	return false
}

// acceptedCoding picks what an Accept-Encoding header likes best, the better
// coding where it likes two equally; nil for none (RFC 9110, section 12.5.3).
func acceptedCoding(accept []string) *encoders {
	qualities := make(map[string]float64)
	for _, value := range accept {
		for part := range strings.SplitSeq(value, ",") {
			coding, params, _ := strings.Cut(part, ";")
			q := 1.0
			if name, text, ok := strings.Cut(params, "="); ok && strings.EqualFold(strings.TrimSpace(name), "q") {
				parsed, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				if err != nil {
					continue
				}
				q = parsed
			}
			qualities[strings.ToLower(strings.TrimSpace(coding))] = q
		}
	}
	var best *encoders
	bestQ := 0.0
	for _, c := range codings {
		q, named := qualities[c.coding]
		if !named {
			q = qualities["*"]
		}
		if q > bestQ {
			best, bestQ = c, q
		}
	}
	if identity, named := qualities["identity"]; named && identity > bestQ {
		return nil
	}
	return best
}

// compressed is a body on its way through an encoder. What one Read of the
// upstream's body gave can be decoded by whoever got what one Read of this gives,
// so a piece that the upstream sends by itself arrives by itself.
type compressed struct {
	src  io.ReadCloser
	from *encoders
	enc  encoder // nil when it was given back
	out  bytes.Buffer
	err  error // after what is in out

	mu     sync.Mutex // guards enc and closed between Read and Close
	closed bool
}

func (c *compressed) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.out.Len() == 0 {
		if c.err != nil {
			return 0, c.err
		}
		if c.closed {
			return 0, http.ErrBodyReadAfterClose
		}
		c.out.Reset()
		c.fill()
	}
	return c.out.Read(p)
}

// fill reads and encodes one piece.
func (c *compressed) fill() {
	buf := copyBuffers{}.Get()
	defer copyBuffers{}.Put(buf)
	n, err := c.src.Read(buf)
	if n > 0 {
		_, werr := c.enc.Write(buf[:n])
		if werr == nil {
			werr = c.enc.Flush()
		}
		if werr != nil {
			c.err = werr
			return
		}
	}
	switch {
	case err == io.EOF:
		if c.err = c.enc.Close(); c.err == nil {
			c.err = io.EOF
		}
		c.release()
	case err != nil:
		c.err = err // it breaks off: an end that looks whole would be a lie
	}
}

// Close may come while Read waits for the upstream.
func (c *compressed) Close() error {
	err := c.src.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.release()
	return err
}

func (c *compressed) release() {
	if c.enc != nil {
		c.enc.Reset(nil)
		c.from.pool.Put(c.enc)
		c.enc = nil
	}
}
