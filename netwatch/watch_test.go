package netwatch

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// within waits for something that must come.
func within[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// started runs a watch until the test ends, and gives a channel of its calls.
func started(t *testing.T, watch func(context.Context, func()) error) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	calls := make(chan struct{}, 16)
	ended := make(chan error, 1)
	go func() { ended <- watch(ctx, func() { calls <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		if err := within(t, ended, "end"); err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	return calls
}

func TestEachMessageIsNews(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	calls := started(t, func(ctx context.Context, changed func()) error { return follow(ctx, here, changed) })
	for range 3 {
		if _, err := there.Write([]byte("message")); err != nil {
			t.Fatal(err)
		}
		within(t, calls, "call")
	}
}

func TestBrokenSource(t *testing.T) {
	here, there := net.Pipe()
	there.Close()
	if err := follow(t.Context(), here, func() {}); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want the source's error", err)
	}
}

func TestPollEnds(t *testing.T) {
	started(t, func(ctx context.Context, changed func()) error { return poll(ctx, time.Millisecond, changed) })
	// Two looks in a row agree, or every poll would tell of a change. The
	// network of the machine may change meanwhile, but not each time.
	for range 5 {
		first, second := addresses(), addresses()
		if first == second {
			return
		}
	}
	t.Error("each look at the addresses gives another answer")
}
