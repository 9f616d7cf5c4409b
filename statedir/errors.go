package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

var (
	// ErrLocked is in the chain of what [Dir.Lock] returns while another
	// process, or another part of this one, holds the lock.
	ErrLocked = errors.New("locked by another process")

	// ErrNotRunning is in the chain of what [Dir.DialUnix] returns when no
	// process listens on the socket.
	ErrNotRunning = errors.New("no process is listening")
)

// An Error is something about a path that its owner can put right.
type Error struct {
	Path    string // of the directory or file that is meant; empty when none is named
	Problem string // what is wrong: "is not a directory"
	Fix     string // what to do about it
	Err     error  // the cause, or nil
}

// Error reads: "/var/lib/wgexpose is not writable by this user: run …".
func (e *Error) Error() string {
	s := e.Problem
	if e.Path != "" {
		s = e.Path + " " + s
	}
	return "state directory: " + s + ": " + e.Fix
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// A VersionError says that the files were written by a newer program. They are
// left as they are.
type VersionError struct {
	Path      string // of the version file
	Found     int    // the version that it names
	Supported int    // the newest that this program knows
}

// Error names both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("state directory: %s says version %d, and this program knows up to %d: "+
		"use the newer wgexpose that wrote it, or name another directory with --state", e.Path, e.Found, e.Supported)
}

// Explain turns the causes that a user can remove into an [*Error] for the
// path, and wraps all others with the operation. It is for those, too, who write
// files of the directory by themselves. It is nil for nil.
func Explain(op, path string, err error) error {
	e := &Error{Path: path, Err: err}
	switch {
	case err == nil:
		return nil
	case isFull(err):
		e.Problem = "cannot be written, its file system is full, in space or in inodes"
		e.Fix = "free some there; what was stored before is unchanged"
	case isLimit(err):
		e.Problem = "cannot be written, a limit is reached (" + errno(err) + ")"
		e.Fix = "free some space there, or raise the limit; what was stored before is unchanged"
	case errors.Is(err, syscall.EROFS):
		e.Problem = "is on a read-only file system"
		e.Fix = "make that writable, or name another directory with --state"
	case errors.Is(err, fs.ErrPermission):
		e.Problem = "is not accessible to this user (" + errno(err) + ")"
		e.Fix = "run as the user that owns it, or name another directory with --state"
	default:
		return fmt.Errorf("%s %s: %w", op, path, err)
	}
	return e
}

// errno is the system's own words, without the path that is named already.
func errno(err error) string {
	var n syscall.Errno
	if errors.As(err, &n) {
		return n.Error()
	}
	return err.Error()
}
