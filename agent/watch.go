package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wgexpose/wgexpose/statedir"
)

// WatchOptions are what Watch may be told.
type WatchOptions struct {
	Of    int           // only tunnels of the command with this process id; 0: all
	Every time.Duration // how often to look
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
		err := watchOwner(ctx, dir, o, tick.C, show)
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

// errOwnerGone ends the watch of one owner, after which there may be another.
var errOwnerGone = errors.New("the owner has ended")

func watchOwner(ctx context.Context, dir *statedir.Dir, o WatchOptions, tick <-chan time.Time, show func(Status)) error {
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
		select {
		case <-tick:
		case <-ctx.Done():
			return nil
		}
	}
}
