package proxy

import (
	"bytes"
	"html/template"
	"net/http"
	"strconv"
)

// Notice is a page for a person that is no error.
type Notice struct {
	Title, Detail  string
	Link, LinkText string // how to go on: a path of the same host
}

var noticePage = template.Must(template.Must(page.Clone()).New("notice").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{{.Title}}</title>
{{template "style"}}
</head>
<body>
<main>
<h1>{{.Title}}</h1>
<p>{{.Detail}}</p>
<footer><a href="{{.Link}}">{{.LinkText}}</a></footer>
</main>
</body>
</html>
`))

// WriteNotice answers a browser with a notice in place of the page that it asked
// for.
func WriteNotice(w http.ResponseWriter, r *http.Request, n Notice) {
	var b bytes.Buffer
	if err := noticePage.ExecuteTemplate(&b, "notice", n); err != nil {
		panic(err) // a fixed template over strings: cannot happen
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	AnswerNow(w, r)
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b.Bytes()) // an error here: the visitor has gone
}
