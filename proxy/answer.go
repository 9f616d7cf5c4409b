package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// interruptTime is how long a read of an upload that nobody wants any more
	// may go on. A visitor who is sending has something there at once.
	interruptTime = 20 * time.Millisecond

	// lingerTime bounds how long net/http's server goes on reading such an upload
	// so that the visitor reads our answer before the connection ends. The server
	// bounds it in bytes (256 KiB), but not in time.
	lingerTime = 2 * time.Second
)

// answer is the way back to the visitor: the server's ResponseWriter with the
// rules that must hold for whatever is written to it, by the upstream or by us.
type answer struct {
	w        http.ResponseWriter
	r        *http.Request // as it came in, its Body being body
	body     *upload
	hijacked bool
	empty    bool // the upstream's answer is a header and nothing else
	gather   gathering
}

func (a *answer) Header() http.Header { return a.w.Header() }

func (a *answer) Write(b []byte) (int, error) {
	if a.gather.on {
		return a.gather.write(b)
	}
	return a.w.Write(b)
}

// Unwrap lets http.ResponseController find the server's own methods.
func (a *answer) Unwrap() http.ResponseWriter { return a.w }

// FlushError sends what was written. Of an answer without a body nothing is
// sent before the handler returns, which it is about to do: over HTTP/2 its header
// then says that nothing follows, and gRPC takes a status in a header for one
// only if it does ("Trailers-Only").
func (a *answer) FlushError() error {
	if a.empty {
		return nil
	}
	if a.gather.on {
		return a.gather.flush()
	}
	return http.NewResponseController(a.w).Flush()
}

func (a *answer) WriteHeader(status int) {
	h := a.w.Header()
	if status < http.StatusOK && status != http.StatusSwitchingProtocols {
		if !a.r.ProtoAtLeast(1, 1) {
			return // RFC 9110, section 15.2: HTTP/1.0 knows no 1xx
		}
		if status == http.StatusContinue && a.r.ProtoMajor < 3 {
			// net/http's server sends it itself when the upload is first read,
			// which is what the upstream's makes the transport do: passed on from
			// here as well, the visitor would get it twice. The server of HTTP/3
			// leaves it to the handler.
			return
		}
		cleanAnswerHeader(h)
		removeHopByHop(h)
		a.w.WriteHeader(status)
		return
	}
	a.body.anyPace()
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // the upstream gave none: the server must not guess one
	}
	if a.r.ProtoMajor == 1 && !a.body.done() {
		// An answer before the upload's end. Two things follow from "close": the
		// server writes the answer now instead of reading on first, and it never
		// takes the rest of the upload for the next request.
		h.Set("Connection", "close")
	}
	if status != http.StatusSwitchingProtocols && asksForUpgrade(a.r) {
		h.Set("Connection", "close")
	}
	if a.gather.on {
		a.gather.hold()
	}
	a.w.WriteHeader(status)
}

// Hijack takes the connection for an upgrade. The result starts with what the
// visitor had sent already: net/http keeps that in the reader, where
// httputil.ReverseProxy does not look, and the first message would be lost.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	a.hijacked = true
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return &upgraded{Conn: conn, early: early}, rw, nil
}

// finish ends what may still be going on when the answer is complete: trailers
// that are not the upstream's to set, and an upload that nobody reads any more.
func (a *answer) finish() {
	a.body.anyPace()
	// An error breaks the visitor's connection, which the server sees.
	_ = a.gather.end()
	if a.hijacked {
		return
	}
	// Trailers are in the header map until the server writes them, both those
	// that were announced and those that were not.
	h := a.w.Header()
	h.Del(errorHeader)
	delete(h, http.TrailerPrefix+errorHeader)
	if a.r.ProtoMajor == 1 && !a.body.done() {
		rc := http.NewResponseController(a.w)
		a.body.stop(func() bool { return rc.SetReadDeadline(time.Now().Add(interruptTime)) == nil })
		linger(a.w, a.r)
	}
}

// AnswerNow makes ready for an answer to r that does not look at its body. Without
// it net/http's server reads up to 256 KiB of the body before it sends the first
// byte of the answer, without a deadline; with it, the answer goes out at once and
// the connection ends after it where the visitor has not sent all. The handler
// must not read the body after it.
func AnswerNow(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && !newUpload(r).done() {
		w.Header().Set("Connection", "close")
		linger(w, r)
	}
	if asksForUpgrade(r) {
		w.Header().Set("Connection", "close")
	}
}

// asksForUpgrade reports whether what follows r on its connection may be
// something else than HTTP: visitors send it before they know the answer. When
// the upgrade is refused the connection must end, or it would be read as a
// request.
func asksForUpgrade(r *http.Request) bool {
	return r.ProtoMajor == 1 && len(r.Header["Upgrade"]) > 0
}

// linger bounds what the server may still read of an unwanted upload, and makes sure
// that it waits before it closes a connection on which some is still coming: that
// resets the connection, and the visitor loses the answer. After "Expect: 100-continue"
// net/http's server does not wait, unless a limit to the body was met.
func linger(w http.ResponseWriter, r *http.Request) {
	// No deadline to set (a recorder in a test): nothing to wait for either.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lingerTime))
	if len(r.Header["Expect"]) == 0 {
		return
	}
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = outer.Unwrap()
	}
	// More than the limit, which is the error.
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
}
