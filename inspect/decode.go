package inspect

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// maxDecoded bounds what a body may become when it is decoded to be shown.
const maxDecoded = 8 << 20

// maxCodings bounds how many codings may lie over each other.
const maxCodings = 4

// decode undoes a Content-Encoding. cut tells that there would be more: the
// body was cut, or what it becomes is longer than maxDecoded. A body that is
// broken from its beginning is an error; one that breaks later is cut.
func decode(body []byte, encoding string) (out []byte, cut bool, err error) {
	codings := strings.Split(encoding, ",")
	if len(codings) > maxCodings {
		return nil, false, fmt.Errorf("decode %q: more than %d codings", encoding, maxCodings)
	}
	for n := len(codings) - 1; n >= 0; n-- { // the last was applied last
		coding := strings.ToLower(strings.TrimSpace(codings[n]))
		if coding == "" || coding == "identity" {
			continue
		}
		var short bool
		body, short, err = decodeOne(body, coding)
		if err != nil {
			return nil, false, fmt.Errorf("decode %s: %w", coding, err)
		}
		cut = cut || short
	}
	return body, cut, nil
}

var errCoding = errors.New("this coding is not known")

func decodeOne(body []byte, coding string) (out []byte, cut bool, err error) {
	if len(body) == 0 {
		return body, false, nil
	}
	src := bytes.NewReader(body)
	var r io.Reader
	switch coding {
	case "gzip", "x-gzip":
		r, err = gzip.NewReader(src)
	case "deflate":
		r, err = newDeflateReader(src)
	case "br":
		r = brotli.NewReader(src)
	case "zstd":
		// One goroutine, ours; windows as large as RFC 9659 lets the web use.
		var d *zstd.Decoder
		d, err = zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
		if err == nil {
			defer d.Close()
			r = d
		}
	default:
		err = errCoding
	}
	if err != nil {
		return nil, false, err
	}
	out, err = io.ReadAll(io.LimitReader(r, maxDecoded+1))
	if len(out) > maxDecoded {
		return out[:maxDecoded], true, nil
	}
	if err != nil && len(out) == 0 {
		return nil, false, err
	}
	return out, err != nil, nil
}

// newDeflateReader takes what HTTP calls deflate, which is zlib, and what some
// servers send instead, which is deflate.
func newDeflateReader(src io.Reader) (io.Reader, error) {
	b := bufio.NewReader(src)
	head, err := b.Peek(2)
	if err == nil && head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		return zlib.NewReader(b)
	}
	return flate.NewReader(b), nil
}
