// Package rest gives memory back to the system when a process has come to rest.
//
//	defer rest.Begin(log)()
//
// What starting, or a burst of work, took stays with a Go process for long: free heap
// until the garbage collector has seen twice that it is not needed, and pages of the
// program's own file for ever. A process counts as resting by what it allocates,
// which is what there is to give back, so nothing has to be counted where work is done.
package rest

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// look is how often it is looked at what was allocated.
	look = 20 * time.Second
	// little is what a process that rests allocates in that time, at most. An agent
	// that sends heartbeats allocates 0.1 MiB.
	little = 6 << 20
)

// Begin starts to watch this process, which has just started. The memory is given back
// once it rests, and again each time that it has worked and rests. The caller calls stop
// at the end.
func Begin(log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { watch(ctx, allocated, func() { release(log) }) })
	return func() {
		cancel()
		running.Wait()
	}
}

// watch calls release when little was allocated between two looks, for the first time
// after a start or after more was. allocated is how much that was, in bytes, of all times.
func watch(ctx context.Context, allocated func() uint64, release func()) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	worked := true // a start is work
	for last := allocated(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := allocated()
		switch {
		case now-last > little:
			worked = true
		case worked:
			worked = false
			release()
			now = allocated() // what releasing took is no work
		}
		last = now
	}
}

// allocated is what was allocated on the heap since the process began, in bytes.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func release(log *slog.Logger) {
	runtime.GC() // what sync.Pools hold outlives one collection
	debug.FreeOSMemory()
	if err := releaseProgram(); err != nil {
		log.Debug("give back pages of the program", "err", err)
	}
	log.Debug("this process rests: memory was given back")
}
