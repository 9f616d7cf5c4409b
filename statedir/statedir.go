// Package statedir keeps one process's files in one private directory:
//
//	dir, err := statedir.Open("/var/lib/wgexpose")
//	lock, err := dir.Lock("edge.lock")        // ErrLocked: another process is at work here
//	defer lock.Unlock()
//	err = dir.CheckVersion(1)                 // *VersionError: written by a newer program
//	err = dir.WriteFile("edge.json", data)    // whole or not at all, on disk when it returns
//	ln, err := dir.ListenUnix("edge.sock")    // for the commands that talk to this process
//
// The directory has mode 0700 and its files and sockets 0600. Nothing in it
// outlives a killed process in a way that blocks the next one: locks belong to
// the kernel, files are replaced and never edited in place, and a socket that
// was left behind is removed by the next holder of the lock.
//
// Every error that a user can do something about is an [*Error], which names
// the path, what is wrong with it, and what to do.
package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A Dir is an open state directory. It holds no resources, so there is
// nothing to close, and its methods are safe for concurrent use.
type Dir struct {
	path string // absolute, and its symbolic links are resolved
}

// Open makes the directory with mode 0700 where it is missing, parents
// included, and checks that this process can write to it and that nobody else
// can look into it.
//
// An existing directory that group or others may enter is refused when there
// is anything in it: the path may be one that other programs share (a home
// directory, /tmp), so its mode is not ours to change. An empty one is set to 0700.
// Modes are not looked at on Windows, where a profile's access list protects it.
func Open(path string) (*Dir, error) {
	if path == "" {
		return nil, &Error{Problem: "no path is given", Fix: "name a directory with --state"}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		// MkdirAll answers ENOTDIR for a file in the way, with the path of that file.
		if pe := (*fs.PathError)(nil); errors.As(err, &pe) && errors.Is(err, syscall.ENOTDIR) {
			return nil, &Error{Path: pe.Path, Problem: "is not a directory",
				Fix: "move it away, or name another directory with --state", Err: err}
		}
		return nil, Explain("make state directory", abs, err)
	}
	// Resolved, one directory has one name in every process; SocketPath needs that.
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return nil, Explain("open state directory", abs, err)
	}
	if err := checkPrivate(real); err != nil {
		return nil, err
	}
	if err := checkWritable(real); err != nil {
		return nil, Explain("open state directory", real, err)
	}
	return &Dir{path: real}, nil
}

// Path gives the absolute path of a file of the directory. The name is one
// path element, chosen by the program and never by a user.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// String is the directory's own absolute path.
func (d *Dir) String() string { return d.path }

// isEmpty tells whether nothing of anybody is in the directory. The lost+found
// of a freshly mounted volume is nobody's.
func isEmpty(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	names, err := f.Readdirnames(2)
	if cerr := f.Close(); cerr != nil {
		return false, cerr
	}
	if len(names) == 0 || len(names) == 1 && names[0] == "lost+found" {
		return true, nil
	}
	return false, err
}
