package inspect

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// What a head can be wrong in, as the page tells it.
var (
	errNotHTTP   = errors.New("this is not HTTP/1.1")
	errH2        = errors.New("the HTTP/2 frames cannot be understood")
	errLength    = errors.New("the Content-Length cannot be understood")
	errTransfer  = errors.New("the Transfer-Encoding cannot be understood")
	errChunk     = errors.New("the chunked body cannot be understood")
	errHeadLimit = errors.New("the header is longer than what is kept")
	errHeadEnd   = errors.New("the connection ended in the middle of a request's header")
	errFields    = errors.New("a header line cannot be understood")
)

// maxFields bounds the lines of a head, whose slices cost more than its bytes.
const maxFields = 500

// headEnd is the length of the head that p begins with, its blank line
// included, or -1. Bare line feeds end lines too (RFC 9112, 2.2). The search
// starts at from, which must not be behind the line feed before a blank line.
func headEnd(p []byte, from int) int {
	for i := from; i < len(p); {
		n := bytes.IndexByte(p[i:], '\n')
		if n < 0 {
			return -1
		}
		i += n + 1
		if i < len(p) && p[i] == '\n' {
			return i + 1
		}
		if i+1 < len(p) && p[i] == '\r' && p[i+1] == '\n' {
			return i + 2
		}
	}
	return -1
}

// cutLine takes the first line off s, without its ending.
func cutLine(s string) (line, rest string) {
	line, rest, _ = strings.Cut(s, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// parseFields reads header lines up to a blank one. Folded lines (RFC 9112,
// 5.2) are joined to the one before.
func parseFields(s string) (fields, error) {
	list := make(fields, 0, min(maxFields, strings.Count(s, "\n")))
	for s != "" {
		var line string
		line, s = cutLine(s)
		switch {
		case line == "":
			return list, nil
		case line[0] == ' ' || line[0] == '\t':
			if len(list) == 0 {
				return nil, errFields
			}
			last := &list[len(list)-1]
			last.Value += " " + strings.Trim(line, " \t")
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) || len(list) == maxFields {
			return nil, errFields
		}
		list = append(list, Field{name, strings.Trim(value, " \t")})
	}
	return list, nil
}

// isToken is RFC 9110's token (5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return s != ""
}

// requestLine splits "GET /path HTTP/1.1".
func requestLine(line string) (method, target, proto string, err error) {
	method, rest, ok := strings.Cut(line, " ")
	i := strings.LastIndexByte(rest, ' ')
	if !ok || i < 1 || !isToken(method) {
		return "", "", "", errNotHTTP
	}
	target, proto = rest[:i], rest[i+1:]
	if !isHTTP1(proto) && line != h2Preface {
		return "", "", "", errNotHTTP
	}
	return method, target, proto, nil
}

// h2Preface is the first line of HTTP/2 with prior knowledge (RFC 9113, 3.4),
// which looks like a request's.
const h2Preface = "PRI * HTTP/2.0"

// statusLine splits "HTTP/1.1 200 OK".
func statusLine(line string) (proto string, status int, reason string, err error) {
	proto, rest, _ := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(rest, " ")
	status, err = strconv.Atoi(code)
	if !isHTTP1(proto) || err != nil || len(code) != 3 || status < 100 {
		return "", 0, "", errNotHTTP
	}
	return proto, status, reason, nil
}

func isHTTP1(proto string) bool {
	return len(proto) == len("HTTP/1.1") && proto[:7] == "HTTP/1." && proto[7] >= '0' && proto[7] <= '9'
}

// framing says how the end of a body is found.
type framing int

const (
	framedByLength framing = iota
	framedByChunks
	framedByClose
)

// bodyFraming reads the fields that frame a body (RFC 9112, 6.3). Without any,
// an answer goes on to the end of the connection, a request has no body.
func (f fields) bodyFraming(dir direction) (framing, int64, error) {
	transfer, length := "", int64(-1)
	for i := range f {
		switch name := f[i].Name; {
		case len(name) == len("Content-Length") && strings.EqualFold(name, "Content-Length"):
			// Equal values may be repeated, as lines or in one.
			for part := range strings.SplitSeq(f[i].Value, ",") {
				n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 63)
				if err != nil || (length >= 0 && length != int64(n)) {
					return 0, 0, errLength
				}
				length = int64(n)
			}
		case len(name) == len("Transfer-Encoding") && strings.EqualFold(name, "Transfer-Encoding"):
			if transfer != "" {
				transfer += ","
			}
			transfer += f[i].Value
		}
	}
	if transfer != "" {
		last := transfer[strings.LastIndexByte(transfer, ',')+1:]
		switch {
		case strings.EqualFold(strings.TrimSpace(last), "chunked"):
			return framedByChunks, 0, nil
		case dir == toVisitor:
			return framedByClose, 0, nil
		}
		return 0, 0, errTransfer
	}
	switch {
	case length >= 0:
		return framedByLength, length, nil
	case dir == toVisitor:
		return framedByClose, 0, nil
	}
	return framedByLength, 0, nil
}

// chunkSize reads the line before a chunk: hexadecimal digits, then perhaps an
// extension, which means nothing to anybody.
func chunkSize(line []byte) (int64, error) {
	digits, _, _ := bytes.Cut(line, []byte(";"))
	n, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 62)
	if err != nil {
		return 0, errChunk
	}
	return int64(n), nil
}
