package relay

import (
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// WriteProxyHeader writes a PROXY protocol header of version 1 or 2, in one
// Write: the upstream's connection then speaks for visitor, who connected to
// local. With a zero visitor it says that it speaks for nobody (v1 UNKNOWN, v2
// LOCAL). A zero local becomes the unspecified address of the visitor's
// family. An IPv4 address beside an IPv6 one is written as ::ffff:a.b.c.d, as
// both must be of one family.
//
// Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
func WriteProxyHeader(w io.Writer, version int, visitor, local netip.AddrPort) error {
	if version != 1 && version != 2 {
		return fmt.Errorf("PROXY header version %d: there are 1 and 2", version)
	}
	h := &proxyproto.Header{Version: byte(version), Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if visitor.IsValid() {
		visitor = plainAddr(visitor)
		local = plainAddr(local)
		if !local.IsValid() {
			local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
			if visitor.Addr().Is4() {
				local = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
			}
		}
		h = proxyproto.HeaderProxyFromAddrs(byte(version), net.TCPAddrFromAddrPort(visitor), net.TCPAddrFromAddrPort(local))
	}
	if _, err := h.WriteTo(w); err != nil {
		return fmt.Errorf("write PROXY header: %w", err)
	}
	return nil
}

// plainAddr unmaps an IPv4 address and drops an IPv6 zone, which means nothing
// on another machine and which the header cannot carry.
func plainAddr(a netip.AddrPort) netip.AddrPort {
	if !a.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
