package main

import (
	"context"
	"log/slog"
	"sync"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/service"
)

// supervised tells the service manager, if one started this process, how it is.
type supervised struct {
	*service.Notifier
	ready sync.Once
	end   func() // must be called; waits for the watchdog to have ended
}

// supervise begins to answer the watchdog, with check, and says so when ctx ends
// and the process drains.
func supervise(ctx context.Context, log *slog.Logger, check func(context.Context) error) *supervised {
	s := &supervised{Notifier: service.NewNotifier(log)}
	// The drain is watched over, too.
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { s.Watch(watching, check) })
	unwatch := context.AfterFunc(ctx, s.Stopping)
	s.end = func() {
		unwatch()
		cancel()
		wg.Wait()
	}
	return s
}

// event takes the agent's first sign of life for readiness: it has its key and
// its state directory then. Reaching the edge is its work, which it never gives
// up, and a machine that boots without a network need not wait for it.
func (s *supervised) event(e agent.Event) {
	s.ready.Do(s.Ready)
	if e.Event == agent.EventLink {
		s.Status(linkLine(e))
	}
}
