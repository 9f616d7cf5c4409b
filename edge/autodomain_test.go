package edge

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/tunnel"
)

// cloud answers like the metadata service of one, and counts who asks.
func cloud(t *testing.T, kind, public string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		switch {
		case kind == "aws" && r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && h.Get("X-aws-ec2-metadata-token-ttl-seconds") != "":
			w.Write([]byte("token"))
		case kind == "aws" && r.URL.Path == "/latest/meta-data/public-ipv4" && h.Get("X-aws-ec2-metadata-token") == "token",
			kind == "google" && strings.HasSuffix(r.URL.Path, "/access-configs/0/external-ip") && h.Get("Metadata-Flavor") == "Google",
			kind == "azure" && strings.HasSuffix(r.URL.Path, "/publicIpAddress") && h.Get("Metadata") == "true" && r.URL.Query().Get("api-version") != "":
			w.Write([]byte(public + "\n"))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestPublicAddress(t *testing.T) {
	none := cloud(t, "none", "")
	dns := addresses{"edge.example.com": {"10.0.0.1", "2001:db8::1", "198.51.100.9"}, "lan.example.com": {"10.0.0.1"}}
	tests := []struct {
		name, endpoint string
		local          []string
		metadata       string
		want, from     string // or words of the error in want
	}{
		{"card", "", []string{"10.0.0.5", "2001:db8::5", "198.51.100.7"}, none, "198.51.100.7", "network card"},
		{"card with IPv6 alone", "", []string{"10.0.0.5", "2001:db8::5"}, none, "2001:db8::5", "network card"},
		{"endpoint wins", "198.51.100.8", []string{"198.51.100.7"}, none, "198.51.100.8", "endpoint"},
		{"endpoint by name", "edge.example.com", []string{"198.51.100.7"}, none, "198.51.100.9", "endpoint"},
		{"private endpoint", "192.168.1.1", []string{"198.51.100.7"}, none, "the endpoint 192.168.1.1 is a private one", ""},
		{"endpoint that leads nowhere public", "lan.example.com", nil, none, "it leads to no public address", ""},
		{"unknown endpoint", "missing.example.com", nil, none, "no such host", ""},
		{"aws", "", []string{"172.31.0.5"}, cloud(t, "aws", "198.51.100.1"), "198.51.100.1", "cloud"},
		{"cloud with IPv6 on the card", "", []string{"172.31.0.5", "2001:db8::5"}, cloud(t, "aws", "198.51.100.4"), "198.51.100.4", "cloud"},
		{"google", "", []string{"10.128.0.5"}, cloud(t, "google", "198.51.100.2"), "198.51.100.2", "cloud"},
		{"azure", "", []string{"10.0.0.4"}, cloud(t, "azure", "198.51.100.3"), "198.51.100.3", "cloud"},
		{"cloud without a public address", "", []string{"10.0.0.4"}, cloud(t, "azure", ""), "--endpoint ADDRESS", ""},
		{"cloud that names a private one", "", []string{"10.0.0.4"}, cloud(t, "google", "10.0.0.4"), "--endpoint ADDRESS", ""},
		{"home", "", []string{"192.168.1.5", "100.64.0.9", "fd00::5"}, none, "--domain", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := publicAddress{endpoint: tt.endpoint, lookup: dns.lookup, metadata: tt.metadata, local: func() (all []netip.Addr) {
				for _, s := range tt.local {
					all = append(all, netip.MustParseAddr(s))
				}
				return all
			}}
			addr, from, err := p.find(t.Context())
			if tt.from == "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, %v; want an error with %q", addr, err, tt.want)
				}
				return
			}
			if err != nil || addr.String() != tt.want || from != tt.from {
				t.Errorf("%v from %q, %v; want %s from %q", addr, from, err, tt.want, tt.from)
			}
		})
	}
}

func TestPublicAddressWithoutACloud(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if addr := (publicAddress{metadata: cloud(t, "aws", "198.51.100.1")}).ask(ctx); addr.IsValid() {
		t.Errorf("an ended context gave %v", addr)
	}
}

func TestSslipDomain(t *testing.T) {
	for addr, want := range map[string]string{
		"198.51.100.7": "198-51-100-7.sslip.io",
		"2001:db8::":   "2001-0db8-0000-0000-0000-0000-0000-0000.sslip.io",
	} {
		got := sslipDomain(netip.MustParseAddr(addr))
		if got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
		if host, err := tunnel.CanonicalHost("app." + got); err != nil || host != "app."+want {
			t.Errorf("%s: %q, %v", addr, host, err)
		}
	}
}
