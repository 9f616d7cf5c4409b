package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wgexpose/wgexpose/statedir"
)

// WatchOptions are what Watch may be told.
type WatchOptions struct {
	Of    int           // only tunnels of the command with this process id; 0: all
	Every time.Duration // how often to look; half as often while nobody visits
}

// Watch calls show with how the agent of dir is, again and again, one call at a
// time, until ctx ends; then it returns nil. It looks when show has returned, so
// a slow one costs nobody else. While no command holds the links, and from one
// owner to the next, nothing is shown.
func Watch(ctx context.Context, dir *statedir.Dir, o WatchOptions, show func(Status)) error {
	if o.Every <= 0 {
		return errors.New("watch: no interval")
	}
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for ctx.Err() == nil {
		err := watchOwner(ctx, dir, o, tick, show)
		if ctx.Err() == nil && err != nil && !errors.Is(err, statedir.ErrNotRunning) && !errors.Is(err, errOwnerGone) {
			return fmt.Errorf("watch: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// visited reports whether somebody is there, or was since the last time.
func visited(st *Status) bool {
	return len(st.Visits) > 0 || slices.ContainsFunc(st.Tunnels, func(t TunnelStatus) bool { return t.Connections > 0 })
}

// errOwnerGone ends the watch of one owner, after which there may be another.
var errOwnerGone = errors.New("the owner has ended")

func watchOwner(ctx context.Context, dir *statedir.Dir, o WatchOptions, tick *time.Ticker, show func(Status)) error {
	conn, err := dir.DialUnix(ctx, socketFile)
	if err != nil {
		return err
	}
	c := newLocalConn(conn)
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	for {
		if err := c.write(request{Version: localVersion, Type: askStatus, Of: o.Of, Visits: true}); err != nil {
			return errOwnerGone
		}
		var m message
		if err := c.readSoon(&m); err != nil {
			return errOwnerGone
		}
		switch {
		case m.Type == msgEnd && m.Error != nil:
			return fromControl(m.Error)
		case m.Type != msgStatus || m.Status == nil:
			return fmt.Errorf("unexpected answer %q", m.Type)
		}
		show(*m.Status)
		if visited(m.Status) {
			tick.Reset(o.Every)
		} else {
			tick.Reset(2 * o.Every)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
