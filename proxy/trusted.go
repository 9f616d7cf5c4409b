package proxy

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Trusted are the networks of proxies in front of this server, such as those of a CDN.
// What they say of a request counts, and nobody else's word: who the visitor is, by
// X-Forwarded-For, and whether the visitor's connection was safe, by X-Forwarded-Proto.
type Trusted []netip.Prefix

// saidProto is where a request's context has the scheme that a trusted proxy told.
type saidProto struct{}

// Believe has next see the visitor of a request that came by a trusted proxy: in
// Request.RemoteAddr, with the port of the proxy's connection, and in what [Secure]
// says.
func (t Trusted) Believe(next http.Handler) http.Handler {
	if len(t) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !t.has(visitorAddr(r.RemoteAddr)) {
			next.ServeHTTP(w, r)
			return
		}
		ctx := r.Context()
		if proto := lastOf(r.Header["X-Forwarded-Proto"]); proto == "http" || proto == "https" {
			ctx = context.WithValue(ctx, saidProto{}, proto)
		}
		r = r.WithContext(ctx) // shallow: the server keeps its own
		if visitor := t.visitor(r.Header["X-Forwarded-For"]); visitor.IsValid() {
			r.RemoteAddr = netip.AddrPortFrom(visitor, peer.Port()).String()
		}
		next.ServeHTTP(w, r)
	})
}

// visitor is the last in X-Forwarded-For that is no trusted proxy itself: what stands
// before it, it may have made up. Where all are trusted it is the first, and zero where
// the last is no address.
func (t Trusted) visitor(lists []string) (visitor netip.Addr) {
	for _, list := range slices.Backward(lists) {
		for _, hop := range slices.Backward(strings.Split(list, ",")) {
			addr := hopAddr(strings.TrimSpace(hop))
			if !addr.IsValid() {
				return visitor
			}
			if visitor = addr; !t.has(addr) {
				return visitor
			}
		}
	}
	return visitor
}

// hopAddr reads an address as proxies write it, some with its port.
func hopAddr(hop string) netip.Addr {
	addr, err := netip.ParseAddr(strings.Trim(hop, "[]"))
	if err != nil {
		return visitorAddr(hop)
	}
	return addr.Unmap().WithZone("")
}

func (t Trusted) has(addr netip.Addr) bool {
	return slices.ContainsFunc(t, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// lastOf is the last element of a field that is a list.
func lastOf(lists []string) string {
	if len(lists) == 0 {
		return ""
	}
	list := lists[len(lists)-1]
	return strings.ToLower(strings.TrimSpace(list[strings.LastIndexByte(list, ',')+1:]))
}

// Secure reports whether the visitor's connection is encrypted: this server's own, or
// the one that a trusted proxy has told of.
func Secure(r *http.Request) bool {
	if proto, ok := r.Context().Value(saidProto{}).(string); ok {
		return proto == "https"
	}
	return r.TLS != nil
}
