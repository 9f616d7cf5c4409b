package statedir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// maxSocketPath is the longest path that a socket gets. sun_path holds 108
// bytes on Linux (unix(7)), 104 on macOS, with a closing zero.
const maxSocketPath = 100

// pointerSuffix names the file in which a listener leaves the path of a socket
// that does not fit into the directory.
const pointerSuffix = ".path"

// SocketPath gives the path of the directory's named Unix socket: the file
// itself, or, where that path is too long for a socket, one in a short private
// runtime directory. Once a process has listened, all processes get its path,
// whatever their environment says about runtime directories.
func (d *Dir) SocketPath(name string) (string, error) {
	if path := d.Path(name); len(path) <= maxSocketPath {
		return path, nil
	}
	data, err := d.ReadFile(name + pointerSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return d.shortSocketPath(name)
	}
	if err != nil {
		return "", err
	}
	path := strings.TrimSuffix(string(data), "\n")
	if !filepath.IsAbs(path) || len(path) > maxSocketPath {
		// Nothing but damage writes this; the next listener writes it anew.
		return d.shortSocketPath(name)
	}
	return path, nil
}

// ListenUnix listens on the named socket, mode 0600. The caller must hold the
// directory's lock for as long as it listens: a socket that is there already is
// taken for one that a dead process left behind, and removed.
func (d *Dir) ListenUnix(name string) (net.Listener, error) {
	path, err := d.listenPath(name)
	if err != nil {
		return nil, err
	}
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, Explain("listen on", path, err)
	}
	// Until here the directory's mode alone keeps others out, and it does.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(Explain("listen on", path, err), ln.Close())
	}
	return ln, nil
}

// DialUnix connects to the named socket. When nobody listens there, the error
// has [ErrNotRunning] in its chain.
func (d *Dir) DialUnix(ctx context.Context, name string) (net.Conn, error) {
	path, err := d.SocketPath(name)
	if err != nil {
		return nil, err
	}
	if path != d.Path(name) {
		err := checkRuntimeDir(filepath.Dir(path), d.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("connect to %s: %w", path, ErrNotRunning)
		}
		if err != nil {
			return nil, err
		}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		if isRefused(err) || errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("connect to %s: %w", path, ErrNotRunning)
		}
		return nil, Explain("connect to", path, err)
	}
	return conn, nil
}

// listenPath gives SocketPath's answer, made ready: for a short path its
// directory exists and is private, and the pointer names it.
func (d *Dir) listenPath(name string) (string, error) {
	path, err := d.SocketPath(name)
	if err != nil || path == d.Path(name) {
		return path, err
	}
	if err := makeRuntimeDir(filepath.Dir(path), d.path); err != nil {
		// The pointer may name a directory of an earlier login or boot.
		short, serr := d.shortSocketPath(name)
		if serr != nil || short == path {
			return "", err
		}
		path = short
		if err := makeRuntimeDir(filepath.Dir(path), d.path); err != nil {
			return "", err
		}
	}
	return path, d.WriteFile(name+pointerSuffix, []byte(path+"\n"))
}

// removeSocket makes way for a socket, and for nothing else.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return Explain("listen on", path, err)
	}
	if info.Mode().IsRegular() || info.IsDir() {
		return &Error{Path: path, Problem: "is in the way of a socket", Fix: "move it away", Err: fs.ErrExist}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Explain("listen on", path, err)
	}
	return nil
}
