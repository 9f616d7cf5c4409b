package certs

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/cloudflare"
	"github.com/libdns/digitalocean"
	"github.com/libdns/hetzner/v2"
	"github.com/libdns/rfc2136"
	"github.com/libdns/route53"
)

// DNS says how TXT records of the edge's domain are set, so that DNS-01 (RFC
// 8555 section 8.4) proves the domain and a wildcard below it.
type DNS struct {
	Provider string            // one of DNSProviders
	Options  map[string]Secret // see DNSOptions
	// Resolvers, HOST or HOST:PORT, are asked for the zone, and whether the record
	// is there before the authority looks. nil asks the system's for the zone and
	// then the zone's own servers.
	Resolvers []string
}

// dnsProvider is one way to set records, of libdns.
type dnsProvider struct {
	required, optional []string // names of options
	open               func(o map[string]Secret) certmagic.DNSProvider
}

func dnsProviders() map[string]dnsProvider {
	return map[string]dnsProvider{
		"cloudflare": {
			required: []string{"api_token"}, // with Zone.DNS:Edit
			optional: []string{"zone_token"},
			open: func(o map[string]Secret) certmagic.DNSProvider {
				return &cloudflare.Provider{APIToken: string(o["api_token"]), ZoneToken: string(o["zone_token"])}
			},
		},
		"digitalocean": {
			required: []string{"api_token"},
			open: func(o map[string]Secret) certmagic.DNSProvider {
				return &digitalocean.Provider{APIToken: string(o["api_token"])}
			},
		},
		"hetzner": {
			required: []string{"api_token"}, // of a project in Hetzner's cloud console
			open:     func(o map[string]Secret) certmagic.DNSProvider { return hetzner.New(string(o["api_token"])) },
		},
		"rfc2136": {
			required: []string{"server", "key_name", "key"},
			optional: []string{"key_alg"},
			open: func(o map[string]Secret) certmagic.DNSProvider {
				server := string(o["server"])
				if _, _, err := net.SplitHostPort(server); err != nil {
					server = net.JoinHostPort(strings.Trim(server, "[]"), "53")
				}
				return &rfc2136.Provider{
					Server: server, KeyName: string(o["key_name"]), Key: string(o["key"]),
					KeyAlg: cmp.Or(string(o["key_alg"]), "hmac-sha256"),
				}
			},
		},
		"route53": { // what is left out comes from the environment, or the machine's role
			optional: []string{"access_key_id", "secret_access_key", "session_token", "region", "profile", "hosted_zone_id"},
			open: func(o map[string]Secret) certmagic.DNSProvider {
				return &route53.Provider{
					AccessKeyId: string(o["access_key_id"]), SecretAccessKey: string(o["secret_access_key"]),
					SessionToken: string(o["session_token"]), Region: string(o["region"]),
					Profile: string(o["profile"]), HostedZoneID: string(o["hosted_zone_id"]),
				}
			},
		},
	}
}

// DNSProviders are the names of the providers, sorted.
func DNSProviders() []string { return slices.Sorted(maps.Keys(dnsProviders())) }

// DNSOptions are the options of a provider: those that it needs, and others. An
// unknown provider has none.
func DNSOptions(provider string) (required, optional []string) {
	p := dnsProviders()[provider]
	return p.required, p.optional
}

// Validate says what is wrong, in words for the person who wrote it.
func (d *DNS) Validate() error {
	p, ok := dnsProviders()[d.Provider]
	if !ok {
		return fmt.Errorf("DNS provider %q is unknown: it must be one of %s", d.Provider, strings.Join(DNSProviders(), ", "))
	}
	for _, name := range p.required {
		if d.Options[name] == "" {
			return fmt.Errorf("DNS provider %s needs %s", d.Provider, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Options)) {
		if all := slices.Concat(p.required, p.optional); !slices.Contains(all, name) {
			return fmt.Errorf("DNS provider %s has no option %s: it has %s", d.Provider, name, strings.Join(all, ", "))
		}
	}
	return nil
}

// open makes the provider, which New has checked.
func (d *DNS) open() certmagic.DNSProvider { return dnsProviders()[d.Provider].open(d.Options) }
