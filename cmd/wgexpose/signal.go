package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// drainOnSignal returns a context that ends at the first SIGINT or SIGTERM.
// From then on signals have their default effect again, so that the second one
// ends the process at once. stop releases everything.
func drainOnSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, stop = signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
