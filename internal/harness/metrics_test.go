package harness_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/internal/harness"
)

// agingCertificate writes a certificate that should have been replaced: a tenth
// of its time is left.
func agingCertificate(t *testing.T, folder, host string, now time.Time) (until time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	until = now.Add(9 * 24 * time.Hour).Truncate(time.Second)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotBefore: now.Add(-81 * 24 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"own.crt": {Type: "CERTIFICATE", Bytes: der}, "own.key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return until
}

// reading is what Prometheus would have read.
type reading map[string]*dto.MetricFamily

// scrape reads the metrics of an edge as Prometheus does.
func scrape(t *testing.T, addr string) reading {
	t.Helper()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s", resp.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value is that of the metric with these labels, given as name, value, name, ….
func (r reading) value(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	f := r["wgexpose_"+name]
	if f == nil {
		t.Errorf("there is no %s", name)
		return -1
	}
metrics:
	for _, m := range f.Metric {
		have := make(map[string]string)
		for _, l := range m.Label {
			have[l.GetName()] = l.GetValue()
		}
		for i := 0; i < len(labels); i += 2 {
			if have[labels[i]] != labels[i+1] {
				continue metrics
			}
		}
		if m.Counter != nil {
			return m.Counter.GetValue()
		}
		return m.Gauge.GetValue()
	}
	t.Errorf("%s has no %v, but %v", name, labels, f.Metric)
	return -1
}

// scrapeUntil waits until the metrics are so.
func scrapeUntil(t *testing.T, addr, what string, ok func(reading) bool) reading {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for {
		r := scrape(t, addr)
		if ok(r) {
			return r
		}
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

// What an administrator sees of an edge, in its metrics and in its status, running
// and stopped: what it does is counted, and a certificate that is not replaced in
// time is told in both.
func TestMetricsAndStatus(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer web.Close()
	folder := t.TempDir()
	until := agingCertificate(t, folder, "aging.example.org", time.Now())
	e := harness.Start(t, harness.Options{Metrics: true, CertFolder: folder})
	laptop := e.AddAgent("laptop")
	e.AddAgent("spare") // which never connects
	own := httptest.NewTLSServer(nil)
	own.Close()
	run := laptop.Publish(harness.HTTP("app", web.URL), harness.TLS("line", firstLine(t, own.TLS)))
	at := e.Ready.Metrics.String()

	for _, path := range []string{"/", "/missing"} {
		e.Get(e.Client(), run.WaitUp("app")+path)
	}
	addr, _ := strings.CutPrefix(run.WaitUp("line"), "tls://")
	name, _, _ := net.SplitHostPort(addr)
	conn, err := tls.Dial("tcp", e.Ready.HTTPS.String(), &tls.Config{ServerName: name, InsecureSkipVerify: true}) // it is about bytes
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	_, err = tls.Dial("tcp", e.Ready.HTTPS.String(), &tls.Config{ServerName: "stranger.example.net"})
	if err == nil {
		t.Fatal("a name that nobody has got a certificate")
	}

	r := scrapeUntil(t, at, "the connection is over, and the requests are counted", func(r reading) bool {
		return r.value(t, "relayed_bytes_total", "direction", "from_visitor") > 0 &&
			r.value(t, "requests_total", "way", "https", "class", "2xx") == 1 && r.value(t, "requests_total", "way", "https", "class", "4xx") == 1 &&
			r.value(t, "tls_handshakes_refused_total", "reason", "unknown_name") == 1 &&
			// Within one reading these may be of before the others.
			r.value(t, "visitor_connections", "way", "tls") == 0 && r.value(t, "requests_in_progress", "way", "https") == 0
	})
	for _, want := range []struct {
		name   string
		labels []string
		is     float64
	}{
		{"build_info", []string{"version", "test"}, 1},
		{"unapplied", nil, 0},
		{"agents", []string{"state", "up"}, 1},
		{"agents", []string{"state", "away"}, 1},
		{"agent_up", []string{"agent", "laptop"}, 1},
		{"agent_up", []string{"agent", "spare"}, 0},
		{"tunnels", []string{"kind", "http", "state", "up"}, 1},
		{"tunnels", []string{"kind", "tls", "state", "up"}, 1},
		{"visitor_connections_total", []string{"way", "tls"}, 1},
		{"visitor_connections_total", []string{"way", "tcp"}, 0},
		{"certificate_state", []string{"name", "aging.example.org", "source", "file", "state", "expiring"}, 1},
		{"certificate_state", []string{"name", e.Domain, "source", "internal", "state", "valid"}, 1},
		{"certificate_expiry_timestamp_seconds", []string{"name", "aging.example.org"}, float64(until.Unix())},
		{"certificate_failures_total", nil, 0},
		{"streams", nil, 0},
		{"streams_dropped_packets_total", nil, 0},
	} {
		if got := r.value(t, want.name, want.labels...); got != want.is {
			t.Errorf("%s %v is %v, want %v", want.name, want.labels, got, want.is)
		}
	}
	for _, name := range []string{"agent_received_bytes_total", "agent_sent_bytes_total", "overlay_received_packets_total", "overlay_sent_packets_total", "start_time_seconds"} {
		if got := r.value(t, name); got <= 0 {
			t.Errorf("%s is %v", name, got)
		}
	}
	if r["go_goroutines"] == nil {
		t.Error("no numbers of the process")
	}
	lost, err := http.Get("http://" + at + "/")
	if err != nil {
		t.Fatal(err)
	}
	says, err := io.ReadAll(lost.Body)
	if lost.Body.Close(); err != nil || lost.StatusCode != http.StatusNotFound || !strings.Contains(string(says), "/metrics") {
		t.Errorf("/ gets %s, %q, %v; want a word of /metrics", lost.Status, says, err)
	}
	post, err := http.Post("http://"+at+"/metrics", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	if post.Body.Close(); post.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST gets %s", post.Status)
	}

	check := func(running bool) {
		t.Helper()
		admin := e.Admin()
		defer admin.Close()
		st, err := admin.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Running != running || st.Domain != e.Domain || st.Agents.Total != 2 || st.Tunnels.Total != 2 || st.Certificates < 2 {
			t.Errorf("status %+v", st)
		}
		if len(st.Trouble) != 1 || st.Trouble[0].Name != "aging.example.org" || st.Trouble[0].State != certs.StateExpiring || !st.Trouble[0].Until.Equal(until) {
			t.Errorf("trouble with certificates: %+v", st.Trouble)
		}
		if running && (st.Agents.Up != 1 || st.Tunnels.Up != 2 || st.Version != "test" || len(st.Listeners) < 4 || len(st.Visitors) != 2) {
			t.Errorf("status while it runs: %+v", st)
		}
	}
	check(true)
	run.Stop()
	e.Stop()
	check(false)
}
