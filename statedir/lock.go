package statedir

import "github.com/gofrs/flock"

// A Lock is held by one process at a time. It belongs to the kernel, so it is
// free the moment its holder ends, however it ends; its file stays.
type Lock struct {
	file *flock.Flock
}

// Lock takes the named lock without waiting. While it is held, by this process
// or another, the error is an [*Error] with [ErrLocked] in its chain.
func (d *Dir) Lock(name string) (*Lock, error) {
	path := d.Path(name)
	file := flock.New(path)
	ok, err := file.TryLock()
	if err != nil {
		return nil, Explain("lock", path, err)
	}
	if !ok {
		return nil, &Error{Path: d.path, Problem: "is in use by another wgexpose process (" + name + " is locked)",
			Fix: "stop that process, or name another directory with --state", Err: ErrLocked}
	}
	return &Lock{file: file}, nil
}

// Unlock gives the lock up. A second call does nothing.
func (l *Lock) Unlock() error { return l.file.Unlock() }
