package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/listening"
)

const (
	// lookEvery is how often it is looked whether somebody listens at the
	// upstreams on this machine, while nobody does at one of them. Nothing is sent
	// for it.
	lookEvery = time.Second
	// calmEvery is how often while all are there: that one has ended is told by
	// the first visitor, too.
	calmEvery = 3 * time.Second
	// lookShare is how many times as long as a look took nobody looks again, up to
	// dialEvery: a machine with many thousand sockets has much to read.
	lookShare = 100
	// dialEvery is how often an upstream that failed is dialled, where that
	// cannot be seen without.
	dialEvery = 5 * time.Second
	// hintPorts is how many ports are named that listen instead.
	hintPorts = 4
)

// upstreams looks after the upstreams of a set, so that users learn that one is
// down, or back, without a visitor who tries. On this machine that is seen without
// a connection, where the system tells; elsewhere each is dialled once in the
// beginning, and then only while it is down.
type upstreams struct {
	set   *set
	pulse pulse

	dials sync.WaitGroup

	mu   sync.Mutex // guards seen
	seen map[*served]*lookedAt
}

// lookedAt is what the last look at an upstream found.
type lookedAt struct {
	listens bool      // somebody was there
	dialled time.Time // last; zero: never
	busy    bool      // a dial is under way
}

// run looks until ctx ends.
func (u *upstreams) run(ctx context.Context) {
	defer u.dials.Wait()
	for ctx.Err() == nil {
		began := time.Now()
		well, changed := u.look(ctx, began)
		every := lookEvery
		if well {
			every = calmEvery
		}
		wait := u.pulse.wait(time.Now(), every)
		if long := min(lookShare*time.Since(began), dialEvery); long > wait {
			wait = long
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
			select { // what comes together is looked at together
			case <-time.After(lookEvery / 10):
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// look goes through all upstreams once, and reports whether they are as they should
// be. The channel is closed when there may be others.
func (u *upstreams) look(ctx context.Context, now time.Time) (well bool, changed <-chan struct{}) {
	u.set.mu.Lock()
	all := make([]*served, 0, len(u.set.wanted))
	for _, t := range u.set.wanted {
		if t.last.PublicURL != "" { // that it is up is told first, whatever it leads to
			all = append(all, t)
		}
	}
	well = len(all) == len(u.set.wanted)
	failures := make([]*control.Error, len(all))
	for i, t := range all {
		failures[i] = t.failure
	}
	changed = u.set.changed
	u.set.mu.Unlock()

	u.mu.Lock()
	defer u.mu.Unlock()
	seen := make(map[*served]*lookedAt, len(all))
	for i, t := range all {
		if t.Via != "" || t.ProxyProtocol != 0 { // ours; or it would complain of a dial without a header
			continue
		}
		at := u.seen[t]
		if at == nil {
			at = &lookedAt{listens: true}
		}
		seen[t] = at
		well = well && failures[i] == nil
		addr, local := t.loopback()
		due := now.Sub(at.dialled) >= dialEvery
		var there, known bool
		if local {
			there, known = listening.Serves(addr)
		}
		if known {
			ended := at.listens
			if at.listens = there; there {
				if f := failures[i]; f != nil && f.Code == control.CodeUpstreamRefused && u.set.dialled(t, nil) {
					u.dials.Go(func() { u.report(t, nil) })
				}
				continue
			}
			well = false
			due = due || ended
		} else {
			due = due && (at.dialled.IsZero() || failures[i] != nil)
		}
		if due && !at.busy {
			at.busy, at.dialled = true, now
			u.dials.Go(func() { u.dial(ctx, t, at) })
		}
	}
	u.seen = seen
	return well, changed
}

// dial asks the upstream itself.
func (u *upstreams) dial(ctx context.Context, t *served, at *lookedAt) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.dial, cancel)()
	up, failure, news := t.connect(ctx, t.claim.log.With("tunnel", u.set.nameOf(t), "upstream", t.Spec.Upstream))
	if up != nil {
		up.Close() // nothing was said on it
	}
	if news {
		u.report(t, failure)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	at.busy = false
}

// report tells the edges, whose visitors read of it.
func (u *upstreams) report(t *served, failure *control.Error) {
	e := control.AgentEvent{Type: control.EventUpstream, Tunnel: t.ID, OK: failure == nil, At: time.Now()}
	if failure != nil {
		e.Code, e.Error = failure.Code, failure.Message
	}
	u.set.mu.Lock()
	links := slices.Clone(u.set.links)
	u.set.mu.Unlock()
	for _, v := range links {
		v.link.report(e)
	}
}

// loopback is where the upstream listens, if that is this machine.
func (t *served) loopback() (netip.AddrPort, bool) {
	addr, err := netip.ParseAddr(t.upstream.Host) // "localhost" may be either family
	if err != nil || !addr.IsLoopback() {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr, t.upstream.Port), true
}

// hint says what listens on this machine in place of an upstream that nobody is
// at. It is for the user of this machine and never leaves it.
func (t *served) hint(failure *control.Error) string {
	addr, local := t.loopback()
	if failure == nil || failure.Code != control.CodeUpstreamRefused || !local {
		return ""
	}
	table, known := listening.Read()
	if !known {
		return ""
	}
	if same := table.OnLoopback(addr.Port()); len(same) > 0 {
		return fmt.Sprintf("port %d is open on %s: share that", addr.Port(), same[0])
	}
	others := table.Others(hintPorts)
	if len(others) == 0 {
		return "nothing listens on this machine: start the service"
	}
	return "on this machine there are: " + strings.Join(others, ", ")
}
