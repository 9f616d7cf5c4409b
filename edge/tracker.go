package edge

import (
	"context"
	"sync"
)

// tracker counts what is under way.
type tracker struct {
	mu   sync.Mutex // guards all below
	n    int
	none chan struct{} // closed when n falls to 0; nil when nobody waits
}

// add counts one more; the returned function, called once, takes it off again.
func (t *tracker) add() (done func()) {
	t.mu.Lock()
	t.n++
	t.mu.Unlock()
	return t.remove
}

func (t *tracker) remove() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	if t.n == 0 && t.none != nil {
		close(t.none)
		t.none = nil
	}
}

func (t *tracker) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// wait returns nil once nothing is under way, or ctx's error.
func (t *tracker) wait(ctx context.Context) error {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.none == nil {
		t.none = make(chan struct{})
	}
	none := t.none
	t.mu.Unlock()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
