//go:build linux

package load

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/wgexpose/wgexpose/bench/origin"
)

// Idle holds connections that say nothing.
type Idle struct {
	Addr    string `json:"addr"`
	Conns   int    `json:"conns"`
	Workers int    `json:"workers"` // that open them
}

// IdleResult tells whether they were alive to the end.
type IdleResult struct {
	Opened int              `json:"opened"`
	Alive  int              `json:"alive"` // answered after the hold
	Errors map[string]int64 `json:"errors,omitempty"`
}

// idle opens connections, each of which exchanges a byte, answers that they are
// held, and waits for the word to exchange another one.
func (r *runner) idle(ctx context.Context, i Idle) (Answer, error) {
	used, err := r.begin()
	if err != nil {
		return Answer{}, err
	}
	conns := make([]*net.TCPConn, i.Conns)
	defer func() {
		for _, c := range conns {
			if c != nil {
				abort(c)
			}
		}
	}()
	failed := each(i.Workers, i.Conns, func(n int) error {
		conn, err := r.dial(ctx, i.Addr)
		if err != nil {
			return err
		}
		conns[n] = conn
		if _, err := conn.Write([]byte{origin.Echo}); err != nil {
			return err
		}
		return ask(conn, []byte{byte(n)}, make([]byte, 1))
	})
	if len(failed) > 0 {
		return Answer{}, fmt.Errorf("load: %d connections cannot all be opened: %v", i.Conns, failed)
	}
	if err := r.answer(Answer{Event: EventHeld}); err != nil {
		return Answer{}, err
	}
	select {
	case word := <-r.words:
		if word != "go" {
			return Answer{}, fmt.Errorf("load: %q means nothing here", word)
		}
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
	usage, err := used.end()
	if err != nil {
		return Answer{}, err
	}
	var alive atomic.Int64
	failed = each(i.Workers, i.Conns, func(n int) error {
		err := ask(conns[n], []byte{byte(n + 1)}, make([]byte, 1))
		if err == nil {
			alive.Add(1)
		}
		return err
	})
	return Answer{Idle: &IdleResult{Opened: i.Conns, Alive: int(alive.Load()), Errors: failed}, Usage: usage}, nil
}

// each calls f for 0…n-1 from some workers, and counts errors by reason.
func each(workers, n int, f func(int) error) map[string]int64 {
	var (
		next   atomic.Int64
		mu     sync.Mutex // guards failed
		failed = make(map[string]int64)
		wg     sync.WaitGroup
	)
	for range max(1, workers) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					mu.Lock()
					failed[reason(err)]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return failed
}
