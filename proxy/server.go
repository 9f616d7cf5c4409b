package proxy

import (
	"bytes"
	"log"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	// MaxHeader bounds a request's header, in bytes; 431 beyond.
	MaxHeader = 64 << 10

	// HeaderTime is how long a visitor may take to send a request's header, and
	// for the TLS handshake before it.
	HeaderTime = 10 * time.Second

	// IdleTime is how long a connection may do nothing between two requests.
	IdleTime = 2 * time.Minute
)

// NewServer makes a server for visitors, who may be anybody. What HTTP/1.x it is
// given must come through [Strict] or [Secured]; HTTP/2 is served where the
// handshake of a connection of [Secured] agreed to it.
//
// There is no limit on how long a request or an answer may take: uploads are
// large, streams are endless.
func NewServer(h http.Handler, logger *slog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // a framedConn; [Strict] lets none through
	return &http.Server{
		Handler:           RefuseAmbiguous(h),
		Protocols:         &protocols,
		ReadHeaderTimeout: HeaderTime,
		IdleTimeout:       IdleTime,
		MaxHeaderBytes:    MaxHeader,
		// A visitor that vanished without a word holds its streams until a ping
		// goes unanswered. HTTP/1.1 has TCP's keepalive for that. Frames are what all
		// clients send; net/http would take, and hold, 1 MiB.
		HTTP2:       &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, MaxReadFrameSize: maxFrame, MaxDecoderHeaderTableSize: headerTable},
		ConnContext: withConn,
		ErrorLog:    log.New(serverLog{logger}, "", 0),
	}
}

// RefuseAmbiguous answers requests that could be read in two ways, and hands all others
// to next. Handlers of [NewServer] are behind it already.
func RefuseAmbiguous(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		showTLS(r)
		if ambiguous(r) {
			WriteProblem(w, r, badRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ambiguous reports whether r, which came over HTTP/2 or HTTP/3, could be read in
// two ways: net/http takes the first of several lengths, anything else than a
// length for 0, blanks in a path, and any method. HTTP/1.1 is a strictConn's matter.
func ambiguous(r *http.Request) bool {
	if r.ProtoMajor < 2 {
		return false
	}
	lengths := r.Header["Content-Length"]
	return len(lengths) > 1 || len(lengths) == 1 && lengths[0] != strconv.FormatInt(r.ContentLength, 10) ||
		strings.Contains(r.RequestURI, " ") || !httpguts.ValidHeaderFieldName(r.Method) // both are tokens
}

var badRequest = &Problem{
	Status: http.StatusBadRequest,
	Code:   "bad_request",
	Title:  "The request can be read in two ways",
	Detail: "The request has several lengths, or blanks in its path or method. Send it as HTTP asks for.",
}

// serverLog takes what net/http's server has to say: panics, which are our own
// mistakes, and noise that any visitor can cause.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	if strings.Contains(text, "panic serving") {
		l.log.Error("a request handler panicked", "err", text)
	} else {
		l.log.Debug("http server", "err", text)
	}
	return len(line), nil
}
