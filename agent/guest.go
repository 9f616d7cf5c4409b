package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/wgexpose/wgexpose/statedir"
)

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
