package certs

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// Folders that are swept up do not take new files with them.
func TestStoreWhileCleaning(t *testing.T) {
	s := newStorage(t.TempDir(), time.Hour, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	var sweeping sync.WaitGroup
	sweeping.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := s.Delete(t.Context(), "site"); err != nil {
				t.Error(err)
			}
		}
	})
	for n := range 100 {
		key := fmt.Sprintf("site/%d", n)
		if err := s.Store(t.Context(), key, []byte("value")); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(t.Context(), key); err != nil || string(got) != "value" {
			t.Fatalf("%q, %v", got, err)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	sweeping.Wait()
	if err := s.Delete(t.Context(), "site"); err != nil {
		t.Error(err)
	}
	if s.Exists(t.Context(), "site") {
		t.Error("an empty folder stays")
	}
}
