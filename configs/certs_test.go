package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/certs"
)

func TestEdgeCertificateMaps(t *testing.T) {
	isolate(t)
	t.Setenv("TOKEN", "from-variable")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func(text string) (Edge, error) {
		return LoadEdge(flagSet(t, EdgeFlags, "--config", write(t, "domain: example.com\n"+text)))
	}
	cfg, err := load("acme_email: a@example.com\n" +
		"acme_eab: {kid: one, key: \"c2VjcmV0MQ==\"}\n" +
		"acme_fallback: {ca: \"https://two.example/dir\", eab_kid: two, eab_key_file: " + file + "}\n" +
		"acme_dns: {provider: cloudflare, api_token: \"${TOKEN}\", zone_token_file: " + file + ", resolvers: [192.0.2.1, \"192.0.2.2:5353\"]}\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []certs.Issuer{
		{Email: "a@example.com", EAB: certs.EAB{KeyID: "one", Key: "c2VjcmV0MQ"}},
		{CA: "https://two.example/dir", Email: "a@example.com", EAB: certs.EAB{KeyID: "two", Key: "from-file"}},
	}
	if len(cfg.ACME) != 2 || cfg.ACME[0] != want[0] || cfg.ACME[1] != want[1] {
		t.Errorf("authorities %+v, want %+v", cfg.ACME, want)
	}
	if d := cfg.ACMEDNS; d == nil || d.Provider != "cloudflare" || d.Options["api_token"] != "from-variable" ||
		d.Options["zone_token"] != "from-file" || strings.Join(d.Resolvers, " ") != "192.0.2.1 192.0.2.2:5353" {
		t.Errorf("dns %+v", d)
	}

	for _, tt := range []struct{ text, want string }{
		{"acme_dns: from-hand\n", "test.yml:2: acme_dns: must be a map with the keys provider, "},
		{"acme_dns: {provider: bind}\n", "must be one of cloudflare, digitalocean, hetzner, rfc2136, route53"},
		{"acme_dns: {provider: hetzner}\n", "DNS provider hetzner needs api_token"},
		{"acme_dns: {provider: hetzner, key: x}\n", "acme_dns.key: unknown key; allowed here: provider, resolvers, api_token, api_token_file"},
		{"acme_dns: {provider: hetzner, api_token: \"${NOPE}\"}\n", "acme_dns.api_token: the variable NOPE is not set"},
		{"acme_dns: {provider: hetzner, api_token_file: /nowhere}\n", "acme_dns.api_token_file: open /nowhere"},
		{"acme_dns: {provider: hetzner, api_token: x, api_token_file: " + file + "}\n", "give one of the two"},
		{"acme_dns: {provider: hetzner, api_token: x, resolvers: dns}\n", "acme_dns.resolvers: \"dns\" is no DNS server"},
		{"tls: internal\nacme_dns: {provider: hetzner, api_token: x}\n", "tls: is internal, so that acme_dns would not be used"},
		{"acme_eab: {kid: one}\n", "acme_eab: external account binding wants"},
		{"acme_fallback: {email: a@example.com}\n", "acme_fallback.ca: must be another authority than the first"},
		{"acme_ca: https://x.example/dir\nacme_fallback: {ca: \"https://x.example/dir\"}\n", "must be another authority"},
		{"cert_file: /x.crt\n", "cert_file: is set without its private key"},
		{"key_file: /x.key\n", "key_file: is set without its certificate"},
		{"tls: \"off\"\ncerts: /x\n", "tls is off, so that the certificates would not be used"},
	} {
		if _, err := load(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", tt.text, err, tt.want)
		} else if strings.Contains(err.Error(), "from-") {
			t.Errorf("%s: the error shows a secret: %v", tt.text, err)
		}
	}
}

// A command beside the edge works without the edge's secrets.
func TestEdgeStateNeedsNoSecrets(t *testing.T) {
	isolate(t)
	config := write(t, "state: /srv/edge\nacme_dns: {provider: hetzner, api_token: \"${NOPE}\"}\n")
	state, err := LoadEdgeState(flagSet(t, EdgeStateFlags, "--config", config))
	if err != nil || state != "/srv/edge" {
		t.Errorf("%q, %v", state, err)
	}
}

func TestShowEdgeHidesSecrets(t *testing.T) {
	isolate(t)
	t.Setenv("TOKEN", "geheim")
	config := write(t, "domain: example.com\nacme_dns: {provider: cloudflare, api_token: \"${TOKEN}\"}\nacme_eab: {kid: one, key: geheim}\n")
	got, err := ShowEdge(flagSet(t, EdgeFlags, "--config", config))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(got); strings.Contains(text, "geheim") || !strings.Contains(text, "provider: cloudflare") || !strings.Contains(text, "kid: one") {
		t.Errorf("%s", got)
	}
}
