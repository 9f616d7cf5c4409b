package static

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// maxEchoed is how much of a request's body is shown, in bytes.
const maxEchoed = 64 << 10

// Echo answers each request with what it looks like at the upstream, as text.
func Echo(w http.ResponseWriter, r *http.Request) {
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s %s\nHost: %s\n", r.Method, r.RequestURI, r.Proto, r.Host)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range r.Header[name] {
			fmt.Fprintf(&out, "%s: %s\n", name, value)
		}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxEchoed+1))
	if err != nil {
		return // the visitor has gone
	}
	out.WriteString("\n")
	if len(body) > maxEchoed {
		body = append(body[:maxEchoed], "\n… and more"...)
	}
	out.Write(body)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, out.String()) // the visitor may have gone
}
