package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// DomainAuto as Config.Domain is a domain below sslip.io that names the edge's
// public address: 198-51-100-7.sslip.io, where every name below leads to
// 198.51.100.7.
const DomainAuto = "auto"

const (
	// metadataURL is where AWS, Azure and Google Cloud tell a machine about itself.
	// The address is link-local (RFC 3927): what asks there asks its own cloud.
	metadataURL     = "http://169.254.169.254"
	metadataTimeout = 3 * time.Second
	maxMetadata     = 1 << 10 // bytes of an answer
)

// publicAddress finds the address that the internet reaches this edge at. Nobody
// outside is asked: the sources are the configured endpoint, the machine's network
// cards, and its cloud.
type publicAddress struct {
	endpoint string // a host name, an address, or ""
	local    func() []netip.Addr
	lookup   func(ctx context.Context, host string) ([]netip.Addr, error)
	metadata string // URL
}

// find returns the address, and where it is from.
func (p publicAddress) find(ctx context.Context) (addr netip.Addr, from string, err error) {
	literal, err := netip.ParseAddr(p.endpoint)
	if err == nil {
		if private(literal) {
			return addr, "", fmt.Errorf("find the domain by the public address: the endpoint %s is a private one; give the public address with --endpoint, or a domain of yours with --domain", literal)
		}
		return literal, "endpoint", nil
	}
	if p.endpoint != "" {
		addrs, err := p.lookup(ctx, p.endpoint)
		if addr := firstPublic(addrs); addr.IsValid() {
			return addr, "endpoint", nil
		}
		if err == nil {
			err = errors.New("it leads to no public address")
		}
		return addr, "", fmt.Errorf("find the domain by the public address: the endpoint %s: %w; give the address itself with --endpoint, or a domain of yours with --domain", p.endpoint, err)
	}
	// A cloud that translates IPv4 may still give the card a public IPv6 address.
	own := firstPublic(p.local())
	if own.Is4() {
		return own, "network card", nil
	}
	if addr := p.ask(ctx); addr.IsValid() {
		return addr, "cloud", nil
	}
	if own.IsValid() {
		return own, "network card", nil
	}
	return addr, "", errors.New("find the domain by the public address: this machine's network cards have only private ones, and no cloud told a public one: give it with --endpoint ADDRESS, or name a domain of yours with --domain")
}

// firstPublic prefers IPv4, which more visitors have.
func firstPublic(addrs []netip.Addr) (found netip.Addr) {
	for _, a := range addrs {
		if a = a.Unmap(); !private(a) && (!found.IsValid() || a.Is4() && !found.Is4()) {
			found = a
		}
	}
	return found
}

// ask asks the cloud that the machine is in, if it is in one. The clouds whose
// machines have their public addresses themselves need no asking.
func (p publicAddress) ask(ctx context.Context) netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	transport := new(http.Transport) // without a proxy: the address is the machine's own
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	get := func(method, path, header, value string) string {
		req, err := http.NewRequestWithContext(ctx, method, p.metadata+path, nil)
		if err != nil {
			return ""
		}
		req.Header.Set(header, value)
		resp, err := client.Do(req)
		if err != nil {
			return "" // no such cloud
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata))
		if err != nil || resp.StatusCode != http.StatusOK {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	ways := []func() string{
		func() string { // AWS, version 2 of its service
			token := get(http.MethodPut, "/latest/api/token", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
			if token == "" {
				return ""
			}
			return get(http.MethodGet, "/latest/meta-data/public-ipv4", "X-Aws-Ec2-Metadata-Token", token)
		},
		func() string {
			return get(http.MethodGet, "/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip", "Metadata-Flavor", "Google")
		},
		func() string { // Azure
			return get(http.MethodGet, "/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress?api-version=2021-02-01&format=text", "Metadata", "true")
		},
	}
	answers := make(chan string, len(ways))
	for _, way := range ways {
		go func() { answers <- way() }() // ends with ctx
	}
	var found netip.Addr
	for range ways { // all are waited for
		if addr, err := netip.ParseAddr(<-answers); err == nil && !private(addr) && !found.IsValid() {
			found = addr.Unmap()
			cancel()
		}
	}
	return found
}

// sslipDomain is the domain that names addr. Dashes, since a certificate's wildcard
// stands for one label; IPv6 in full, since a label has no dash at its ends.
func sslipDomain(addr netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(addr.StringExpanded()) + ".sslip.io"
}

// autoDomain is the domain for DomainAuto. An address that only the cloud knows
// becomes the endpoint of invites, too.
func (r *running) autoDomain(ctx context.Context) (string, error) {
	host, _, err := splitEndpoint(r.cfg.Endpoint)
	if err != nil {
		return "", err
	}
	p := publicAddress{endpoint: host, local: localAddrs, lookup: r.cfg.Lookup, metadata: metadataURL}
	addr, from, err := p.find(ctx)
	if err != nil {
		return "", err
	}
	domain := sslipDomain(addr)
	r.log.Info("domain found by the public address", "domain", domain, "address", addr, "from", from)
	if from == "cloud" {
		r.cfg.Endpoint = addr.String()
	}
	return domain, nil
}
