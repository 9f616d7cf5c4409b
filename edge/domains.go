package edge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wgexpose/wgexpose/tunnel"
)

// maxDomains is how many patterns an invite can have.
const maxDomains = 100

// canonicalDomains checks the patterns of host names outside of the edge's domain
// that an invite allows: shop.customer.org is that name, and *.customer.org all
// names below customer.org, at any depth, and not customer.org itself.
func canonicalDomains(patterns []string) ([]string, error) {
	if len(patterns) > maxDomains {
		return nil, fmt.Errorf("%d domains are more than the %d that an invite can have", len(patterns), maxDomains)
	}
	var all []string
	for _, p := range patterns {
		name, wild := strings.CutPrefix(strings.TrimSpace(p), "*.")
		host, err := tunnel.CanonicalHost(name)
		if err != nil || strings.Contains(name, "*") {
			return nil, fmt.Errorf("%q is no domain that an invite can allow: it is a host name such as shop.example.com, or *.example.com for all names below it", p)
		}
		if wild {
			host = "*." + host
		}
		if !slices.Contains(all, host) {
			all = append(all, host)
		}
	}
	return all, nil
}

// domainsAllow reports whether one of the patterns allows host. Both are canonical.
func domainsAllow(patterns []string, host string) bool {
	for _, p := range patterns {
		if base, wild := strings.CutPrefix(p, "*"); wild && strings.HasSuffix(host, base) || p == host {
			return true
		}
	}
	return false
}

// under reports whether host is domain or lies under it. Both are canonical.
func under(host, domain string) bool { return host == domain || strings.HasSuffix(host, "."+domain) }
