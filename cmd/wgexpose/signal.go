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
	d := newDrain(parent)
	return d.ctx, d.stop
}

// drain is how a user ends a command: softly, and then at once.
type drain struct {
	ctx     context.Context
	signals chan os.Signal
	stop    func() // must be called

	mu   sync.Mutex // guards last
	last func()
}

func newDrain(parent context.Context) *drain {
	ctx, cancel := context.WithCancel(parent)
	d := &drain{ctx: ctx, signals: make(chan os.Signal, 2)}
	signal.Notify(d.signals, os.Interrupt, syscall.SIGTERM)
	stopped := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		defer signal.Stop(d.signals)
		select {
		case <-d.signals:
			cancel()
		case <-stopped:
			return
		}
		// Not left to the signal's default effect, which is none in a process
		// that was started with SIGINT ignored, as shells start background jobs.
		select {
		case <-d.signals:
			d.mu.Lock()
			if d.last != nil {
				d.last()
			}
			os.Exit(exitFailure)
		case <-stopped:
		}
	})
	d.stop = sync.OnceFunc(func() {
		cancel()
		close(stopped)
		waiting.Wait()
	})
	return d
}

// interrupt is what Ctrl-C does, where the terminal makes no signal of it.
func (d *drain) interrupt() {
	select {
	case d.signals <- os.Interrupt:
	default:
	}
}

// atExit has do called before the process is ended at once; nil: nothing.
func (d *drain) atExit(do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = do
}
