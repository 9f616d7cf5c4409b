package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/wgexpose/wgexpose/internal/zone"
)

// domain is one that no other test has: certmagic shares maps between Managers.
func domain(t *testing.T) string {
	return strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())) + ".test"
}

// shown waits for the certificate that visitors of host see.
func shown(t *testing.T, m *Manager, host string) *x509.Certificate {
	t.Helper()
	state, err := handshake(t, m, &tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatalf("%s: %v", host, err)
	}
	leaf := state.PeerCertificates[0]
	if err := leaf.VerifyHostname(host); err != nil {
		t.Fatal(err)
	}
	return leaf
}

// With DNS-01 the domain and all directly below it need two certificates, ever:
// a new name costs no order. A name elsewhere is proved at the listeners, by the
// same Manager.
func TestPebbleDNS(t *testing.T) {
	domain := domain(t)
	z := zone.New(t, domain+".")
	e := new(fakeEdge)
	httpLn, httpsLn := e.listen(t)
	ca := e.authority(t, z.Addr, nil)
	f := newFront(t, ca.Directory)
	hosts := []string{"a." + domain, "b." + domain, "deep.a." + domain, "shop." + domain + "er.example"}
	dir := t.TempDir()
	cfg := Config{
		Mode: ACME, Domain: domain, Storage: dir, Allowed: tableOf(hosts...).has, DNS: &DNS{
			Provider:  "rfc2136",
			Options:   map[string]Secret{"server": Secret(z.Updates), "key_name": zone.KeyName, "key": zone.Key},
			Resolvers: []string{z.Addr},
		}, Issuers: []Issuer{f.issuer},
	}
	m, stop := start(t, cfg)
	e.serve(t, m, httpLn, httpsLn)
	if err := m.Manage(t.Context(), hosts...); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		domain: domain, hosts[0]: "*." + domain, hosts[1]: "*." + domain, hosts[2]: hosts[2], hosts[3]: hosts[3],
	} {
		if leaf := shown(t, m, host); !slices.Equal(leaf.DNSNames, []string{want}) || !strings.Contains(leaf.Issuer.CommonName, "Pebble") {
			t.Errorf("%s: certificate for %q by %s, want it for %s", host, leaf.DNSNames, leaf.Issuer, want)
		}
	}
	once := map[string]int{domain: 1, "*." + domain: 1, hosts[2]: 1, hosts[3]: 1}
	if got := f.ordered(); !maps.Equal(got, once) {
		t.Errorf("orders %v, want %v", got, once)
	}
	if !m.Covers("new." + domain) {
		t.Error("a new name is not covered")
	}
	if updates, records := z.Changes(); updates == 0 || records != 0 {
		t.Errorf("%d updates of the zone, and %d records are left", updates, records)
	}

	// Restarted without the authority, it has them all.
	stop()
	ca.Stop()
	m, _ = start(t, cfg)
	if err := m.Manage(t.Context(), hosts...); err != nil {
		t.Fatal(err)
	}
	for _, host := range append(hosts, domain) {
		shown(t, m, host)
	}
}

// The second authority, which wants an external account, takes over when the
// first limits or fails, and the first one is asked again the next time.
func TestPebbleSecondAuthority(t *testing.T) {
	for name, fail := range map[string]func(http.ResponseWriter) bool{
		"limits": limited,
		"fails":  func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusBadGateway); return true },
	} {
		t.Run(name, func(t *testing.T) {
			domain := domain(t)
			e := new(fakeEdge)
			httpLn, httpsLn := e.listen(t)
			ca := e.authority(t, "", nil)
			const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
			ca2 := e.authority(t, "", map[string]string{"kid-1": key})
			f := newFront(t, ca.Directory)
			f.failWith(fail)
			hosts := []string{"one." + domain, "two." + domain}
			m, _ := start(t, Config{
				Mode: ACME, Storage: t.TempDir(), Allowed: tableOf(hosts...).has,
				Issuers: []Issuer{f.issuer, {CA: ca2.Directory, Root: ca2.Root, EAB: EAB{KeyID: "kid-1", Key: key}}},
			})
			e.serve(t, m, httpLn, httpsLn)
			if err := m.Manage(t.Context(), hosts[0]); err != nil {
				t.Fatal(err)
			}
			second := shown(t, m, hosts[0])
			if got := f.ordered(); len(got) != 0 {
				t.Errorf("the failing authority took orders: %v", got)
			}
			f.failWith(nil)
			if err := m.Manage(t.Context(), hosts[1]); err != nil {
				t.Fatal(err)
			}
			first := shown(t, m, hosts[1])
			if got := f.ordered(); got[hosts[1]] != 1 || first.Issuer.CommonName == second.Issuer.CommonName {
				t.Errorf("orders of the first authority %v; certificates by %q and then %q", got, second.Issuer, first.Issuer)
			}
		})
	}
}

// An account that the authority has deactivated is replaced by a new one.
func TestPebbleAccounts(t *testing.T) {
	domain := domain(t)
	e := new(fakeEdge)
	httpLn, httpsLn := e.listen(t)
	ca := e.authority(t, "", nil)
	f := newFront(t, ca.Directory)
	hosts := []string{"one." + domain, "two." + domain}
	dir := t.TempDir()
	log, text := logger(t)
	m, _ := start(t, Config{
		Mode: ACME, Storage: dir, Allowed: tableOf(hosts...).has, Logger: log,
		Issuers: []Issuer{f.issuer},
	})
	e.serve(t, m, httpLn, httpsLn)
	next := func(host string) {
		t.Helper()
		if err := m.Manage(t.Context(), host); err != nil {
			t.Fatal(err)
		}
		shown(t, m, host)
	}
	next(hosts[0])
	before := account(t, dir)

	client := acme.Client{Directory: f.issuer.CA, HTTPClient: &http.Client{Transport: insecureTransport(t)}}
	dead := before
	dead.Status = acme.StatusDeactivated
	if _, err := client.UpdateAccount(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	next(hosts[1])
	after := account(t, dir)
	if after.Location == before.Location {
		t.Error("the deactivated account is still in use")
	}
	if !strings.Contains(text.String(), "does not accept our account any more") {
		t.Error("the log does not say why there is a new account")
	}
}

// account is the one that is stored, with its key.
func account(t *testing.T, dir string) acme.Account {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "acme", "*", "users", "*", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("accounts %q, %v; want one", files, err)
	}
	var a acme.Account
	if err := json.Unmarshal([]byte(read(t, files[0])), &a); err != nil {
		t.Fatal(err)
	}
	if a.PrivateKey, err = certmagic.PEMDecodePrivateKey([]byte(read(t, strings.TrimSuffix(files[0], ".json")+".key"))); err != nil {
		t.Fatal(err)
	}
	return a
}

// A certificate that falls due while the edge runs is renewed, and visitors see
// the new one. Before that an authority that fails costs nothing but log lines.
func TestPebbleRenewal(t *testing.T) {
	domain := domain(t)
	e := new(fakeEdge)
	httpLn, httpsLn := e.listen(t)
	ca := e.authority(t, "", nil)
	f := newFront(t, ca.Directory)
	dir := t.TempDir()
	// Due in a second: a third of its time is left then.
	now := time.Now()
	old := store(t, dir, f.issuer.CA, domain, now.Add(-2*time.Hour), now.Add(time.Hour+1500*time.Millisecond))
	m, _ := start(t, Config{Mode: ACME, Domain: domain, Storage: dir, Issuers: []Issuer{f.issuer}, checkEvery: 20 * time.Millisecond})
	e.serve(t, m, httpLn, httpsLn)
	if got := shown(t, m, domain); !got.Equal(old) {
		t.Log("it fell due before it was served; the renewal is of the start")
	}
	eventually(t, "the certificate is renewed", func() bool { return !shown(t, m, domain).Equal(old) })
	if got := f.ordered(); got[domain] != 1 {
		t.Errorf("orders %v, want one", got)
	}
	if st := m.Status(); len(st) != 1 || st[0].State != StateValid || st[0].Error != "" {
		t.Errorf("Status %+v", st)
	}
}

// A renewal that fails is told of in the log and in Status, and the certificate
// is served on.
func TestFailedRenewalIsLoud(t *testing.T) {
	domain := domain(t)
	ca, _ := brokenAuthority(t)
	dir := t.TempDir()
	now := time.Now()
	old := store(t, dir, ca, domain, now.Add(-70*24*time.Hour), now.Add(20*24*time.Hour))
	log, text := logger(t)
	m, _ := start(t, Config{Mode: ACME, Domain: domain, Storage: dir, Issuers: []Issuer{{CA: ca}}, Logger: log})
	if got := shown(t, m, domain); !got.Equal(old) {
		t.Error("another certificate than the one that there is")
	}
	eventually(t, "the attempt has failed", func() bool {
		st := m.Status()
		return len(st) == 1 && st[0].State == StateFailing && st[0].Error != "" && !st[0].FailedAt.IsZero() && st[0].Trouble()
	})
	if obtained, failed := m.Attempts(); obtained != 0 || failed == 0 {
		t.Errorf("attempts: %d obtained, %d failed", obtained, failed)
	}
	if got := text.String(); !strings.Contains(got, "level=ERROR msg=\"certificate not renewed; it is tried again until it expires\" host="+domain+" expires_in=4") {
		t.Error("the log does not say that the renewal failed, and when the certificate expires")
	}
	l, last := m.live.Load(), make(map[string]time.Time)
	reminders := func() int { return strings.Count(text.String(), "a certificate runs out and has not been replaced") }
	l.remindOnce(now, last)
	l.remindOnce(now.Add(time.Hour), last)
	if n := reminders(); n != 1 {
		t.Errorf("%d reminders within a day, want one", n)
	}
	l.remindOnce(now.Add(25*time.Hour), last)
	if n := reminders(); n != 2 {
		t.Errorf("%d reminders after a day, want two", n)
	}
}

// Fifty names at once: one order each, and no more at a time than certmagic's
// limiter lets pass, ten in its window.
func TestPebbleFiftyNames(t *testing.T) {
	names := func(domain string) (hosts []string) {
		for i := range 50 {
			hosts = append(hosts, fmt.Sprintf("n%d.%s", i, domain))
		}
		return hosts
	}
	t.Run("paced", func(t *testing.T) {
		window := certmagic.RateLimitEventsWindow
		certmagic.RateLimitEventsWindow = 24 * time.Hour // so that the first ten are all that come
		t.Cleanup(func() { certmagic.RateLimitEventsWindow = window })
		e := new(fakeEdge)
		httpLn, httpsLn := e.listen(t)
		ca := e.authority(t, "", nil)
		f := newFront(t, ca.Directory)
		hosts := names(domain(t))
		m, stop := start(t, Config{Mode: ACME, Storage: t.TempDir(), Allowed: tableOf(hosts...).has, Issuers: []Issuer{f.issuer}})
		e.serve(t, m, httpLn, httpsLn)
		if err := m.Manage(t.Context(), hosts...); err != nil {
			t.Fatal(err)
		}
		eventually(t, "ten have a certificate", func() bool {
			return len(slices.DeleteFunc(slices.Clone(hosts), m.Covers)) == 40
		})
		if got := f.ordered(); len(got) != 10 {
			t.Errorf("%d orders, want ten", len(got))
		}
		if n := len(m.Status()); n != 50 {
			t.Errorf("Status tells of %d names, want 50", n)
		}
		stop() // which the waiting ones do not hold up
	})
	t.Run("all", func(t *testing.T) {
		window := certmagic.RateLimitEventsWindow
		certmagic.RateLimitEventsWindow = time.Second
		t.Cleanup(func() { certmagic.RateLimitEventsWindow = window })
		e := new(fakeEdge)
		httpLn, httpsLn := e.listen(t)
		ca := e.authority(t, "", nil)
		f := newFront(t, ca.Directory)
		hosts := names(domain(t))
		m, _ := start(t, Config{Mode: ACME, Storage: t.TempDir(), Allowed: tableOf(hosts...).has, Issuers: []Issuer{f.issuer}})
		e.serve(t, m, httpLn, httpsLn)
		// The first makes the account, for which certmagic has all others wait.
		if err := m.Manage(t.Context(), hosts[0]); err != nil {
			t.Fatal(err)
		}
		shown(t, m, hosts[0])
		for range 3 { // an agent publishes again
			if err := m.Manage(t.Context(), hosts...); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "all have a certificate", func() bool { return !slices.ContainsFunc(hosts, func(h string) bool { return !m.Covers(h) }) })
		got := f.ordered()
		for _, h := range hosts {
			if got[h] != 1 {
				t.Errorf("%s was ordered %d times", h, got[h])
			}
		}
		if len(got) != len(hosts) {
			t.Errorf("orders for %d names, want %d", len(got), len(hosts))
		}
	})
}

func TestStored(t *testing.T) {
	dir := t.TempDir()
	if all, err := Stored(dir, nil, ""); err != nil || len(all) != 0 {
		t.Errorf("of nothing: %v, %v", all, err)
	}
	now := time.Now()
	store(t, dir, "https://one.test/dir", "a.test", now.Add(-time.Hour), now.Add(time.Hour))
	store(t, dir, "https://two.test/dir", "a.test", now.Add(-time.Hour), now.Add(90*24*time.Hour))
	store(t, dir, "https://two.test/dir", "b.test", now.Add(-2*time.Hour), now.Add(-time.Hour))
	all, err := Stored(dir, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].Name != "a.test" || all[0].State != StateValid || all[0].Source != SourceACME || all[1].Name != "b.test" || all[1].State != StateExpired {
		t.Errorf("%+v", all)
	}
	damaged, err := filepath.Glob(filepath.Join(dir, "certificates", "*", "b.test", "*.crt"))
	if err != nil || len(damaged) != 1 {
		t.Fatal(damaged, err)
	}
	if err := os.WriteFile(damaged[0], []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err = Stored(dir, nil, "")
	if err != nil || len(all) != 2 || all[0].State != StateValid || all[1].State != StateBroken || all[1].Name != "b.test" || !strings.Contains(all[1].Error, damaged[0]) {
		t.Errorf("with a damaged file: %+v, %v", all, err)
	}

	// Own ones: from files and from a folder, good and bad.
	folder := t.TempDir()
	named, found, gone := in(t.TempDir(), "c"), in(folder, "d"), in(t.TempDir(), "z")
	selfSigned(t, named, now.Add(time.Hour), "c.test")
	selfSigned(t, found, now.Add(time.Minute), "d.test")
	all, err = Stored(dir, []Pair{named, gone}, folder)
	if err != nil || len(all) != 5 {
		t.Fatalf("with own ones: %+v, %v", all, err)
	}
	for i, want := range []Status{
		{Name: "c.test", State: StateValid, Source: SourceFile, File: named.Cert},
		{Name: "d.test", State: StateExpiring, Source: SourceFile, File: found.Cert},
		{Name: "z.crt", State: StateBroken, Source: SourceFile, File: gone.Cert},
	} {
		got := all[i+2]
		if got.Name != want.Name || got.State != want.State || got.Source != want.Source || got.File != want.File || got.State == StateBroken && got.Error == "" {
			t.Errorf("own certificate %+v, want %+v", got, want)
		}
	}
	all, err = Stored(dir, nil, filepath.Join(folder, "none"))
	if err != nil || len(all) != 3 || all[2].State != StateBroken || all[2].Name != "none" {
		t.Errorf("with a folder that is not there: %+v, %v", all, err)
	}
}
