package edge

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/control"
)

func TestDomainPatterns(t *testing.T) {
	patterns, err := canonicalDomains([]string{"Shop.Customer.org.", " *.Example.net", "*.example.net"})
	if err != nil || !slices.Equal(patterns, []string{"shop.customer.org", "*.example.net"}) {
		t.Fatalf("%q, %v", patterns, err)
	}
	for host, want := range map[string]bool{
		"shop.customer.org": true, "a.example.net": true, "a.b.example.net": true,
		"example.net": false, "notexample.net": false, "customer.org": false, "x.shop.customer.org": false, "": false,
	} {
		if got := domainsAllow(patterns, host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
	for _, bad := range []string{"", "*", "*.", "a.*.example.com", "*.*.example.com", "https://x.example.com", "x y", "192.0.2.1:80"} {
		if _, err := canonicalDomains([]string{bad}); err == nil || !strings.Contains(err.Error(), "*.example.com") {
			t.Errorf("%q: %v, want an error that says what is allowed", bad, err)
		}
	}
	if _, err := canonicalDomains(make([]string, maxDomains+1)); err == nil {
		t.Error("any number of domains is accepted")
	}
}

// addresses is a DNS for tests.
type addresses map[string][]string

func (a addresses) lookup(_ context.Context, host string) (all []netip.Addr, err error) {
	for _, s := range a[host] {
		if s == "broken" {
			return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
		}
		all = append(all, netip.MustParseAddr(s))
	}
	if all == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return all, nil
}

func TestPointing(t *testing.T) {
	p := pointing{
		domain: "example.com", endpoint: "edge.example.com", listener: netip.MustParseAddrPort("[::]:443"),
		local: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.0.0.5")} },
		lookup: addresses{
			"example.com":                {"198.51.100.7"},
			"wgexpose-check.example.com": {"198.51.100.8"}, // the load balancer of *.example.com
			"edge.example.com":           {"198.51.100.7", "2001:db8::7"},
			"good.test":                  {"198.51.100.7", "2001:db8::7"},
			"balanced.test":              {"198.51.100.8"},
			"lan.test":                   {"10.0.0.5"},
			"mapped.test":                {"::ffff:198.51.100.7"},
			"wrong.test":                 {"203.0.113.9"},
			"half.test":                  {"198.51.100.7", "2001:db8::9"},
			"broken.test":                {"broken"},
		}.lookup,
	}
	hosts := map[string][]string{ // host → words of the error, nil for none
		"good.test": nil, "balanced.test": nil, "lan.test": nil, "mapped.test": nil,
		"wrong.test":   {"leads to 203.0.113.9, which is not this edge", "wrong.test CNAME example.com (or A 198.51.100.7, A 198.51.100.8, AAAA 2001:db8::7)"},
		"half.test":    {"leads to this edge and also to 2001:db8::9", "no other addresses"},
		"missing.test": {"has no address in DNS yet", "CNAME example.com"},
		"broken.test":  {"could not be looked up", "server misbehaving"},
	}
	var all []string
	for h := range hosts {
		all = append(all, h)
	}
	got := p.check(t.Context(), all)
	for host, words := range hosts {
		e := got[host]
		if words == nil {
			if e != nil {
				t.Errorf("%s: %v", host, e)
			}
			continue
		}
		if e == nil || e.Code != control.CodeDNSPending {
			t.Errorf("%s: %v, want %s", host, e, control.CodeDNSPending)
			continue
		}
		for _, w := range words {
			if !strings.Contains(e.Message, w) {
				t.Errorf("%s: %q does not say %q", host, e.Message, w)
			}
		}
	}
	// Nothing of the edge is to be found either: the record is named all the same.
	p.lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no DNS here") }
	if e := p.check(t.Context(), []string{"good.test"})["good.test"]; e == nil || !strings.Contains(e.Message, "CNAME example.com, and no other") {
		t.Errorf("without DNS: %v", e)
	}
	// A listener on one address is there and nowhere else.
	p.listener = netip.MustParseAddrPort("127.0.0.1:8443")
	p.lookup = addresses{"here.test": {"127.0.0.1"}, "lan.test": {"10.0.0.5"}}.lookup
	if got := p.check(t.Context(), []string{"here.test", "lan.test"}); got["here.test"] != nil || got["lan.test"] == nil {
		t.Errorf("%v", got)
	}
}

func TestPublishOutsideOfTheDomain(t *testing.T) {
	w := newWorld(t)
	got, err := w.enroll(t.Context(), w.invite(InviteOptions{Domains: []string{"*.customer.org", "shop.example.net"}}), newKey(t).Public(), "laptop")
	if err != nil {
		t.Fatal(err)
	}
	a, b := got.node, w.agent("desktop")
	spec := web(1, "")
	spec.Host = "shop.customer.org"
	wantURL(t, w.publishOne(a, spec), "https://shop.customer.org")
	wantCode(t, w.publishOne(b, spec), control.CodeNameDenied, "shop.customer.org", "allows no other domain", "invite --domains shop.customer.org")
	spec.Host = "customer.org"
	wantCode(t, w.publishOne(a, spec), control.CodeNameDenied, "allows of others only *.customer.org, shop.example.net")
	spec.Host = "app.example.com" // the edge's own are for all
	wantURL(t, w.publishOne(b, spec), "https://app.example.com")

	// A record that is missing, and one that another agent has.
	w.outside = map[string]*control.Error{"new.customer.org": {Code: control.CodeDNSPending, Message: "not yet"}}
	spec.Host = "new.customer.org"
	wantCode(t, w.publishOne(a, spec), control.CodeDNSPending)
	if _, ok := w.snap().publics["public/https/new.customer.org"]; ok {
		t.Error("a name that does not lead here is reserved")
	}
	w.outside = nil
	wantURL(t, w.publishOne(a, spec), "https://new.customer.org")
	other, err := w.enroll(t.Context(), w.invite(InviteOptions{Domains: []string{"*.customer.org"}}), newKey(t).Public(), "rival")
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, w.publishOne(other.node, spec), control.CodeNameTaken, "laptop")

	rows, err := w.admin.Invites(t.Context())
	if err != nil || len(rows) != 3 || !slices.Equal(rows[0].Domains, []string{"*.customer.org", "shop.example.net"}) {
		t.Errorf("invites %+v, %v", rows, err)
	}
	if _, err := w.admin.Invite(t.Context(), InviteOptions{Domains: []string{"*"}}); asRefusal(err) == nil {
		t.Errorf("an invite for everything: %v, want a refusal", err)
	}
}
