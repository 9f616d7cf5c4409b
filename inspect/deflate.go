package inspect

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"strings"
)

// deflateParams is what the two sides agreed on for permessage-deflate (RFC
// 7692).
type deflateParams struct {
	negotiated bool
	forget     [2]bool // by direction: each message is compressed by itself
}

// parseDeflateParams reads the extensions that the answer accepts.
func parseDeflateParams(answer fields) deflateParams {
	var p deflateParams
	for i := range answer {
		if !strings.EqualFold(answer[i].Name, "Sec-WebSocket-Extensions") {
			continue
		}
		for ext := range strings.SplitSeq(answer[i].Value, ",") {
			name, params, _ := strings.Cut(ext, ";")
			if !strings.EqualFold(strings.TrimSpace(name), "permessage-deflate") {
				continue
			}
			p.negotiated = true
			for param := range strings.SplitSeq(params, ";") {
				switch strings.ToLower(strings.TrimSpace(param)) {
				case "client_no_context_takeover":
					p.forget[toUpstream] = true
				case "server_no_context_takeover":
					p.forget[toVisitor] = true
				}
			}
		}
	}
	return p
}

// flateWindow is how far back deflate may refer (RFC 1951, 2).
const flateWindow = 32 << 10

// maxInflated bounds what one message may become: past it, a bomb is likelier
// than a chat.
const maxInflated = 4 << 20

var (
	errInflateCut  = errors.New("compressed, and too long to be decompressed here")
	errInflateLost = errors.New("compressed, and refers to a message that could not be decompressed")
	errInflateBad  = errors.New("compressed, and cannot be decompressed")
)

// inflater decompresses the messages of one direction, each with what came
// before as its dictionary.
type inflater struct {
	forget bool
	lost   bool
	window []byte // the last bytes of output
}

// message decompresses one. cut tells that payload is not all of it, the
// returned cut that out is not.
func (f *inflater) message(payload []byte, cut bool, cfg *Config) (out []byte, outCut bool, err error) {
	if f.lost {
		return nil, true, errInflateLost
	}
	defer func() {
		if err != nil && !f.forget {
			f.lost, f.window = true, nil
		}
	}()
	if cut {
		return nil, true, errInflateCut
	}
	// RFC 7692, 7.2.2: the tail that the sender took off. The block after
	// it is an empty last one, so that the reader ends with EOF.
	tail := "\x00\x00\xff\xff\x01\x00\x00\xff\xff"
	r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(payload), strings.NewReader(tail)), f.window)
	keep := &headAndTail{head: cfg.MessageLimit, window: f.window}
	if f.forget {
		keep.window = nil
	}
	n, err := io.Copy(keep, io.LimitReader(r, maxInflated+1))
	switch {
	case err != nil:
		return nil, true, errInflateBad
	case n > maxInflated:
		return nil, true, errInflateCut
	}
	if !f.forget {
		f.window = keep.window
	}
	return keep.out, n > int64(len(keep.out)), nil
}

// headAndTail keeps the first bytes that are written, and the last ones as a
// window that goes on from the one before.
type headAndTail struct {
	head   int
	out    []byte
	window []byte
}

func (k *headAndTail) Write(p []byte) (int, error) {
	k.out = append(k.out, p[:min(len(p), k.head-len(k.out))]...)
	k.window = append(k.window, p...)
	if over := len(k.window) - flateWindow; over > flateWindow {
		k.window = append(k.window[:0], k.window[over:]...)
	}
	return len(p), nil
}
