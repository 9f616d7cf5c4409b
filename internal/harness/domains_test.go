package harness_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/internal/harness"
)

// records is a DNS that the test changes.
type records struct {
	mu    sync.Mutex // guards addrs
	addrs map[string]netip.Addr
}

func (r *records) set(host, addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addrs[host] = netip.MustParseAddr(addr)
}

func (r *records) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if addr, ok := r.addrs[host]; ok {
		return []netip.Addr{addr}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// ownCertificate writes one for host into dir, and returns what trusts it.
func ownCertificate(t *testing.T, dir, host string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{host + ".crt": {Type: "CERTIFICATE", Bytes: der}, host + ".key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return pool
}

// An agent publishes a name of a customer's domain: refused when its invite does
// not allow it, pending until DNS leads to the edge, and then served under the
// name's own certificate, also when DNS breaks down later.
func TestCustomDomain(t *testing.T) {
	t.Parallel()
	const host, uncertified = "shop.customer.test", "blog.customer.test"
	dir := t.TempDir()
	trust := ownCertificate(t, dir, host)
	dns := &records{addrs: make(map[string]netip.Addr)}
	e := harness.Start(t, harness.Options{CertFolder: dir, Lookup: dns.lookup})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the shop at "+r.Host) }))
	t.Cleanup(web.Close)
	shop := harness.HTTP("shop", web.URL)
	shop.Host = host

	refused := func(code string, words ...string) func(agent.Event) bool {
		return func(ev agent.Event) bool {
			if ev.Event != agent.EventTunnel || ev.Error == nil || ev.Error.Code != code {
				return false
			}
			for _, w := range words {
				if !strings.Contains(ev.Error.Message, w) {
					t.Errorf("%q does not say %q", ev.Error.Message, w)
				}
			}
			return true
		}
	}
	stranger := e.AddAgent("stranger").Publish(shop)
	stranger.Wait(0, "refusal", refused(control.CodeNameDenied, host, e.Domain, "--domains "+host))

	laptop := e.AddAgentFor("laptop", "*.customer.test")
	run := laptop.Publish(shop)
	_, next := run.Wait(0, "missing record", refused(control.CodeDNSPending, "has no address in DNS yet", host+" CNAME "+e.Domain))
	dns.set(host, "203.0.113.9")
	_, next = run.Wait(next, "wrong record", refused(control.CodeDNSPending, "leads to 203.0.113.9"))
	dns.set(host, "127.0.0.1")
	url, _ := run.WaitUpAfter(next, "shop")
	if want := fmt.Sprintf("https://%s:%d", host, e.Ready.HTTPS.Port()); url != want {
		t.Errorf("public address %s, want %s", url, want)
	}
	get := func() {
		t.Helper()
		tr := &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: trust}, DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", e.Ready.HTTPS.String())
			},
		}
		resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if want := strings.TrimPrefix("the shop at "+url, "https://"); err != nil || resp.StatusCode != 200 || string(body) != strings.Replace(want, "https://", "", 1) {
			t.Errorf("%s: %q, %v", resp.Status, body, err)
		}
	}
	get()
	if rows, err := e.Admin().Certs(t.Context()); err != nil || len(rows) < 2 || !hasCertificate(rows, host, certs.SourceFile) || !hasCertificate(rows, e.Domain, certs.SourceInternal) {
		t.Errorf("certificates %+v, %v", rows, err)
	}

	// Published again while DNS is broken, it is served at once.
	dns.set(host, "203.0.113.9")
	e.Restart()
	run.WaitUpAfter(run.Seen(), "shop")
	get()

	// The internal authority cannot vouch for it, and no own certificate does.
	dns.set(uncertified, "127.0.0.1")
	blog := harness.HTTP("blog", web.URL)
	blog.Host = uncertified
	laptop.Publish(blog).Wait(0, "refusal", refused(control.CodeNameInvalid, "internal certificate authority", "--tls acme"))
}

func hasCertificate(rows []certs.Status, host, source string) bool {
	for _, r := range rows {
		if r.Name == host && r.Source == source && r.State == certs.StateValid {
			return true
		}
	}
	return false
}
