package harness_test

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/internal/harness"
	"github.com/wgexpose/wgexpose/tunnel"
)

// hashed is a password as it travels. The cost is the lowest, for speed.
func hashed(t testing.TB, user, password string) tunnel.Credential {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return tunnel.Credential{User: user, Hash: string(hash)}
}

func with(tn agent.Tunnel, p tunnel.Policy) agent.Tunnel {
	tn.Policy = &p
	return tn
}

// get asks with a changed request, and returns status, error code, header and body.
func get(t testing.TB, c *http.Client, url string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	change(req)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func unchanged(*http.Request) {}

func TestPolicy(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	var auth, secret, cookie atomic.Value
	upstream := serve(t, func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		auth.Store(r.Header.Get("Authorization"))
		secret.Store(strings.Join(r.Header["X-Secret"], ","))
		cookie.Store(r.Header.Get("Cookie"))
		w.Header().Set("Server", "leaky/1.0")
		w.Header().Set("X-Frame-Options", "ALLOWALL")
		io.WriteString(w, "inside")
	})
	local, elsewhere := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")
	e := harness.Start(t, harness.Options{})
	run := e.AddAgent("laptop").Publish(
		with(harness.HTTP("locked", upstream), tunnel.Policy{BasicAuth: []tunnel.Credential{
			hashed(t, "me", "correct horse"), hashed(t, "me", "second"), hashed(t, "you", "yours")}}),
		with(harness.HTTP("denied", upstream), tunnel.Policy{Deny: []netip.Prefix{local}}),
		with(harness.HTTP("elsewhere", upstream), tunnel.Policy{Allow: []netip.Prefix{elsewhere}}),
		with(harness.HTTP("allowed", upstream), tunnel.Policy{Allow: []netip.Prefix{local}, Deny: []netip.Prefix{elsewhere}}),
		with(harness.HTTP("ruled", upstream), tunnel.Policy{
			RequestHeader:  tunnel.HeaderRules{Remove: []string{"x-secret", "cookie"}, Add: []tunnel.Header{{Name: "X-Secret", Value: "real"}}},
			ResponseHeader: tunnel.HeaderRules{Remove: []string{"server", "x-frame-options"}, Add: []tunnel.Header{{Name: "X-Frame-Options", Value: "DENY"}}},
		}),
		with(harness.TCP("tcp-denied", echo(t), 0), tunnel.Policy{Deny: []netip.Prefix{local}}),
		with(harness.TCP("tcp-allowed", echo(t), 0), tunnel.Policy{Allow: []netip.Prefix{local}}),
	)
	c := e.Client()

	locked := run.WaitUp("locked")
	for _, change := range []func(*http.Request){
		unchanged,
		func(r *http.Request) { r.SetBasicAuth("me", "wrong") },
		func(r *http.Request) { r.SetBasicAuth("you", "correct horse") },
		func(r *http.Request) { r.SetBasicAuth("nobody", "correct horse") },
		func(r *http.Request) { r.SetBasicAuth("me", strings.Repeat("x", 1000)) },
		func(r *http.Request) { r.Header.Set("Authorization", "Bearer correct horse") },
	} {
		resp, _ := get(t, c, locked, change)
		if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("Wgexpose-Error") != "password_asked" ||
			!strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), `Basic realm="locked.`) {
			t.Errorf("without the password: %d, %v", resp.StatusCode, resp.Header)
		}
	}
	for _, url := range []string{run.WaitUp("denied"), run.WaitUp("elsewhere")} {
		if resp, _ := get(t, c, url, unchanged); resp.StatusCode != http.StatusForbidden || resp.Header.Get("Wgexpose-Error") != "network_denied" {
			t.Errorf("from a network that is not allowed: %d", resp.StatusCode)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the upstream was reached %d times", n)
	}
	for _, who := range [][2]string{{"me", "correct horse"}, {"me", "second"}, {"you", "yours"}, {"me", "correct horse"}} {
		resp, body := get(t, c, locked, func(r *http.Request) { r.SetBasicAuth(who[0], who[1]) })
		if resp.StatusCode != http.StatusOK || body != "inside" || auth.Load() != "" {
			t.Errorf("%s: %d %q, and the upstream saw Authorization %q", who[0], resp.StatusCode, body, auth.Load())
		}
	}
	if resp, body := get(t, c, run.WaitUp("allowed"), unchanged); resp.StatusCode != http.StatusOK || body != "inside" {
		t.Errorf("from an allowed network: %d %q", resp.StatusCode, body)
	}

	resp, _ := get(t, c, run.WaitUp("ruled"), func(r *http.Request) {
		r.Header.Set("X-Secret", "forged")
		r.Header.Set("Cookie", "a=b")
	})
	if secret.Load() != "real" || cookie.Load() != "" {
		t.Errorf("the upstream saw X-Secret %q and Cookie %q", secret.Load(), cookie.Load())
	}
	if got := resp.Header["X-Frame-Options"]; len(got) != 1 || got[0] != "DENY" || resp.Header.Get("Server") != "" {
		t.Errorf("the visitor saw %v", resp.Header)
	}

	switch denied, err := e.TryDial(run.WaitUp("tcp-denied")); {
	case errors.Is(err, syscall.ECONNRESET): // before the dial returned
	case err != nil:
		t.Fatal(err)
	default:
		io.WriteString(denied, "x") // the reset may come first
		if data, err := io.ReadAll(denied); len(data) > 0 || err == nil || isTimeout(err) {
			t.Errorf("a denied visitor read %q, %v", data, err)
		}
	}
	allowed := e.Dial(run.WaitUp("tcp-allowed"))
	if _, err := io.WriteString(allowed, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := allowed.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(allowed); err != nil || string(data) != "hello" {
		t.Errorf("an allowed visitor read %q, %v", data, err)
	}
}

// A policy survives the edge, in which no password stands, and its change takes
// effect at once.
func TestPolicyInTheStore(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	laptop := e.AddAgent("laptop")
	first := laptop.Publish(with(harness.HTTP("app", says(t, "in")), tunnel.Policy{BasicAuth: []tunnel.Credential{hashed(t, "me", "hunter2-hunter2")}}))
	url := first.WaitUp("app")
	seen := first.Seen()
	e.Restart()
	first.WaitUpAfter(seen, "app")
	if resp, _ := get(t, e.Client(), url, unchanged); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("after a restart: %d", resp.StatusCode)
	}
	first.Stop()
	second := laptop.Publish(harness.HTTP("app", says(t, "open")))
	if resp, body := get(t, e.Client(), second.WaitUp("app"), unchanged); resp.StatusCode != http.StatusOK || body != "open" {
		t.Errorf("without a policy: %d %q", resp.StatusCode, body)
	}
	e.Stop()
	db, err := os.ReadFile(e.Dir.Path("edge.db"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(db), "hunter2") || !strings.Contains(string(db), "laptop") {
		t.Error("the password stands in the database, or it was not looked at")
	}
}
