package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
)

// Run serves the tunnels until ctx ends; then it withdraws them, gives running
// connections up to 10 s, and returns nil. It reconnects for ever by itself.
// However it ends, the last event of each tunnel is [TunnelGone], unless it
// never began to serve them.
//
// The error has a *control.Error in its chain when the edge refused: this
// agent at all, the tunnels before they were ever up (without Keep, any of
// them), or this process in favour of another one with the same key. It wraps ErrNotJoined in a state
// directory without an edge.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.drain == 0 {
		cfg.drain = drainTimeout
	}
	state, err := loadEdges(cfg.Dir)
	if err != nil {
		return err
	}
	if err := state.refusal(); err != nil {
		return err
	}
	key, err := loadKey(cfg.Dir)
	if err != nil {
		return err
	}
	r := &runner{cfg: cfg, state: state, key: key, log: cfg.Logger, process: rand.Text()}
	r.roster.leaving = map[int]*own{}
	r.roster.want(r.prepare(cfg.Tunnels))
	if r.roll, err = signOn(cfg.Dir); err != nil {
		return err
	}
	err = r.run(ctx)
	return errors.Join(err, r.roll.signOff())
}

// runner is one Run, as owner or as guest.
type runner struct {
	cfg     Config
	state   edgesState
	key     keys.Private
	log     *slog.Logger
	process string          // random; see control.Presence
	roll    *roll           // of the state directory, this process on it
	roster  roster          // the tunnels
	ending  <-chan struct{} // closed once the user has stopped Run
	telling sync.Mutex      // one event at a time

	begun    atomic.Bool // the tunnels were handed to an owner, or are served by this process as one
	stranded bool        // and that owner has ended: the edges keep the tunnels as away
}

func (r *runner) run(ctx context.Context) error {
	r.ending = ctx.Done()
	done := make(chan struct{})
	var updates sync.WaitGroup
	updates.Go(func() { r.takeUpdates(done) })
	err := r.serve(ctx)
	close(done)
	updates.Wait()
	r.lost(r.roster.detach())
	r.gone()
	return err
}

// serve takes turns between trying to be the owner and being a guest.
//
// A guest may have to end just when its owner does, as when a user stops all
// commands at once. It goes on for a moment then, to withdraw its tunnels as an
// owner, or as the next one's guest.
func (r *runner) serve(ctx context.Context) error {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(confirmTimeout, cancel) })()
	for ctx.Err() == nil || r.stranded && late.Err() == nil {
		lock, err := r.cfg.Dir.Lock(lockFile)
		if err == nil {
			return r.own(ctx, lock)
		}
		if !errors.Is(err, statedir.ErrLocked) {
			return err
		}
		over, err := r.guest(ctx, late)
		if over || err != nil {
			return err
		}
		// The owner is only starting, or has just ended. Several guests may
		// race for the lock.
		select {
		case <-time.After(5*time.Millisecond + mathrand.N(40*time.Millisecond)):
		case <-late.Done():
		}
	}
	return nil
}

// consume handles messages of the own tunnels until there is a reason to end:
// ctx, with nil, or a refusal.
func (r *runner) consume(ctx context.Context, mine *claim) error {
	for {
		m, ok := mine.inbox.next(ctx)
		if !ok {
			return nil
		}
		if err := r.handle(m); err != nil {
			return err
		}
	}
}

// handle passes a message on to the user. An error ends Run.
func (r *runner) handle(m message) error {
	switch m.Type {
	case msgLog:
		if m.Log != nil {
			return m.Log.print(r.log)
		}
	case msgEnd:
		if m.Error == nil {
			return errors.New("the process that holds the links ended without a reason")
		}
		return fromControl(m.Error)
	case msgEvent:
		if m.Event == nil {
			return nil
		}
		if m.Event.Event != EventTunnel {
			r.tell(*m.Event)
			return nil
		}
		return r.tunnelEvent(m)
	}
	return nil
}

func (r *runner) tunnelEvent(m message) error {
	e := *m.Event
	if e.State != TunnelGone && r.stopped() {
		return nil // an owner that ends as well lost its link, say: no news to a user who is leaving
	}
	news, err := r.note(&e, m)
	if news {
		r.tell(e)
	}
	return err
}

// note takes an event of a tunnel down. It reports whether that is news, and with
// an error that Run is to end.
func (r *runner) note(e *Event, m message) (news bool, err error) {
	r.roster.mu.Lock()
	defer r.roster.mu.Unlock()
	o := r.roster.find(m.Number)
	if o == nil {
		return false, nil // of a tunnel that another has replaced
	}
	if e.Name == "" { // from an owner that the edge has not told yet
		e.Name = o.last.Name
	}
	if r.roster.leaving[o.Number] == o {
		if e.State != TunnelGone {
			return false, nil
		}
		delete(r.roster.leaving, o.Number)
		return true, nil
	}
	news = !e.same(o.last)
	if news {
		o.last = *e
	}
	// What has served once is wanted for ever: after a restart of the edge its
	// port may be taken for a while, and the link tries again.
	o.served = o.served || e.State == TunnelUp
	o.refused = m.Refused && !o.served
	if !o.refused || e.Error == nil {
		return news, nil
	}
	if r.cfg.Keep && slices.ContainsFunc(r.roster.tunnels, func(o *own) bool { return !o.refused }) {
		return news, nil
	}
	return news, fromControl(e.Error)
}

// stopped reports whether the user has stopped Run.
func (r *runner) stopped() bool {
	select {
	case <-r.ending:
		return true
	default:
		return false
	}
}

// gone tells the end of those tunnels whose owner has not told it.
func (r *runner) gone() {
	r.roster.mu.Lock()
	tunnels := slices.Clone(r.roster.tunnels)
	r.roster.mu.Unlock()
	r.lost(tunnels)
}

func (r *runner) tell(e Event) {
	r.telling.Lock()
	defer r.telling.Unlock()
	if r.cfg.Events != nil {
		r.cfg.Events(e)
	}
}
