package edge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wgexpose/wgexpose/control"
)

const (
	// pointWait bounds the look at DNS for one request.
	pointWait = 5 * time.Second
	// pointsAtOnce are the names of one request that are looked up at a time.
	pointsAtOnce = 8
)

// pointing finds out whether a host name leads visitors to this edge: whether all
// its addresses are the edge's.
type pointing struct {
	lookup   func(ctx context.Context, host string) ([]netip.Addr, error) // of both families
	domain   string
	endpoint string         // a host name or an address; "" is none
	listener netip.AddrPort // of the visitors' listener
	local    func() []netip.Addr
}

// lookupHost asks the system's resolver.
func lookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// localAddrs are the addresses of this machine's network cards that others can
// connect to.
func localAddrs() (addrs []netip.Addr) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil // not to be had on this system
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			addrs = append(addrs, p.Addr().Unmap())
		}
	}
	return addrs
}

// ours are the edge's addresses. The first ones are those to tell a person: what
// the domain and the names below it lead to, which may be a load balancer.
func (p pointing) ours(ctx context.Context) []netip.Addr {
	names := []string{p.domain, "wgexpose-check." + p.domain}
	literal, err := netip.ParseAddr(p.endpoint)
	if err != nil && p.endpoint != "" {
		names = append(names, p.endpoint)
	}
	found := make([][]netip.Addr, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { found[i], _ = p.lookup(ctx, name) }) // one that is not there adds nothing
	}
	wg.Wait()
	all := slices.Concat(found...)
	if literal.IsValid() {
		all = append(all, literal)
	}
	if addr := p.listener.Addr(); addr.IsValid() && !addr.IsUnspecified() {
		all = append(all, addr)
	} else {
		all = append(all, p.local()...)
	}
	var unique []netip.Addr
	for _, a := range all {
		if a = a.Unmap().WithZone(""); !slices.Contains(unique, a) {
			unique = append(unique, a)
		}
	}
	return unique
}

// check looks up all hosts, and returns for each that does not lead here what is
// missing.
func (p pointing) check(ctx context.Context, hosts []string) map[string]*control.Error {
	if len(hosts) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pointWait)
	defer cancel()
	ours := p.ours(ctx)
	problems := make([]*control.Error, len(hosts))
	var g errgroup.Group
	g.SetLimit(pointsAtOnce)
	for i, host := range hosts {
		g.Go(func() error {
			problems[i] = p.checkOne(ctx, host, ours)
			return nil
		})
	}
	_ = g.Wait() // always nil
	all := make(map[string]*control.Error)
	for i, host := range hosts {
		if problems[i] != nil {
			all[host] = problems[i]
		}
	}
	return all
}

func (p pointing) checkOne(ctx context.Context, host string, ours []netip.Addr) *control.Error {
	addrs, err := p.lookup(ctx, host)
	var dnsErr *net.DNSError
	why := ""
	switch {
	case err == nil && len(addrs) > 0:
		var others []string
		for _, a := range addrs {
			if a = a.Unmap().WithZone(""); !slices.Contains(ours, a) {
				others = append(others, a.String())
			}
		}
		if len(others) == 0 {
			return nil
		}
		why = "leads to " + strings.Join(others, " and ") + ", which is not this edge"
		if len(others) < len(addrs) {
			why = "leads to this edge and also to " + strings.Join(others, " and ") + ", which is not this edge"
		}
	case err == nil, errors.As(err, &dnsErr) && dnsErr.IsNotFound:
		why = "has no address in DNS yet"
	default:
		why = fmt.Sprintf("could not be looked up (%v)", err)
	}
	return &control.Error{Code: control.CodeDNSPending, Message: fmt.Sprintf(
		"%s %s: it needs the DNS record %s, and no other addresses; the tunnel is served as soon as the edge sees that", host, why, p.record(host, ours))}
}

// record is what to enter at the DNS provider.
func (p pointing) record(host string, ours []netip.Addr) string {
	text := fmt.Sprintf("%s CNAME %s", host, p.domain)
	var public []string
	for _, a := range ours {
		if private(a) {
			continue
		}
		kind := "AAAA"
		if a.Is4() {
			kind = "A"
		}
		public = append(public, kind+" "+a.String())
	}
	if len(public) > 0 {
		text += " (or " + strings.Join(public[:min(len(public), 4)], ", ") + ")"
	}
	return text
}

// private reports whether the internet cannot reach a.
func private(a netip.Addr) bool {
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() || carrierNAT.Contains(a)
}
