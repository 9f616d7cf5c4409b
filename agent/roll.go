package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/statedir"
)

// A roll names the commands that run on a state directory. Each holds a lock
// of its own there, which the kernel frees however the command ends. A new
// owner reads whom to wait for: published without them, the tunnels of the
// others would be gone for a moment, rather than away.
type roll struct {
	dir  *statedir.Dir
	name string
	lock *statedir.Lock
}

const (
	rollPrefix = "command-"
	rollSuffix = ".lock"
)

// signOn puts this process on the roll.
func signOn(dir *statedir.Dir) (*roll, error) {
	const tries = 10
	for try := 1; ; try++ {
		r := &roll{dir: dir, name: rand.Text()}
		lock, err := dir.Lock(r.file())
		if err != nil && (try == tries || !errors.Is(err, statedir.ErrLocked)) {
			return nil, err
		}
		if err != nil {
			continue // an owner that looked whether anybody is behind the new file
		}
		if _, err := os.Stat(dir.Path(r.file())); err == nil {
			r.lock = lock
			return r, nil
		} else if try == tries || !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, lock.Unlock())
		}
		if err := lock.Unlock(); err != nil { // and swept it up
			return nil, err
		}
	}
}

func (r *roll) file() string { return rollPrefix + r.name + rollSuffix }

// signOff takes this process off the roll.
func (r *roll) signOff() error {
	return errors.Join(r.lock.Unlock(), remove(r.dir.Path(r.file())))
}

// others are the names of the other commands that run now. What ended ones
// left is swept up.
func (r *roll) others() (names []string, err error) {
	entries, err := os.ReadDir(r.dir.String())
	if err != nil {
		return nil, fmt.Errorf("read who else runs here: %w", err)
	}
	for _, entry := range entries {
		file := entry.Name()
		name, ours := strings.CutPrefix(strings.TrimSuffix(file, rollSuffix), rollPrefix)
		if !ours || !strings.HasSuffix(file, rollSuffix) || name == r.name {
			continue
		}
		lock, lerr := r.dir.Lock(file)
		if errors.Is(lerr, statedir.ErrLocked) {
			names = append(names, name)
			continue
		}
		if lerr == nil {
			lerr = errors.Join(lock.Unlock(), remove(r.dir.Path(file)))
		}
		err = errors.Join(err, lerr)
	}
	return names, err
}

// remove removes a file that another process may have removed.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// muster waits for guests. Its zero patience waits for nobody.
type muster struct {
	mu      sync.Mutex // guards missing and timer
	missing map[string]bool
	timer   *time.Timer
	all     chan struct{} // closed when all have come, or the patience is over
}

func newMuster(names []string, patience time.Duration) *muster {
	m := &muster{missing: make(map[string]bool, len(names)), all: make(chan struct{})}
	for _, name := range names {
		m.missing[name] = true
	}
	if len(names) == 0 {
		close(m.all)
		return m
	}
	m.mu.Lock() // the timer's function may be quicker than the assignment
	defer m.mu.Unlock()
	m.timer = time.AfterFunc(patience, m.end)
	return m
}

// arrived notes that a command has come, whether it was taken or refused.
func (m *muster) arrived(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.missing[name] {
		return
	}
	if delete(m.missing, name); len(m.missing) == 0 {
		m.endLocked()
	}
}

// end waits no longer.
func (m *muster) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked()
}

func (m *muster) endLocked() {
	if m.timer == nil {
		return
	}
	m.timer.Stop()
	m.timer = nil
	close(m.all)
}
