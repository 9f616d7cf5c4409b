package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Tunnel is one service to publish.
type Tunnel struct {
	tunnel.Spec              // its ID is drawn by Run when it is zero
	ProxyProtocol       int  `json:"proxy_protocol,omitempty"`        // 1 or 2: tell a TCP upstream of the visitor with a PROXY header of that version
	InsecureUpstreamTLS bool `json:"insecure_upstream_tls,omitempty"` // accept any certificate of an https:// upstream

	Uninspected bool `json:"uninspected,omitempty"` // http: its requests are not read along, whoever inspects

	Via string `json:"via,omitempty"` // dialled in place of Upstream, which is shown to people; written as an upstream is
}

// Validate says what makes a tunnel unusable.
func (t Tunnel) Validate() error {
	spec := t.Spec
	if spec.ID == 0 {
		spec.ID = 1 // Run draws one
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	if _, err := t.dialled(); err != nil {
		return err
	}
	switch {
	case t.ProxyProtocol < 0 || t.ProxyProtocol > 2:
		return fmt.Errorf("PROXY protocol version %d: want 1 or 2, or 0 for none", t.ProxyProtocol)
	case t.ProxyProtocol != 0 && t.Kind == tunnel.HTTP:
		return errors.New("a PROXY header is for tcp and tls tunnels; http upstreams find the visitor in X-Forwarded-For")
	}
	return nil
}

// dialled is what visitors are led to.
func (t Tunnel) dialled() (tunnel.Upstream, error) {
	return tunnel.ParseUpstream(t.Kind, cmp.Or(t.Via, t.Upstream))
}

// Config is what Run needs.
type Config struct {
	Dir     *statedir.Dir // of an agent that has joined
	Tunnels []Tunnel      // at least one
	Keep    bool          // go on while any of several tunnels is good
	Health  bool          // have it told at once that an upstream is down, or back; else the first visitor finds out
	Reach   Reach         // of the process that holds the links
	Inspect Inspect       // of the requests of http tunnels, by the process that holds the links; the first that asks for it says how
	Version string        // of the program

	Certificates Certificates // of the process that holds the links

	Events func(Event) // called one at a time; may be nil

	// Updates are sets of tunnels, each of which takes the place of the one before.
	// Tunnels that stay as they are, and those of which only what edges look at has
	// changed, keep their connections; the others have as long as at the end. A set
	// that CheckTunnels refuses is logged and changes nothing. May be nil.
	Updates <-chan []Tunnel

	Logger *slog.Logger // nil discards

	drain time.Duration // for running connections at the end; 0 = drainTimeout; tests shorten it
}

// Validate says what makes a Config unusable.
func (c Config) Validate() error {
	if c.Dir == nil {
		return errors.New("agent: no state directory")
	}
	if err := c.Reach.Validate(); err != nil {
		return err
	}
	if err := c.Inspect.Validate(); err != nil {
		return err
	}
	return CheckTunnels(c.Tunnels)
}

// CheckTunnels says what makes a set of tunnels unusable.
func CheckTunnels(tunnels []Tunnel) error {
	if len(tunnels) == 0 {
		return errors.New("agent: no tunnels")
	}
	if len(tunnels) > control.MaxTunnels {
		return fmt.Errorf("agent: %d tunnels, of at most %d", len(tunnels), control.MaxTunnels)
	}
	for i, t := range tunnels {
		if err := t.Validate(); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.Name, err)
		}
		for _, o := range tunnels[:i] {
			if what := conflict(t.Spec, o.Spec); what != "" {
				return fmt.Errorf("two tunnels ask for %s", what)
			}
		}
	}
	return nil
}

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

// guest hands the tunnels to the owner and stays until ctx or the owner ends.
// A stranded one may still come until late. over tells that Run is to end, with err.
func (r *runner) guest(ctx, late context.Context) (over bool, err error) {
	until := ctx
	if r.stranded {
		until = late
	}
	conn, err := r.cfg.Dir.DialUnix(until, socketFile)
	if errors.Is(err, statedir.ErrNotRunning) {
		return false, nil
	}
	if err != nil && until.Err() != nil {
		return true, nil
	}
	if err != nil {
		return true, err
	}
	c := newLocalConn(conn)
	defer c.Close()
	if until.Err() != nil {
		return true, nil
	}
	offers, version := r.roster.offers()
	if err := c.write(request{Version: localVersion, Type: askRun, PID: os.Getpid(), Name: r.roll.name, Tunnels: offers, Inspect: r.cfg.Inspect, Reach: r.cfg.Reach, LogLevel: levelOf(r.log), Certificates: r.cfg.Certificates}); err != nil {
		r.log.Debug("hand over tunnels", "err", err) // the owner has just ended
		return false, nil
	}
	var first message
	switch err := c.readSoon(&first); {
	case err != nil:
		r.log.Debug("hand over tunnels", "err", err) // the owner has just ended
		return false, nil
	case first.Type == msgEnd:
		return true, r.handle(first)
	case first.Type != msgWelcome || first.Version != localVersion:
		return true, fmt.Errorf("unexpected answer %q on %s", first.Type, socketFile)
	}
	r.begun.Store(true)
	r.stranded = false
	r.log.Debug("another process holds the links")
	r.roster.attach(version, func(offers []offer) {
		if err := c.write(request{Version: localVersion, Type: askUpdate, Tunnels: offers}); err != nil {
			r.log.Debug("hand over changed tunnels", "err", err) // the owner has ended; the next one gets all
		}
	})
	defer func() { r.lost(r.roster.detach()) }()
	return r.follow(ctx, c)
}

// follow handles the owner's messages, and withdraws the tunnels when ctx or a
// refusal ends Run.
func (r *runner) follow(ctx context.Context, c *localConn) (over bool, err error) {
	withdraw := func() {
		if err := c.write(request{Version: localVersion, Type: askWithdraw}); err != nil {
			r.log.Debug("withdraw", "err", err) // the owner has ended, and with it the tunnels
		}
		// The reader below must end even if the owner hangs.
		if err := c.SetReadDeadline(time.Now().Add(drainTimeout + localTimeout)); err != nil {
			r.log.Debug("withdraw", "err", err)
		}
	}
	stop := context.AfterFunc(ctx, withdraw)
	defer stop()
	var refusal error
	for {
		var m message
		err := c.read(&m)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded): // that of withdraw: the owner hangs
			return true, refusal
		case err != nil || m.Type == msgBye:
			if err != nil && !errors.Is(err, io.EOF) {
				r.log.Debug("the process that held the links is gone", "err", err)
			}
			if refusal != nil {
				return true, refusal
			}
			r.stranded = true
			if ctx.Err() == nil {
				r.orphaned()
			}
			return false, nil
		case m.Type == msgDone:
			return true, refusal
		}
		if err := r.handle(m); err != nil && refusal == nil {
			if m.Type == msgEnd {
				return true, err
			}
			refusal = err
			if stop() {
				withdraw()
			}
		}
	}
}

// orphaned tells that the tunnels are away until there is a new owner.
func (r *runner) orphaned() {
	var events []Event
	r.roster.mu.Lock()
	for _, o := range r.roster.tunnels {
		e := o.last
		if e.PublicURL == "" {
			continue
		}
		e.Time, e.State, e.PublicURL, e.Error = time.Now().UTC(), TunnelAway, "", nil
		o.last = e
		events = append(events, e)
	}
	r.roster.mu.Unlock()
	for _, e := range events {
		r.tell(e)
	}
}
