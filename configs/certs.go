package configs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/wgexpose/wgexpose/certs"
)

// Keys of edge.yml that hold a map, and stand in the file alone: they have
// secrets, which belong neither into a command line nor into each program's
// environment.
const (
	eabKey      = "acme_eab"
	fallbackKey = "acme_fallback"
	dnsKey      = "acme_dns"
)

func edgeMaps() []string { return []string{eabKey, fallbackKey, dnsKey} }

// maxSecret is the longest secret that is read from a file, in bytes.
const maxSecret = 64 << 10

// secretKeys are those whose value is not shown. Each may also be given as the
// name of a file, under the key with _file after it.
func secretKeys() []string {
	return []string{"api_token", "zone_token", "key", "secret_access_key", "session_token", "eab_key"}
}

func withFiles(keys []string) []string {
	var all []string
	for _, k := range keys {
		all = append(all, k)
		if slices.Contains(secretKeys(), k) {
			all = append(all, k+"_file")
		}
	}
	return all
}

func eabKeys() []string { return withFiles([]string{"kid", "key"}) }

func fallbackKeys() []string {
	return withFiles([]string{"ca", "root", "email", "eab_kid", "eab_key"})
}

// dnsKeys are the keys of acme_dns for a provider; for "" those of all.
func dnsKeys(provider string) []string {
	names := []string{provider}
	if provider == "" {
		names = certs.DNSProviders()
	}
	keys := []string{"provider", "resolvers"}
	for _, name := range names {
		required, optional := certs.DNSOptions(name)
		for _, k := range withFiles(slices.Concat(required, optional)) {
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

// textMap reads a map of plain values, with secrets from their files. It is nil
// when the key is not set. lists are keys that may hold several values, which
// then stand on lines of their own.
func (m *merged) textMap(key string, known []string, lists ...string) map[string]string {
	f, ok := m.fields[key]
	if !ok {
		return nil
	}
	if f.value.Kind != yaml.MappingNode {
		// What stands there instead may be a secret.
		m.add(f.line, key, "must be a map with the keys %s", strings.Join(known, ", "))
		return nil
	}
	values := make(map[string]string)
	for k, sub := range m.document.fields(f.value, key, known) {
		at := join(key, k)
		read := m.scalar
		if slices.Contains(lists, k) {
			read = m.list
		}
		text, ok := read(sub, at)
		if !ok {
			continue
		}
		name, isFile := strings.CutSuffix(k, "_file")
		if !isFile {
			if slices.Contains(secretKeys(), k) && m.has(f.value, k+"_file") {
				m.add(sub.line, at, "%s_file is set, too: give one of the two", k)
			}
			values[k] = text
			continue
		}
		secret, err := readSecret(text)
		if err != nil {
			m.add(sub.line, at, "%s", err)
			continue
		}
		values[name] = secret
	}
	return values
}

func (m *merged) has(mapping *yaml.Node, key string) bool {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if resolve(mapping.Content[i]).Value == key {
			return true
		}
	}
	return false
}

func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(b))
	if secret == "" || len(b) > maxSecret {
		return "", fmt.Errorf("%s must hold the secret and nothing else, and has %d bytes or more", path, len(b))
	}
	return secret, nil
}

// issuers reads the ACME authorities.
func (m *merged) issuers() []certs.Issuer {
	first := certs.Issuer{
		CA:    take(m, "acme_ca", parseCA),
		Root:  take(m, "acme_root", parseText),
		Email: take(m, "acme_email", parseEmail),
	}
	if values := m.textMap(eabKey, eabKeys()); values != nil {
		first.EAB = m.eab(eabKey, values["kid"], values["key"])
	}
	issuers := []certs.Issuer{first}
	if values := m.textMap(fallbackKey, fallbackKeys()); values != nil {
		line := m.fields[fallbackKey].line
		second := certs.Issuer{CA: values["ca"], Root: values["root"], Email: cmp.Or(values["email"], first.Email)}
		if _, err := parseCA(second.CA); err != nil {
			m.add(line, join(fallbackKey, "ca"), "%s", err)
		} else if second.CA == first.CA {
			m.add(line, join(fallbackKey, "ca"), "must be another authority than the first (acme_ca, or else Let's Encrypt)")
		}
		if _, err := parseEmail(second.Email); err != nil {
			m.add(line, join(fallbackKey, "email"), "%s", err)
		}
		if values["eab_kid"]+values["eab_key"] != "" {
			second.EAB = m.eab(fallbackKey, values["eab_kid"], values["eab_key"])
		}
		issuers = append(issuers, second)
	}
	return issuers
}

// eab checks a binding to an account that the authority knows.
func (m *merged) eab(key, kid, mac string) certs.EAB {
	if kid == "" || mac == "" {
		m.add(m.fields[key].line, key, "external account binding wants the key's id (kid) and the key, and one of them is missing")
	}
	// Authorities hand the key out with and without padding.
	return certs.EAB{KeyID: kid, Key: certs.Secret(strings.TrimRight(mac, "="))}
}

// dns reads how TXT records are set; nil when nothing is said.
func (m *merged) dns() *certs.DNS {
	f, ok := m.fields[dnsKey]
	if !ok {
		return nil
	}
	provider, known := "", dnsKeys("")
	if f.value.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(f.value.Content); i += 2 {
			if value := resolve(f.value.Content[i+1]); resolve(f.value.Content[i]).Value == "provider" && slices.Contains(certs.DNSProviders(), value.Value) {
				provider = value.Value
				known = dnsKeys(provider)
			}
		}
	}
	problems := len(m.problems)
	values := m.textMap(dnsKey, known, "resolvers")
	if len(m.problems) > problems {
		return nil
	}
	d := &certs.DNS{Provider: values["provider"], Options: make(map[string]certs.Secret)}
	for k, v := range values {
		switch k {
		case "provider":
		case "resolvers":
			for r := range strings.SplitSeq(v, "\n") {
				if err := checkResolver(r); err != nil {
					m.add(f.line, join(dnsKey, k), "%s", err)
				}
				d.Resolvers = append(d.Resolvers, r)
			}
		default:
			d.Options[k] = certs.Secret(v)
		}
	}
	if err := d.Validate(); err != nil {
		m.add(f.line, dnsKey, "%s", err)
	}
	return d
}

func checkResolver(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	if host, port, err := net.SplitHostPort(s); err == nil && host != "" {
		_, err := parsePort(port)
		return err
	}
	return errors.New(quote(s) + " is no DNS server; allowed: an IP address, or HOST:PORT")
}

// ownCertificates reads the files of own certificates.
func (m *merged) ownCertificates() (files []certs.Pair, folder string) {
	cert, key := take(m, "cert_file", parseText), take(m, "key_file", parseText)
	switch {
	case cert != "" && key != "":
		files = []certs.Pair{{Cert: cert, Key: key}}
	case cert != "":
		m.problem("cert_file", "is set without its private key: name that with key_file")
	case key != "":
		m.problem("key_file", "is set without its certificate: name that with cert_file")
	}
	return files, take(m, "certs", parseText)
}

// mapSchema is the schema of a map of edge.yml.
func mapSchema(key string) *schema {
	s := &schema{Type: "object", Properties: make(map[string]*schema), Others: false}
	var keys []string
	switch key {
	case eabKey:
		s.Description, keys = "account at acme_ca that the ACME account is bound to (external account binding)", eabKeys()
	case fallbackKey:
		s.Description, keys = "ACME authority that takes over when the first fails or limits", fallbackKeys()
		s.Required = []string{"ca"}
	case dnsKey:
		s.Description, keys = "who sets TXT records of the domain, for a wildcard certificate (DNS-01)", dnsKeys("")
		s.Required = []string{"provider"}
	}
	for _, k := range keys {
		s.Properties[k] = scalarSchema(key + "." + k)
		if k == "resolvers" {
			s.Properties[k] = &schema{AnyOf: []*schema{{Type: "string"}, {Type: "array", Items: &schema{Type: "string"}}}}
		}
		if name, isFile := strings.CutSuffix(k, "_file"); isFile {
			s.Properties[k].Description = "file that holds " + name + " and nothing else"
		}
	}
	return s
}
