// Package localweb tells whom a web server answers that is there for this
// machine and has no password.
//
// What listens on loopback can be reached by every web site that the machine's
// user opens: the site has its name resolve to 127.0.0.1 (DNS rebinding), and for
// the browser the server is then a part of that site, which may read its answers.
// The site's name, which the browser sends as Host, gives it away.
package localweb

import (
	"net"
	"net/netip"
	"strings"
)

// Hosts is by which host names a server may be asked: localhost, any loopback
// address, and those that it was made with.
type Hosts struct {
	names map[string]bool
	any   bool // any address
}

// NewHosts takes host names and IP addresses without ports. An unspecified address
// (0.0.0.0, ::), of which a server listens on all, stands for every address, but for
// no name.
func NewHosts(more ...string) Hosts {
	h := Hosts{names: map[string]bool{"localhost": true}}
	for _, name := range more {
		if addr, err := netip.ParseAddr(name); err == nil && addr.IsUnspecified() {
			h.any = true
			continue
		}
		h.names[strings.ToLower(strings.TrimSuffix(name, "."))] = true
	}
	return h
}

// Allow takes a request's Host, with a port or without.
func (h Hosts) Allow(hostport string) bool {
	host := hostport
	if name, _, err := net.SplitHostPort(hostport); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if h.names[strings.ToLower(strings.TrimSuffix(host, "."))] {
		return true
	}
	// Loopback is 127.0.0.0/8 and ::1. An address cannot be rebound.
	addr, err := netip.ParseAddr(host)
	return err == nil && (addr.Unmap().IsLoopback() || h.any)
}
