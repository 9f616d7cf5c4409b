package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/wgexpose/wgexpose/e2e/origin"
)

// TestBehindATLSProxy has a proxy end TLS in front of an edge without, as nginx does: the
// public address is the proxy's, and the upstream hears of the visitor and of HTTPS.
func TestBehindATLSProxy(t *testing.T) {
	web := origin.StartWeb(t)
	s := &system{t: t, dir: t.TempDir(), public: make(map[string]string)}
	s.startEdge("127.0.0.1:0", "off", "127.0.0.1:0", "--tls", "off", "--public-https-port", "443", "--trusted-proxies", "127.0.0.1")
	token := s.run("", "edge", "invite", "--name", "laptop", "--state", s.edgeDir())
	s.run(token, "join", "-", "--state", s.agentDir())
	s.share("", share{name: "web", kind: "http", upstream: web.Addr()})
	if want := "https://web." + domain; s.public["web"] != want {
		t.Errorf("the public address is %s, want %s", s.public["web"], want)
	}
	front := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
		pr.SetURL(&url.URL{Scheme: "http", Host: s.ready.HTTP})
		pr.Out.Host = pr.In.Host
		pr.Out.Header["X-Forwarded-For"] = pr.In.Header["X-Forwarded-For"]
		pr.SetXForwarded()
	}})
	t.Cleanup(front.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+"/request", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = s.host("web")
	req.Header.Set("X-Forwarded-For", "203.0.113.7, 127.0.0.1") // another trusted one in front
	res, err := front.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got origin.Seen
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatalf("%s: %v", res.Status, err)
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "203.0.113.7", "X-Real-Ip": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": s.host("web"),
	} {
		if got.Header.Get(name) != want {
			t.Errorf("the upstream got %s %q, want %q", name, got.Header.Get(name), want)
		}
	}
}
