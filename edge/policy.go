package edge

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/tunnel"
)

// enforce holds a request to the policy of its tunnel. When it is not admitted,
// it has been answered; else w and r are what the upstream's side gets.
func (f *front) enforce(e *tunnel.Entry, w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request, bool) {
	p := e.Policy
	if p.Empty() {
		return w, r, true
	}
	if !p.Admits(visitorOf(r).Addr()) {
		proxy.WriteProblem(w, r, networkDenied)
		return w, r, false
	}
	if len(p.BasicAuth) > 0 {
		switch f.passwords.check(r, p.BasicAuth) {
		case wrong:
			w.Header().Set("WWW-Authenticate", "Basic realm="+strconv.Quote(e.Host)+`, charset="UTF-8"`)
			proxy.WriteProblem(w, r, passwordAsked)
			return w, r, false
		case unchecked:
			proxy.WriteProblem(w, r, passwordsWait)
			return w, r, false
		}
	}
	if len(p.BasicAuth) > 0 || hasRules(p.RequestHeader) {
		changed := *r // a handler must not change its request's header
		changed.Header = r.Header.Clone()
		r = &changed
	}
	if len(p.BasicAuth) > 0 {
		r.Header.Del("Authorization") // it was for the edge
	}
	changeRequest(r.Header, p.RequestHeader)
	if hasRules(p.ResponseHeader) {
		w = &ruledWriter{ResponseWriter: w, rules: p.ResponseHeader}
	}
	return w, r, true
}

// visitorOf is the address and port that a request came from; zero when it has none.
func visitorOf(r *http.Request) netip.AddrPort {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	return ap
}

func hasRules(h tunnel.HeaderRules) bool { return len(h.Add)+len(h.Remove) > 0 }

// changeRequest changes a visitor's header, which may be made so that a rule misses:
// CGI and WSGI servers read X_Secret as X-Secret (RFC 3875, section 4.1.18), and a
// field that Connection lists ends here (RFC 9110, section 7.6.1), an added one too.
func changeRequest(h http.Header, rules tunnel.HeaderRules) {
	for _, remove := range rules.Remove {
		for name := range h {
			if strings.EqualFold(hyphened(name), hyphened(remove)) {
				delete(h, name)
			}
		}
	}
	for _, add := range rules.Add {
		for i, list := range h["Connection"] {
			names := strings.Split(list, ",")
			h["Connection"][i] = strings.Join(slices.DeleteFunc(names, func(name string) bool {
				return strings.EqualFold(strings.TrimSpace(name), add.Name)
			}), ",")
		}
	}
	change(h, rules)
}

func hyphened(name string) string { return strings.ReplaceAll(name, "_", "-") }

func change(h http.Header, rules tunnel.HeaderRules) {
	for _, name := range rules.Remove {
		h.Del(name)
	}
	for _, field := range rules.Add {
		h.Add(field.Name, field.Value)
	}
}

// ruledWriter changes the header of the final answer. Before it, there may be
// informational ones, which stay as they are.
type ruledWriter struct {
	http.ResponseWriter
	rules tunnel.HeaderRules
	done  bool
}

func (w *ruledWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *ruledWriter) WriteHeader(status int) {
	if status >= http.StatusOK && !w.done {
		w.done = true
		change(w.Header(), w.rules)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *ruledWriter) Write(b []byte) (int, error) {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}
