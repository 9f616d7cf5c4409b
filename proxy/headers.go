package proxy

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
)

// errorHeader marks answers of our own. Only WriteProblem sets it.
const errorHeader = "Wgexpose-Error"

// rewrite makes the upstream's request from the visitor's. Hop-by-hop fields
// and everything that Connection lists are gone from pr.Out already, so a
// visitor cannot have a field removed that is set here.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	out, in := pr.Out, pr.In
	out.URL.Scheme = "http"
	out.URL.Host = "upstream" // names the pool, never looked up: Dial knows the way
	// The reverse proxy drops query parameters that Go cannot parse. Nothing
	// here reads them, so there is nothing to disagree about: pass all.
	out.URL.RawQuery = in.URL.RawQuery
	// A clone of in's would be the one of before the body was read.
	out.Trailer = in.Trailer
	out.Host = in.Host
	if p.cfg.HostHeader != "" {
		out.Host = p.cfg.HostHeader
	}
	for name := range out.Header {
		if claimsOrigin(name) || looksLikeFraming(name) {
			delete(out.Header, name)
		}
	}
	if visitor := visitorAddr(in.RemoteAddr); visitor.IsValid() {
		out.Header.Set("X-Forwarded-For", visitor.String())
		out.Header.Set("X-Real-Ip", visitor.String())
	}
	out.Header.Set("X-Forwarded-Host", in.Host)
	proto := "http"
	if Secure(in) {
		proto = "https"
	}
	out.Header.Set("X-Forwarded-Proto", proto)
	if p.cfg.HTTP2 || !mayUpgrade(out.Header.Get("Upgrade")) {
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
		out.Header.Del("Http2-Settings")
	}
}

// claimsOrigin reports whether a request field of that name tells an upstream
// where the request came from. CGI and WSGI servers read X_Forwarded_For as
// X-Forwarded-For (RFC 3875, section 4.1.18), so both spellings count.
func claimsOrigin(name string) bool {
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	switch name {
	case "forwarded", "x-forwarded", "x-real-ip":
		return true
	}
	return strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "wgexpose-")
}

// looksLikeFraming reports whether a CGI or WSGI server would take a field for
// one that says where the body ends. Transfer_Encoding has no honest use.
func looksLikeFraming(name string) bool {
	if !strings.Contains(name, "_") {
		return false
	}
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	return name == "content-length" || name == "transfer-encoding"
}

// mayUpgrade reports whether a connection may turn into the named protocols.
// Not into HTTP/2: requests inside it would pass by all that is done to requests
// here, X-Forwarded-For above all ("h2c smuggling").
func mayUpgrade(protocols string) bool {
	for protocol := range strings.SplitSeq(protocols, ",") {
		name, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(protocol)), "/")
		if name == "h2c" || name == "h2" || name == "http" {
			return false
		}
	}
	return true
}

// visitorAddr reads the address out of a request's RemoteAddr; zero when there
// is none (a Unix socket). Zones mean nothing outside of this machine.
func visitorAddr(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// changeResponse takes out of an upstream's answer what is not the upstream's to
// say to a visitor, and compresses it if that is asked for.
func (p *Proxy) changeResponse(res *http.Response) error {
	cleanAnswerHeader(res.Header)
	res.Trailer.Del(errorHeader)
	if p.cfg.Compression {
		compress(res)
	}
	return nil
}

// cleanAnswerHeader drops our own marker, and Alt-Svc, which names ports of the
// upstream's machine: a visitor would look for them at ours (RFC 7838).
func cleanAnswerHeader(h http.Header) {
	h.Del(errorHeader)
	h.Del("Alt-Svc")
}

// removeHopByHop drops the fields of one connection (RFC 9110, section 7.6.1)
// where httputil.ReverseProxy does not: in 1xx answers.
func removeHopByHop(h http.Header) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
		h.Del(name)
	}
}

// HostOnly takes the port off a Host header. What is no port stays, so that the whole
// is no host name, as do brackets around a name: upstreams make links of what a visitor
// says there.
func HostOnly(hostport string) string {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil || strings.Trim(port, "0123456789") != "" || hostport[0] == '[' && !strings.Contains(host, ":") {
		return hostport
	}
	return host
}
