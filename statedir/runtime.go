package statedir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// shortSocketPath makes a path from the state directory's: the same directory
// and name give the same path, in the first runtime directory that will do.
func (d *Dir) shortSocketPath(name string) (string, error) {
	sum := sha256.Sum256([]byte(d.path))
	file := hex.EncodeToString(sum[:8]) + "-" + name
	var why error
	for _, dir := range runtimeDirs() {
		path := filepath.Join(dir, file)
		if len(path) > maxSocketPath {
			why = errors.Join(why, fmt.Errorf("%s: still longer than %d bytes", path, maxSocketPath))
			continue
		}
		if err := checkRuntimeParent(filepath.Dir(dir), d.path); err != nil {
			why = errors.Join(why, err)
			continue
		}
		return path, nil
	}
	return "", &Error{Path: d.path, Problem: "is a path too long for a Unix socket, and no short private directory serves instead",
		Fix: "name a state directory with a shorter path", Err: why}
}

// runtimeDirs lists where sockets may lie, best first. The last one does not
// depend on the environment.
func runtimeDirs() []string {
	var dirs []string
	if run := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		dirs = append(dirs, filepath.Join(run, "wgexpose"))
	}
	own := "wgexpose"
	if uid := os.Geteuid(); uid >= 0 { // -1 on Windows, where %TMP% is the user's own
		own = fmt.Sprintf("wgexpose-%d", uid)
	}
	dirs = append(dirs, filepath.Join(os.TempDir(), own))
	if os.PathSeparator == '/' {
		dirs = append(dirs, filepath.Join("/tmp", own))
	}
	return dirs
}

// makeRuntimeDir makes a runtime directory, or accepts the one that is there.
func makeRuntimeDir(dir, state string) error {
	if err := checkRuntimeParent(filepath.Dir(dir), state); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return Explain("make runtime directory", dir, err)
	}
	return checkRuntimeDir(dir, state)
}

// checkRuntimeDir accepts a real directory of ours that nobody else can enter.
//
// Anybody may make /tmp/wgexpose-1000 before we do, as a directory of their own
// or as a link to one, and serve a socket in it: a command would then hand an
// invite to a stranger, and a stranger could drive the edge. Once the directory
// is ours, the sticky bit of /tmp keeps it in place, and 0700 keeps its inside.
// A missing directory satisfies errors.Is(err, fs.ErrNotExist).
func checkRuntimeDir(dir, state string) error {
	if err := checkRuntimeParent(filepath.Dir(dir), state); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		return Explain("open runtime directory", dir, err)
	}
	unsafe := func(problem string) error {
		return &Error{Path: dir, Problem: problem, Fix: "another user may have made it to listen in; remove it, " +
			"or set XDG_RUNTIME_DIR to a private directory", Err: fs.ErrPermission}
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return unsafe("is a symbolic link, where a private directory is needed")
	case !info.IsDir():
		return unsafe("is not a directory")
	case !ownedByUs(info, state):
		return unsafe("belongs to another user")
	case !isPrivate(info):
		return unsafe(fmt.Sprintf("is open to other users (mode %04o)", info.Mode().Perm()))
	}
	return nil
}

// checkRuntimeParent accepts a directory in which nobody else can rename what
// is ours: of root or of us, and writable by others only with the sticky bit.
// A missing one satisfies errors.Is(err, fs.ErrNotExist).
func checkRuntimeParent(dir, state string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		return Explain("open runtime directory", dir, err)
	}
	if !info.IsDir() {
		return &Error{Path: dir, Problem: "is not a directory", Fix: "set XDG_RUNTIME_DIR to a private directory", Err: fs.ErrInvalid}
	}
	if !ownedByRoot(info) && !ownedByUs(info, state) || !onlyOwnerRenames(info) {
		return &Error{Path: dir, Problem: "lets other users replace what is in it", Fix: "set XDG_RUNTIME_DIR to a private directory", Err: fs.ErrPermission}
	}
	return nil
}
