package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// drainOnSignal returns a context that ends at the first SIGINT or SIGTERM, for
// a drain to begin. The second one ends the process at once. stop, which must
// be called, releases everything.
func drainOnSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	stopped := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		defer signal.Stop(signals)
		select {
		case <-signals:
			cancel()
		case <-stopped:
			return
		}
		// Not left to the signal's default effect, which is none in a process
		// that was started with SIGINT ignored, as shells start background jobs.
		select {
		case <-signals:
			os.Exit(exitFailure)
		case <-stopped:
		}
	})
	return ctx, sync.OnceFunc(func() {
		cancel()
		close(stopped)
		waiting.Wait()
	})
}
