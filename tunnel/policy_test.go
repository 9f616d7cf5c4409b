package tunnel

import (
	"net/netip"
	"strings"
	"testing"
)

const someHash = "$2a$04$abcdefghijklmnopqrstuu5Sq4v1Qqf0kL3dB0Zc1r0m7n0nDkqX2"

func networks(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestPolicyAdmits(t *testing.T) {
	for name, c := range map[string]struct {
		policy *Policy
		in     []string
		out    []string
	}{
		"none":  {nil, []string{"192.0.2.1", "::1"}, nil},
		"empty": {&Policy{}, []string{"192.0.2.1", "2001:db8::1"}, nil},
		"allow": {&Policy{Allow: networks("192.0.2.0/24", "2001:db8::/32")}, []string{"192.0.2.9", "::ffff:192.0.2.9", "2001:db8::9"}, []string{"192.0.3.1", "::1", "::ffff:192.0.3.1"}},
		"deny":  {&Policy{Deny: networks("192.0.2.0/24", "fe80::/10")}, []string{"192.0.3.1", "::1"}, []string{"192.0.2.9", "::ffff:192.0.2.9", "fe80::1%eth0"}},
		"both":  {&Policy{Allow: networks("10.0.0.0/8"), Deny: networks("10.1.0.0/16")}, []string{"10.2.0.1"}, []string{"10.1.0.1", "11.0.0.1"}},
	} {
		for _, a := range c.in {
			if !c.policy.Admits(netip.MustParseAddr(a)) {
				t.Errorf("%s: %s is turned away", name, a)
			}
		}
		for _, a := range c.out {
			if c.policy.Admits(netip.MustParseAddr(a)) {
				t.Errorf("%s: %s is admitted", name, a)
			}
		}
		if unknown := c.policy.Admits(netip.Addr{}); unknown != c.policy.Empty() {
			t.Errorf("%s: an unknown address: %v", name, unknown)
		}
	}
}

func TestPolicyValidate(t *testing.T) {
	for name, c := range map[string]struct {
		base   func() Spec
		policy Policy
		want   string // "" is allowed
	}{
		"all": {httpSpec, Policy{
			BasicAuth: []Credential{{"me", someHash}}, Allow: networks("192.0.2.0/24"), Deny: networks("192.0.2.1/32"),
			RequestHeader: HeaderRules{Remove: []string{"Cookie"}, Add: []Header{{"X-From", "wgexpose"}}},
		}, ""},
		"networks of tcp":   {tcpSpec, Policy{Allow: networks("192.0.2.0/24")}, ""},
		"password of tcp":   {tcpSpec, Policy{BasicAuth: []Credential{{"me", someHash}}}, "belong to an http tunnel"},
		"headers of tcp":    {tcpSpec, Policy{ResponseHeader: HeaderRules{Remove: []string{"Server"}}}, "belong to an http tunnel"},
		"plain password":    {httpSpec, Policy{BasicAuth: []Credential{{"me", "secret"}}}, "hashed"},
		"costly password":   {httpSpec, Policy{BasicAuth: []Credential{{"me", strings.Replace(someHash, "$04$", "$31$", 1)}}}, "hashed"},
		"user with colon":   {httpSpec, Policy{BasicAuth: []Credential{{"a:b", someHash}}}, "colon"},
		"no user":           {httpSpec, Policy{BasicAuth: []Credential{{"", someHash}}}, "user's name"},
		"host bits":         {httpSpec, Policy{Deny: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}, "is no network"},
		"mapped":            {httpSpec, Policy{Deny: []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.0/120")}}, "is no network"},
		"no network":        {httpSpec, Policy{Deny: []netip.Prefix{{}}}, "is no network"},
		"many networks":     {httpSpec, Policy{Deny: make([]netip.Prefix, 257)}, "at most"},
		"header injection":  {httpSpec, Policy{RequestHeader: HeaderRules{Add: []Header{{"X-A", "b\r\nX-C: d"}}}}, "control characters"},
		"name injection":    {httpSpec, Policy{RequestHeader: HeaderRules{Add: []Header{{"X-A: b\r\nX", "d"}}}}, "is no name"},
		"framing":           {httpSpec, Policy{RequestHeader: HeaderRules{Add: []Header{{"Content-Length", "1"}}}}, "own matter"},
		"origin":            {httpSpec, Policy{RequestHeader: HeaderRules{Remove: []string{"X_Forwarded-For"}}}, "own matter"},
		"own marker":        {httpSpec, Policy{ResponseHeader: HeaderRules{Add: []Header{{"Wgexpose-Error", "x"}}}}, "own matter"},
		"host":              {httpSpec, Policy{RequestHeader: HeaderRules{Add: []Header{{"Host", "x"}}}}, "host_header"},
		"very many headers": {httpSpec, Policy{RequestHeader: HeaderRules{Remove: make([]string, 65)}}, "at most"},
	} {
		spec := c.base()
		spec.Policy = &c.policy
		err := spec.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
