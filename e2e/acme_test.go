package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/e2e/process"
	"github.com/wgexpose/wgexpose/internal/pebble"
	"github.com/wgexpose/wgexpose/internal/ports"
	"github.com/wgexpose/wgexpose/internal/zone"
)

// An edge gets its certificates from an ACME authority, by each challenge in turn,
// and visitors who trust that authority reach the tunnel.
func TestEdgeCertificates(t *testing.T) {
	process.Need(t, "pebble")
	const domain = "acme.test"
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello "+r.Host) }))
	defer upstream.Close()
	challenges := []string{"http-01", "tls-alpn-01", "dns-01"}
	for _, provider := range slices.Sorted(maps.Keys(dnsOptions)) {
		challenges = append(challenges, "dns-01 "+provider)
	}
	for _, challenge := range challenges {
		t.Run(challenge, func(t *testing.T) {
			b := ports.Reserve(t) // the authority must know them first
			wg, https, plain := b.Addr(), b.Addr(), b.Addr()
			z := zone.New(t, domain+".")
			at := pebble.Options{DNS: z.Addr}
			config, env, done := "", []string{"ZONE_KEY=" + zone.Key}, func() {}
			listenHTTP, want := plain.String(), []string{"app." + domain}
			switch challenge {
			case "http-01":
				at.HTTPPort = int(plain.Port())
			case "tls-alpn-01":
				at.TLSPort, listenHTTP = int(https.Port()), "off"
			case "dns-01":
				want = []string{"*." + domain}
				config = fmt.Sprintf("acme_dns: {provider: rfc2136, server: %q, key_name: %s, key: \"${ZONE_KEY}\", resolvers: [%q]}\n", z.Updates, zone.KeyName, z.Addr)
			default: // by the API of a provider
				_, provider, _ := strings.Cut(challenge, " ")
				want = []string{"*." + domain}
				config = fmt.Sprintf("acme_dns: {provider: %s, %s, resolvers: [%q]}\n", provider, dnsOptions[provider], z.Addr)
				api := startDNSAPI(t, z, domain)
				env, done = api.env, api.wantRemoved
			}
			ca := pebble.Start(t, at)
			s := &system{t: t, dir: t.TempDir(), public: make(map[string]string)}
			file := filepath.Join(s.dir, "edge.yml")
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			s.edge = process.Start(t, process.Config{Name: "edge", Path: binary, Env: env, Args: []string{
				"edge", "--json", "--state", s.edgeDir(), "--config", file, "--domain", domain, "--log-level", "info",
				"--acme-ca", ca.Directory, "--acme-root", ca.Root, "--acme-email", "admin@example.com",
				"--listen-wg", wg.String(), "--listen-https", https.String(), "--listen-http", listenHTTP, "--listen-tcp", "127.0.0.1",
			}})
			s.ready = s.edge.Await("the edge serves", func(e process.Event) bool { return e.Event == "ready" })
			token := s.run("", "edge", "invite", "--state", s.edgeDir(), "--config", file)
			s.run(token, "join", "-", "--state", s.agentDir())
			s.share("", share{name: "app", kind: "http", upstream: upstream.URL})

			tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Issuers()}, DialContext: (&edgeDialer{addr: s.ready.HTTPS}).DialContext}
			defer tr.CloseIdleConnections()
			res, err := (&http.Client{Transport: tr}).Get(s.public["app"] + "/")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || !strings.HasPrefix(string(body), "hello app."+domain) {
				t.Errorf("%s %q, %v", res.Status, body, err)
			}
			leaf := res.TLS.PeerCertificates[0]
			if !slices.Equal(leaf.DNSNames, want) {
				t.Errorf("the certificate is for %q, want %q", leaf.DNSNames, want)
			}
			var row struct{ Name, State, Source, Issuer string }
			listed := s.run("", "edge", "certs", "--json", "--state", s.edgeDir(), "--config", file)
			for line := range strings.Lines(listed) {
				if err := json.Unmarshal([]byte(line), &row); err != nil {
					t.Fatal(err)
				}
				if row.Name == want[0] {
					break
				}
			}
			if row.Name != want[0] || row.State != "valid" || row.Source != "acme" || row.Issuer != leaf.Issuer.CommonName {
				t.Errorf("edge certs: %s", listed)
			}
			done()
			t.Logf("%s: %s, by %s, for %q\n%s", challenge, s.public["app"], leaf.Issuer.CommonName, leaf.DNSNames, listed)
		})
	}
}
