package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"
)

// smuggled is a request that must never be one.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

// FuzzFraming holds two things: how the bytes are cut decides nothing, and where
// net/http finds the end of a request that passed, so does framing.
func FuzzFraming(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + smuggled,
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n" + smuggled,
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n", "\r\n\r\nGET / HTTP/1.1\r\n\r\n", "x\ry\r\n", "GET / HTTP/1.1\r\nUpgrade: a\r\n\r\n\n",
	} {
		f.Add([]byte(seed), uint8(1))
		f.Add([]byte(seed), uint8(7))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		var whole framing
		passed, ok := whole.feed(in)
		var pieces framing
		at, okPieces := 0, true
		for at < len(in) && okPieces {
			piece := in[at:min(len(in), at+int(cut)+1)]
			var n int
			n, okPieces = pieces.feed(piece)
			at += n
		}
		// Within the line that is refused it does not matter.
		if ok != okPieces || ok && at != passed || bytes.IndexByte(in[min(at, passed):max(at, passed)], '\n') >= 0 {
			t.Fatalf("whole: %d bytes, %v; in pieces: %d, %v", passed, ok, at, okPieces)
		}
		src := bytes.NewReader(in[:passed])
		br := bufio.NewReader(src)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return // net/http refuses it, or it is not complete
			}
			if len(req.Header["Upgrade"]) > 0 {
				return // nothing that follows is read as HTTP
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			end := passed - src.Len() - br.Buffered()
			var f framing
			if n, ok := f.feed(in[:end]); !ok || n != end || f.part != requestLine || f.length != 0 {
				t.Fatalf("net/http has a request that ends at %d, framing is in part %d there\n%q", end, f.part, in[:end])
			}
		}
	})
}

// What is refused ends in 400 wherever the bytes are cut, never in a request.
func TestRefusalSpoilsEveryPlace(t *testing.T) {
	head := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
	for at := range len(head) + 1 {
		if at == len(head) {
			break // the head is whole, and what follows is its body's matter
		}
		_, err := http.ReadRequest(bufio.NewReader(bytes.NewReader([]byte(head[:at] + refusal))))
		if err == nil {
			t.Errorf("%q and the refusal make a request", head[:at])
		}
	}
	chunked := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	body := "3;x\r\nabc\r\n0\r\nT: u\r\n\r\n"
	for at := range len(body) {
		if at > 5 && at < 8 {
			continue // within a chunk nothing is refused
		}
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader([]byte(chunked + body[:at] + refusal))))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, req.Body); err == nil {
			t.Errorf("%q and the refusal make a body", body[:at])
		}
	}
}
