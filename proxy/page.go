package proxy

import (
	"fmt"
	"html"
	"mime"
	"strconv"
	"strings"
)

// pagePolicy lets pages have no more than that.
const pagePolicy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// page needs nothing from anywhere else: the network may be what is broken, and
// its Content-Security-Policy forbids all but the style in it. Its verbs are a
// title, a heading, a text and a footer, of HTML. It is no template of html/template:
// with those in a program the linker keeps every method of every type, which may be
// called by name (ADR 52).
const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>%s</title>
<style>
:root { color-scheme: light dark; --ink: #1c2128; --soft: #59636e; --ground: #f6f7f9; --card: #fff; --line: #d8dee4 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4af; --ground: #14171b; --card: #1c2026; --line: #333a43 } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  background: var(--ground); color: var(--ink); font: 1rem/1.6 system-ui, sans-serif }
main { max-width: 34rem; padding: 2rem; background: var(--card); border: 1px solid var(--line); border-radius: .75rem }
h1 { margin: 0 0 .75rem; font-size: 1.4rem; line-height: 1.3 }
p { margin: 0; overflow-wrap: anywhere }
a { color: inherit }
footer { margin-top: 1.5rem; color: var(--soft); font-size: .85rem; overflow-wrap: anywhere }
</style>
</head>
<body>
<main>
<h1>%s</h1>
<p>%s</p>
<footer>%s</footer>
</main>
</body>
</html>
`

// problemPage renders p for a browser that asked for host.
func problemPage(p *Problem, host string) []byte {
	title := html.EscapeString(p.Title)
	footer := fmt.Sprintf("%d %s", p.Status, html.EscapeString(p.Code))
	if host != "" {
		footer += " · " + html.EscapeString(host)
	}
	return fmt.Appendf(nil, page, fmt.Sprintf("%d %s", p.Status, title), title, html.EscapeString(p.Detail), footer)
}

type form int

const (
	formText form = iota
	formHTML
	formJSON
)

// preferredForm picks what an Accept header likes best (RFC 9110, section
// 12.5.1). Programs that take anything, such as curl, get plain text.
func preferredForm(accept []string) form {
	best, bestScore := formText, 0.0
	for _, part := range strings.Split(strings.Join(accept, ","), ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		var f form
		switch media {
		case "text/html", "application/xhtml+xml":
			f = formHTML
		case "application/json", "application/problem+json":
			f = formJSON
		case "text/plain", "text/*", "*/*":
			f = formText
		default:
			continue
		}
		q := 1.0
		if s, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(s, 64); err != nil {
				continue
			}
		}
		// The first of equals wins, but what is named wins over a wildcard.
		if strings.HasSuffix(media, "*") {
			q -= 0.0001
		}
		if q > bestScore {
			best, bestScore = f, q
		}
	}
	return best
}
