package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/keys"
)

const (
	// clockEvery is how often the clocks are compared, at least.
	clockEvery = time.Second
	// clockJump is by how much the clocks may disagree, or a tick may be late,
	// before the machine counts as having slept.
	clockJump = 2 * time.Second
)

// Reasons for a nudge, as users read them.
const (
	reasonNetwork = "this machine's network has changed"
	reasonAsleep  = "this machine was asleep"
	reasonStream  = "the TLS connection to the edge broke"
)

// pathError ends a session whose way to the edge is gone, or may be: the next
// one begins on a new socket.
type pathError struct{ reason string }

func (e *pathError) Error() string { return e.reason }

// watcher calls changed when the machine's network changes, until ctx ends, as
// netwatch.Watch does.
type watcher func(ctx context.Context, changed func()) error

// monitor nudges a node when the ground under it moves.
//
// A change of the network matters if packets to the edge leave from another
// address than before, or cannot leave at all any more; interfaces that come
// and go beside that one, such as those of containers, do not. All else that
// may break the way is found by silence.
type monitor struct {
	node   *node
	edge   keys.Public
	watch  watcher
	pulse  pulse
	source func(netip.AddrPort) netip.Addr // sourceFor; tests have their own

	mu   sync.Mutex // guards last
	last netip.Addr // where packets left from when the way was found, or last changed
}

// found notes the way that was just found to the edge.
func (m *monitor) found() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = m.address()
}

// run watches until ctx ends.
func (m *monitor) run(ctx context.Context) {
	var clock sync.WaitGroup
	clock.Go(func() { m.clock(ctx) })
	defer clock.Wait()
	err := m.watch(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if now := m.address(); now != m.last {
			m.last = now
			m.node.nudge(reasonNetwork)
		}
	})
	if err != nil {
		m.node.log.Warn("changes of the network are noticed by silence only", "err", err)
	}
}

// address is where packets to the edge leave from; zero: from nowhere.
func (m *monitor) address() netip.Addr {
	p, ok, err := m.node.dev.Peer(m.edge)
	if err != nil || !ok || !p.Endpoint.IsValid() {
		return netip.Addr{}
	}
	return m.source(p.Endpoint)
}

// sourceFor asks the system which address packets to the given one leave from.
// Nothing is sent.
func sourceFor(to netip.AddrPort) netip.Addr {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
}

// clock looks for time that has passed without this process.
func (m *monitor) clock(ctx context.Context) {
	tick := time.NewTimer(m.pulse.wait(time.Now(), clockEvery))
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-tick.C:
			tick.Reset(m.pulse.wait(time.Now(), clockEvery))
		case <-ctx.Done():
			return
		}
		now := time.Now()
		if slept(now.Round(0).Sub(last.Round(0)), now.Sub(last)) {
			m.node.nudge(reasonAsleep)
		}
		last = now
	}
}

// slept judges by how far the wall clock and the monotonic one went between two
// ticks. The monotonic clock stands still while a machine sleeps, on most
// systems, and goes on while a process is stopped. A wall clock that was set
// forward looks like sleep, which does no harm.
func slept(wall, mono time.Duration) bool {
	return wall-mono > clockJump || mono > clockEvery+clockJump
}

// silentFor says how long nothing was heard.
func silentFor(d time.Duration) *pathError {
	return &pathError{fmt.Sprintf("nothing heard from the edge for %v", d)}
}
