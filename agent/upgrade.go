package agent

import (
	"context"
	"math/rand/v2"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/wg"
)

const (
	// trialPause is how long a link stays on TLS before UDP is tried, and then
	// tried again. A trial is one handshake beside what goes on over TLS, which
	// holds up nobody, so UDP that comes back is soon used.
	trialPause = 10 * time.Second
	// trialWait is for an answer over UDP. It is less than the 5 s after which
	// WireGuard calls again by itself, over TLS then.
	trialWait = 4 * time.Second
	// longestTrial bounds the pause where UDP answers and then does not carry
	// the link for goodTrial: that holds up everybody until it is found out, so
	// each time doubles the pause.
	longestTrial = 5 * time.Minute
	goodTrial    = time.Minute
	// streamLinger is for packets that are still on their way over TLS when UDP
	// has taken over.
	streamLinger = 2 * time.Second
)

// trial decides when UDP is tried again. It is used by one goroutine at a time.
type trial struct {
	pause time.Duration // 0: trialPause
	since time.Time     // of a change to UDP that was not judged yet
}

// next is how long to wait for the next trial, or a quarter longer. A link that
// is on TLS soon after it went to UDP has found UDP wanting.
func (t *trial) next(now time.Time) time.Duration {
	switch {
	case t.since.IsZero():
	case now.Sub(t.since) < goodTrial:
		t.pause = min(2*max(t.pause, trialPause), longestTrial)
	default:
		t.pause = 0
	}
	t.since = time.Time{}
	return max(t.pause, trialPause)
}

// upgrade takes a link that is up from TLS back to UDP as soon as that works,
// without a pause for anybody: it does a handshake over UDP while packets go on
// over TLS, and changes over when that was answered.
func (l *link) upgrade(ctx context.Context, n *node, ask chan<- struct{}) error {
	for {
		pause := n.trial.next(time.Now())
		select {
		case <-time.After(pause + rand.N(pause/4+1)):
		case <-ctx.Done():
			return nil
		}
		ep, err := n.tryUDP(ctx, l.edge)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case ep != nil:
			n.paths.Pin(ep)
			l.sizing.moved()
			n.trial.since = time.Now()
			l.streaming.Store(false)
			l.log.Info("UDP works again, and carries the link from now on")
			l.set.linkState(l, LinkUp, "")
			// What is still on its way over TLS is received meanwhile; the edge
			// follows with the next packet that it gets.
			nonblocking(ask)
			select {
			case <-time.After(streamLinger):
				n.stream.Close()
			case <-ctx.Done():
			}
			return nil
		}
		// If the handshake has arrived and only its answer was lost, the edge
		// sends over UDP until it hears something over TLS.
		nonblocking(ask)
	}
}

func nonblocking(ask chan<- struct{}) {
	select {
	case ask <- struct{}{}:
	default:
	}
}

// tryUDP does a handshake over UDP and returns where the answer came from; nil
// if there was none. The session that there is serves meanwhile.
func (n *node) tryUDP(ctx context.Context, edge keys.Edge) (conn.Endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, trialWait)
	defer cancel()
	addrs, err := resolve(ctx, n.resolver, edge)
	if len(addrs) == 0 {
		n.log.Debug("try UDP", "err", err)
		return nil, nil
	}
	var targets []conn.Endpoint
	for _, addr := range addrs[:min(len(addrs), maxTargets)] {
		if ep, err := n.paths.At(addr); err == nil {
			targets = append(targets, ep)
		}
	}
	before, err := n.handshake(edge.Key)
	if err != nil || len(targets) == 0 {
		return nil, err
	}
	n.paths.Aim(targets...)
	defer n.paths.Aim()
	if err := n.dev.Handshake(edge.Key); err != nil {
		n.log.Debug("try UDP", "err", err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, nil
		}
		last, err := n.handshake(edge.Key)
		if err != nil {
			return nil, err
		}
		if last.Equal(before) {
			continue
		}
		if ep, ok := n.paths.Answer().(*wg.Endpoint); ok {
			return n.paths.At(ep.AddrPort())
		}
		before = last // another handshake has come over TLS
	}
}
