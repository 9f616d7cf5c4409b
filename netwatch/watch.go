// Package netwatch tells when this machine's network changes.
//
//	err := netwatch.Watch(ctx, func() {
//		// An address, an interface or a route came, went or changed.
//	})
//
// It says that something changed, and not what: whoever asks has to look at
// what matters to them anyway. Linux is asked through netlink and the BSDs,
// macOS among them, through a routing socket; elsewhere, and where the system
// does not allow that, the list of addresses is compared every two seconds.
package netwatch

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

const (
	// settle is how long a change is given to be followed by others: an
	// interface that comes up is a dozen messages.
	settle = 50 * time.Millisecond
	// pollEvery is how often addresses are compared where nobody tells.
	pollEvery = 2 * time.Second
)

// Watch calls changed after each change, on one goroutine and at most every 50
// ms, until ctx ends, when it returns nil. It may call it when nothing has
// changed that matters.
func Watch(ctx context.Context, changed func()) error {
	source, err := open()
	if err != nil {
		// A sandbox may forbid such sockets.
		return poll(ctx, pollEvery, changed)
	}
	return follow(ctx, source, changed)
}

// follow reads messages, whose content is of no interest, until ctx ends.
func follow(ctx context.Context, source io.ReadCloser, changed func()) error {
	defer source.Close()
	stop := context.AfterFunc(ctx, func() { source.Close() })
	defer stop()
	news := make(chan struct{}, 1)
	broken := make(chan error, 1)
	go read(source, news, broken)
	for {
		select {
		case <-news:
		case err := <-broken:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch the network: %w", err)
		}
		changed()
		select {
		case <-time.After(settle):
		case <-ctx.Done():
		}
	}
}

// read leaves a token in news for each run of messages, and the error that
// ended it in broken.
func read(source io.Reader, news chan<- struct{}, broken chan<- error) {
	buf := make([]byte, 64<<10)
	for {
		// An overrun buffer has lost messages, which is news as well.
		if _, err := source.Read(buf); err != nil && !overrun(err) {
			broken <- err
			return
		}
		select {
		case news <- struct{}{}:
		default:
		}
	}
}

// poll compares the addresses every now and then.
func poll(ctx context.Context, every time.Duration, changed func()) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := addresses()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if now := addresses(); now != last {
			last = now
			changed()
		}
	}
}

// addresses is a text that is the same as long as all interfaces that are up,
// and their addresses, are.
func addresses() string {
	interfaces, err := net.Interfaces()
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went just now
		}
		for _, a := range addrs {
			all = append(all, i.Name+" "+a.String())
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}
