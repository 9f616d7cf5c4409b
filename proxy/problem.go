package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
)

// Problem says to a visitor why there is no answer from the upstream. It is an
// error, so that a Dial can return it.
type Problem struct {
	Status int    // HTTP status
	Code   string // one word for programs, such as "agent_away"; the value of Wgexpose-Error
	Title  string // one line: what is wrong
	Detail string // one or two sentences: what happened and what to do

	// RetryAfter is when it makes sense to try again. Zero: not said.
	RetryAfter time.Duration
}

func (p *Problem) Error() string { return fmt.Sprintf("%s: %s", p.Code, p.Title) }

const (
	brokenCode = "upstream_broken"

	brokenOverHTTP2 = "The service behind this address ended the request without a proper HTTP/2 answer. If it is yours, look into its log, and check that it speaks HTTP/2 on this port; else try again later."
)

// defaultProblem words an error of the way to the upstream.
func defaultProblem(err error) *Problem {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Problem{
			Status: http.StatusBadGateway,
			Code:   "upstream_refused",
			Title:  "The service is not running",
			Detail: "The machine behind this address is connected, but the service on it refused the connection. If it is yours, start it and check its port; else try again later.",
		}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &Problem{
			Status: http.StatusGatewayTimeout,
			Code:   "upstream_timeout",
			Title:  "The service does not answer",
			Detail: "The service behind this address took too long to accept the connection. If it is yours, check that it is running and not overloaded; else try again later.",
		}
	}
	return &Problem{
		Status: http.StatusBadGateway,
		Code:   brokenCode,
		Title:  "The service broke off",
		Detail: "The service behind this address ended the connection without a proper HTTP answer. If it is yours, look into its log, and check that it speaks plain HTTP/1.1 on this port; else try again later.",
	}
}

func badUpload(err error) *Problem {
	return &Problem{
		Status: http.StatusBadRequest,
		Code:   "bad_request",
		Title:  "The request broke off",
		Detail: fmt.Sprintf("The body of the request could not be read to its end (%v). Send it again.", err),
	}
}

func badUpgrade() *Problem {
	return &Problem{
		Status: http.StatusBadRequest,
		Code:   "bad_request",
		Title:  "The request asks for an unreadable protocol",
		Detail: "The Upgrade header holds characters that no protocol's name has. Send the request without it.",
	}
}

// WriteProblem answers r with p: as a page where Accept asks for HTML, as JSON
// where it asks for that, else as plain text. The answer is never stored, and
// carries the header Wgexpose-Error.
func WriteProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	h := w.Header()
	h.Set(errorHeader, p.Code)
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.RetryAfter > 0 {
		seconds := int64((p.RetryAfter + time.Second - 1) / time.Second)
		h.Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	if _, ours := w.(*answer); !ours {
		AnswerNow(w, r)
	}
	var body []byte
	switch form := preferredForm(r.Header.Values("Accept")); form {
	case formHTML:
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", pagePolicy)
		body = problemPage(p, r.Host)
	case formJSON:
		h.Set("Content-Type", "application/json")
		body = problemJSON(p)
	default:
		h.Set("Content-Type", "text/plain; charset=utf-8")
		body = fmt.Appendf(nil, "%d %s\n\n%s\n", p.Status, p.Title, p.Detail)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // an error here: the visitor has gone
}

func problemJSON(p *Problem) []byte {
	var doc struct {
		Error struct {
			Status  int    `json:"status"`
			Code    string `json:"code"`
			Title   string `json:"title"`
			Message string `json:"message"`
		} `json:"error"`
	}
	doc.Error.Status, doc.Error.Code = p.Status, p.Code
	doc.Error.Title, doc.Error.Message = p.Title, p.Detail
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err) // strings and a number: cannot happen
	}
	return append(b, '\n')
}
