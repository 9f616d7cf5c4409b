package edge

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// What listens for this machine alone is not read by a web site that has its name
// resolve to 127.0.0.1. Who let others in may call the edge what they like.
func TestMetricsHost(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]map[string]int{
		"127.0.0.1:0": {"": 200, "localhost:9090": 200, "[::1]:9090": 200, "evil.example": 421, "evil.example:9090": 421, "192.0.2.1:9090": 421},
		"0.0.0.0:0":   {"": 200, "localhost:9090": 200, "edge.lan:9090": 200, "192.0.2.1:9090": 200},
	} {
		l, err := net.Listen("tcp4", listen)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- serveMetrics(ctx, l, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		}()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for host, status := range want {
			for _, path := range []string{"/metrics", "/"} {
				r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+port+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Host = host // "" is the address
				resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				if resp.Body.Close(); err != nil {
					t.Fatal(err)
				}
				want := status
				if path == "/" && want == 200 {
					want = 404
				}
				if resp.StatusCode != want || (want == 421 && (strings.Contains(string(body), "go_") || !strings.Contains(string(body), "--metrics"))) {
					t.Errorf("on %s, host %q, %s: %s, want %d\n%.200s", listen, host, path, resp.Status, want, body)
				}
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
