package proxy

import (
	"fmt"
	"html"
	"net/http"
	"strconv"
)

// Notice is a page for a person that is no error.
type Notice struct {
	Title, Detail  string
	Link, LinkText string // how to go on: a path of the same host
}

// WriteNotice answers a browser with a notice in place of the page that it asked
// for.
func WriteNotice(w http.ResponseWriter, r *http.Request, n Notice) {
	title := html.EscapeString(n.Title)
	link := fmt.Sprintf(`<a href="%s">%s</a>`, html.EscapeString(n.Link), html.EscapeString(n.LinkText))
	body := fmt.Appendf(nil, page, title, title, html.EscapeString(n.Detail), link)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	AnswerNow(w, r)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // an error here: the visitor has gone
}
