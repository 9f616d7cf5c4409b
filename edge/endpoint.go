package edge

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/wgexpose/wgexpose/tunnel"
)

// splitEndpoint reads HOST, HOST:PORT, an IPv6 address with or without
// brackets, or nothing. Port 0 means that none is given.
func splitEndpoint(s string) (host string, port uint16, err error) {
	if s == "" {
		return "", 0, nil
	}
	bad := func(why string) (string, uint16, error) {
		return "", 0, fmt.Errorf("endpoint %q: %s; it is HOST or HOST:PORT, the public address of this edge", s, why)
	}
	host = s
	if _, perr := netip.ParseAddr(s); perr != nil { // not a bare IPv6 address, whose colons are no port's
		switch {
		case strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]"):
			host = s[1 : len(s)-1]
		case strings.Contains(s, ":"):
			h, p, serr := net.SplitHostPort(s)
			if serr != nil {
				return bad("not a host and a port")
			}
			n, nerr := strconv.ParseUint(p, 10, 16)
			if nerr != nil || n == 0 {
				return bad("the port is not a number from 1 to 65535")
			}
			host, port = h, uint16(n)
		}
	}
	if a, perr := netip.ParseAddr(host); perr == nil {
		if a.IsUnspecified() || a.IsMulticast() {
			return bad("agents cannot connect to this address")
		}
		return a.String(), port, nil
	}
	if strings.Contains(host, ":") {
		return bad("not an IPv6 address")
	}
	canonical, herr := tunnel.CanonicalHost(host)
	if herr != nil {
		return bad(herr.Error())
	}
	return canonical, port, nil
}

// moreEndpoints are the HOST:PORT that invites carry for further WireGuard
// sockets: at the configured host, or else at their own addresses. Those are the
// ports that the sockets are bound to, since only the first can have another one
// in front of it.
func moreEndpoints(configured string, bound []netip.AddrPort) ([]string, error) {
	host, _, err := splitEndpoint(configured)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, addr := range bound {
		at := addr.Addr().Unmap()
		// A configured address is that of one network card, or of the NAT in front
		// of all. A socket that was bound to another public address has its own.
		own := netip.AddrPortFrom(at.WithZone(""), addr.Port()).String()
		if _, err := netip.ParseAddr(host); err == nil && !at.IsUnspecified() && endpointWarning(own) == "" {
			all = append(all, own)
			continue
		}
		endpoint, _, err := publicEndpoint(host, addr)
		if err != nil {
			return nil, err
		}
		all = append(all, endpoint)
	}
	return all, nil
}

// publicEndpoint is the HOST:PORT that invites carry, for a configured one
// (which New has checked) and the bound address of the WireGuard socket. The
// warning is empty unless agents may be unable to reach it.
func publicEndpoint(configured string, bound netip.AddrPort) (endpoint, warning string, err error) {
	host, port, err := splitEndpoint(configured)
	if err != nil {
		return "", "", err
	}
	if port == 0 {
		port = bound.Port()
	}
	if host == "" {
		addr := bound.Addr().Unmap()
		if !addr.IsValid() || addr.IsUnspecified() {
			addr = routedAddr()
		}
		host = addr.WithZone("").String()
	}
	endpoint = net.JoinHostPort(host, strconv.Itoa(int(port)))
	return endpoint, endpointWarning(endpoint), nil
}

// routedAddr is the local address of the route to the internet, or loopback
// where there is no such route. Connecting a UDP socket sends nothing; the
// addresses are for documentation (RFC 5737, RFC 3849), so no host is meant.
func routedAddr() netip.Addr {
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", to)
		if err != nil {
			continue // no route for this family
		}
		local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		c.Close()
		if local.IsValid() && !local.IsUnspecified() {
			return local
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// carrierNAT is what providers number customers with that have no address of
// their own (RFC 6598).
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

// endpointWarning says so when an endpoint is an address that the internet
// cannot reach. Host names are not looked up.
func endpointWarning(endpoint string) string {
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		return ""
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	kind, who := "a private address", ""
	switch addr = addr.Unmap(); {
	case addr.IsLoopback():
		kind, who = "of this machine alone", "no other agents can reach it"
	case addr.IsPrivate(), addr.IsLinkLocalUnicast(), carrierNAT.Contains(addr):
		who = "agents on the internet cannot reach it, only those on the same network"
	default:
		return ""
	}
	return fmt.Sprintf("the endpoint %s that invites carry is %s: %s; if there are to be any, start the edge with --endpoint and its public address or host name", endpoint, kind, who)
}
