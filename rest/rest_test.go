package rest

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestOnceAfterWork: memory is given back once after the start and once after each time of
// work, not while there is work and not because giving it back allocates.
func TestOnceAfterWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var heap atomic.Uint64
		var released atomic.Int64
		done := make(chan struct{})
		go func() {
			defer close(done)
			watch(ctx, heap.Load, func() { released.Add(1); heap.Add(2 * little) })
		}()
		pass := func(looks int, each uint64) {
			for range looks {
				synctest.Wait()
				heap.Add(each)
				time.Sleep(look)
			}
			synctest.Wait()
		}
		for _, step := range []struct {
			name  string
			looks int
			each  uint64
			want  int64
		}{
			{"a start with work", 3, little + 1, 0},
			{"rest", 1, little, 1},
			{"rest goes on", 500, little, 1},
			{"work", 1, little + 1, 1},
			{"rest after it", 2, 0, 2},
			{"rest goes on", 500, 0, 2},
		} {
			pass(step.looks, step.each)
			if got := released.Load(); got != step.want {
				t.Errorf("%s: given back %d times, want %d", step.name, got, step.want)
			}
		}
		cancel()
		<-done
	})
}

func TestBeginEnds(t *testing.T) { Begin(slog.New(slog.DiscardHandler))() }

// TestAllocated: the runtime knows the metric, and it grows with the heap.
func TestAllocated(t *testing.T) {
	before := allocated()
	if before == 0 {
		t.Error("nothing was allocated before the test")
	}
	keep = make([]byte, little)
	if after := allocated(); after-before < little {
		t.Errorf("%d bytes more after %d were allocated", after-before, little)
	}
}

var keep []byte
