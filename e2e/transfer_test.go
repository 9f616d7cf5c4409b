package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/e2e/process"
)

// What edge and agent may each grow by while a transfer is under way; a body kept
// in memory would be five times this. On a machine that is busy with other things
// the bounded queues fill: 64 MiB of received packets (wg), 32 MiB of sent ones
// (netstack), and the collector lets the heap double before it looks.
const growth = 192 << 20

// 1 GiB each way arrives whole, and neither process keeps it.
func TestLargeTransfers(t *testing.T) {
	transfer := int64(1 << 30)
	if raced {
		transfer >>= 3 // at a tenth of the speed
	}
	web := origin.StartWeb(t)
	s := startSystem(t, share{name: "web", kind: "http", upstream: web.Addr()})
	_, sum, err := origin.Sum(origin.Data(transfer))
	if err != nil {
		t.Fatal(err)
	}
	for _, http2 := range []bool{false, true} {
		client := s.client(http2)
		// Warm: what the first request allocates is not what is measured.
		if err := s.upload(client, 1<<20, ""); err != nil {
			t.Fatal(err)
		}
		for name, move := range map[string]func() error{
			"upload":   func() error { return s.upload(client, transfer, sum) },
			"download": func() error { return s.download(client, transfer, sum) },
		} {
			t.Run(fmt.Sprintf("%s http2=%v", name, http2), func(t *testing.T) {
				watched := watch(t, s.edge, s.agent)
				begun := time.Now()
				if err := move(); err != nil {
					t.Fatal(err)
				}
				took := time.Since(begun)
				t.Logf("%.0f MB/s", float64(transfer)/1e6/took.Seconds())
				watched()
			})
		}
	}
}

// watch samples the memory of processes until the returned function is called,
// which fails the test when one grew too much.
func watch(t *testing.T, ps ...*process.Process) (stop func()) {
	t.Helper()
	if _, err := ps[0].RSS(); err != nil {
		t.Logf("memory is not watched: %v", err)
		return func() {}
	}
	stops := make([]func() (process.Memory, error), len(ps))
	for i, p := range ps {
		stops[i] = p.Watch()
	}
	limit := int64(growth)
	if raced {
		limit *= 10 // the race detector's shadow memory
	}
	return func() {
		t.Helper()
		for i, p := range ps {
			m, err := stops[i]()
			if err != nil {
				t.Errorf("%s: %v", p, err)
				continue
			}
			t.Logf("memory of %s: %v", p, m)
			if m.Peak-m.Start > limit {
				t.Errorf("%s grew by more than %d MiB", p, limit>>20)
			}
		}
	}
}

func (s *system) upload(client *http.Client, n int64, sum string) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	// Without a length, so that it travels in chunks.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.public["web"]+"/upload", io.NopCloser(origin.Data(n)))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var got origin.Upload
	if err := json.Unmarshal(body, &got); err != nil {
		return fmt.Errorf("%s: %q: %w", resp.Status, body, err)
	}
	if got.Length != n || sum != "" && got.SHA256 != sum {
		return fmt.Errorf("the origin got %d bytes with sum %s, want %d with %s", got.Length, got.SHA256, n, sum)
	}
	return nil
}

func (s *system) download(client *http.Client, n int64, sum string) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/download?n=%d", s.public["web"], n), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != n {
		return fmt.Errorf("%s, length %d", resp.Status, resp.ContentLength)
	}
	got, gotSum, err := origin.Sum(resp.Body)
	if err != nil {
		return err
	}
	if got != n || gotSum != sum {
		return fmt.Errorf("got %d bytes with sum %s, want %d with %s", got, gotSum, n, sum)
	}
	return nil
}
