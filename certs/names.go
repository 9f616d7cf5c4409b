package certs

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"

	"github.com/mholt/acmez/v3"

	"github.com/wgexpose/wgexpose/tunnel"
)

// canonical returns host as it stands in certificates and in the tunnel table.
func canonical(host string) (string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return "", errors.New("an IP address is not a host name")
	}
	return tunnel.CanonicalHost(host)
}

// within reports whether host is domain or below it. Both are canonical.
func within(host, domain string) bool {
	return host == domain || strings.HasSuffix(host, "."+domain)
}

// subjects returns the names of the internal authority's certificate for host.
// The domain's own also covers what is directly below the domain, except when
// the domain is a single label: OpenSSL accepts no wildcard such as
// *.localhost (X509_check_host wants two labels after the asterisk).
func subjects(host, domain string) []string {
	if host == domain && strings.Contains(domain, ".") {
		return []string{host, "*." + host}
	}
	return []string{host}
}

// ChallengeProtocol is what a TLS-ALPN-01 probe asks for by ALPN (RFC 8737).
const ChallengeProtocol = acmez.ACMETLS1Protocol

// IsChallenge reports whether hello is an ACME authority's TLS-ALPN-01 probe
// (RFC 8737 section 3: exactly this one protocol).
func IsChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ChallengeProtocol
}
