package inspect

import (
	"crypto/subtle"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/wgexpose/wgexpose/localweb"
)

// tokenHeader carries the token that a page gets from /api/v1/session. Other
// origins can neither read it nor send the header.
const tokenHeader = "Wgexpose-Token"

// policy lets the page load from its own server and nothing else: no inline
// script or style, no frames, no text turned into script.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// guard refuses what another web site could make a browser send.
//
// A web site may have its name resolve to 127.0.0.1, and would then be of one
// origin with the page, so the Host must be one of ours (see localweb). It may also
// send requests across origins, and browsers say so in Origin and Sec-Fetch-Site.
func (i *Inspector) guard(next http.Handler) http.Handler {
	hosts := localweb.NewHosts(i.cfg.Hosts...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !hosts.Allow(r.Host):
			refuse(w, http.StatusMisdirectedRequest, "host", "the inspector is not served under this host name; open it as http://localhost, or by the address that is its web_addr")
		case !sameOrigin(r):
			refuse(w, http.StatusForbidden, "origin", "the inspector answers its own page only, not other web sites")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// sameOrigin tells whether a request came from our page, from the address bar,
// or from a program.
func sameOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return true
	}
	// A link on another site may lead to the page, and to no more.
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && !strings.HasPrefix(r.URL.Path, "/api/")
}

// withToken lets state change for callers that know the token.
func (i *Inspector) withToken(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !i.hasToken(r) {
			refuse(w, http.StatusForbidden, "token", "this call needs the header "+tokenHeader+" with the token from /api/v1/session")
			return
		}
		next(w, r)
	}
}

func (i *Inspector) hasToken(r *http.Request) bool {
	return subtle.ConstantTimeCompare([]byte(r.Header.Get(tokenHeader)), []byte(i.token)) == 1
}

// withTokenOrProgram is withToken, except for programs that were written for
// another inspector and know of no token. A browser says that it is one on each
// such call, and does not send a JSON body across origins unasked.
func (i *Inspector) withTokenOrProgram(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !i.hasToken(r) {
			for _, name := range []string{"Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Cookie"} {
				if r.Header.Get(name) != "" {
					refuse(w, http.StatusForbidden, "token", "a browser needs the header "+tokenHeader+" with the token from /api/v1/session")
					return
				}
			}
			if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Method == http.MethodPost && (err != nil || media != "application/json") {
				refuse(w, http.StatusUnsupportedMediaType, "content_type", "send this call as application/json")
				return
			}
		}
		next(w, r)
	}
}
