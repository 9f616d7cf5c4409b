package edge

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/tunnel"
)

const (
	// warnedFor is how long a browser is not warned again of one host.
	warnedFor = 7 * 24 * time.Hour

	// warnedCookie belongs to one host alone: browsers take a name that begins so
	// from that host itself, over HTTPS (RFC 6265bis, section 4.1.3.2), and no other
	// tunnel under the same domain can set it.
	warnedCookie = "__Host-wgexpose-warned"
	// plainWarnedCookie is for an edge without TLS.
	plainWarnedCookie = "wgexpose-warned"

	// goOn is in the query of the warning's link.
	goOn = "wgexpose-continue"
)

// skipWarning are headers by which programs say that nobody is there to be warned.
var skipWarning = []string{"Wgexpose-Skip-Warning", "Ngrok-Skip-Browser-Warning"}

// warns reports whether visitors of the tunnel are warned before its first page.
func (f *front) warns(e *tunnel.Entry) bool {
	return e.Policy != nil && e.Policy.Warning || f.cfg.WarnRandomNames && e.Generated
}

// warn answers a browser that is about to open a page of a tunnel for the first
// time, or has just been told and goes on. It reports whether it has.
//
// The link works from the warning alone: on another site's link a browser says that
// it comes from there, and is warned.
func (f *front) warn(e *tunnel.Entry, w http.ResponseWriter, r *http.Request) bool {
	if !f.warns(e) || !opensPage(r) {
		return false
	}
	name := warnedCookie
	if !proxy.Secure(r) {
		name = plainWarnedCookie
	}
	if _, err := r.Cookie(name); err == nil {
		return false
	}
	query := r.URL.Query()
	if query.Has(goOn) && fromHere(r) {
		http.SetCookie(w, &http.Cookie{
			Name: name, Value: "1", Path: "/", MaxAge: int(warnedFor.Seconds()), Secure: proxy.Secure(r), HttpOnly: true, SameSite: http.SameSiteLaxMode,
		})
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Location", pathOf(r.URL, without(r.URL.RawQuery)))
		w.WriteHeader(http.StatusSeeOther)
		return true
	}
	rest := without(r.URL.RawQuery)
	if rest != "" {
		rest += "&"
	}
	proxy.WriteNotice(w, r, proxy.Notice{
		Title: "You are about to visit " + e.Host,
		Detail: "Somebody shares this page from a machine of their own, with wgexpose. Who runs the domain has not looked at it. " +
			"Go on only if you trust whoever gave you the address, and give no passwords away that belong elsewhere.",
		Link: pathOf(r.URL, rest+goOn+"=1"), LinkText: "Go on to the page",
	})
	return true
}

// opensPage tells a browser that opens a page from programs, scripts of a page,
// WebSockets and other requests, which nobody would see a warning of.
func opensPage(r *http.Request) bool {
	if r.Method != http.MethodGet || r.Header.Get("Upgrade") != "" || !strings.HasPrefix(r.Header.Get("User-Agent"), "Mozilla/") {
		return false
	}
	for _, name := range skipWarning {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" {
		return false
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// fromHere reports whether a browser followed a link of a page of this host.
func fromHere(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin"
	}
	from, err := url.Parse(r.Header.Get("Referer")) // of browsers before 2023
	return err == nil && from.Host != "" && strings.EqualFold(from.Host, r.Host)
}

// without takes goOn out of a query, and leaves the rest as it is written.
func without(query string) string {
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		if name, _, _ := strings.Cut(part, "="); part != "" && name != goOn {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}

// pathOf is a link to a page of the same host. A path that begins with two slashes
// would be one to another.
func pathOf(u *url.URL, query string) string {
	path := "/" + strings.TrimLeft(u.EscapedPath(), "/")
	if query != "" {
		path += "?" + query
	}
	return path
}
