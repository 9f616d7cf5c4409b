package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/wg"
)

const (
	// clockFile has how far the clock had come at a recent handshake.
	clockFile = "clock"
	// clockKeep is how often that is written down. A clock that was set back by
	// less than this before a restart may not be noticed, and has caught up soon.
	clockKeep = 10 * time.Minute
	// clockSlack is by how much a clock may be corrected without a word.
	clockSlack = time.Second
)

// handshakeClock knows how far the clock had come at the last handshake. Edges
// ignore the handshakes of an agent whose clock is behind that, as they ignore
// replays (see wg.Now): from outside it looks as if nobody were there, and only
// the agent can tell why.
type handshakeClock struct {
	dir *statedir.Dir
	now func() time.Time

	mu     sync.Mutex // guards all below
	latest time.Time  // that the clock has shown in a session
	kept   time.Time  // of it, what is in the file
}

// openClock reads what a process before has kept. The error is only to be told:
// the clock is usable all the same, and has forgotten.
func openClock(dir *statedir.Dir) (*handshakeClock, error) {
	c := &handshakeClock{dir: dir, now: wg.Now}
	text, err := dir.ReadFile(clockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = c.latest.UnmarshalText(text)
	}
	if err != nil {
		return c, fmt.Errorf("read what the clock was at the last handshake: %w", err)
	}
	c.kept = c.latest
	return c, nil
}

// good notes that the edge has just accepted the clock as it is.
func (c *handshakeClock) good() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latest = c.now()
	return c.keepLocked()
}

// goesOn notes the time while there is a session.
func (c *handshakeClock) goesOn() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.After(c.latest) {
		c.latest = now
	}
	return c.keepLocked()
}

func (c *handshakeClock) keepLocked() error {
	if ahead := c.latest.Sub(c.kept); ahead > -clockSlack && ahead < clockKeep {
		return nil
	}
	c.kept = c.latest // also if it fails: it is not tried without pause
	text, err := c.latest.UTC().Truncate(time.Second).MarshalText()
	if err == nil {
		err = c.dir.WriteFile(clockFile, text)
	}
	if err != nil {
		return fmt.Errorf("keep what the clock was at the last handshake: %w", err)
	}
	return nil
}

// behind is by how much the clock is behind of where it was; 0: it is not.
func (c *handshakeClock) behind() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.latest.Sub(c.now()); d > clockSlack {
		return d
	}
	return 0
}

// clockError says that the clock is behind.
type clockError struct {
	now time.Time
	by  time.Duration
}

func (e *clockError) Error() string {
	return fmt.Sprintf("clock: this machine's clock says %s, %v less than at its last handshake with the edge, which takes what comes now for a replay: set the clock right (or wait until it has caught up, or have the edge restarted)",
		e.now.UTC().Format(time.DateTime+" UTC"), e.by.Round(time.Second))
}

// check is nil, or a *clockError.
func (c *handshakeClock) check() error {
	if by := c.behind(); by > 0 {
		return &clockError{now: c.now(), by: by}
	}
	return nil
}
