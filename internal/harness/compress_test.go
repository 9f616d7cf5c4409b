package harness_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/wgexpose/wgexpose/internal/harness"
)

// A tunnel's wish to be compressed travels from the agent to the edge.
func TestCompressionWholeWay(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("again and ", 1000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Etag", `"1"`)
		io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	small, plain := harness.HTTP("small", s.URL), harness.HTTP("plain", s.URL)
	small.Compression = true
	e := harness.Start(t, harness.Options{})
	run := e.AddAgent("laptop").Publish(small, plain)
	for name, want := range map[string][2]string{"small": {"zstd", `W/"1"`}, "plain": {"", `"1"`}} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", run.WaitUp(name), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", "gzip, zstd")
		res, err := e.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got := [2]string{res.Header.Get("Content-Encoding"), res.Header.Get("Etag")}; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		body := io.Reader(res.Body)
		if want[0] != "" {
			z, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			defer z.Close()
			body = z
		}
		if b, err := io.ReadAll(body); err != nil || string(b) != text {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}
