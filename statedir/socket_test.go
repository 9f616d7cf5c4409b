//go:build unix

package statedir_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/statedir"
)

const socket = "test.sock"

// longDir has a path that is too long for a socket, and an environment whose
// runtime directories are the test's own.
func longDir(t *testing.T) *statedir.Dir {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", sharedDir(t, 0o700))
	return open(t, filepath.Join(t.TempDir(), strings.Repeat("long", 25)))
}

func wantNotRunning(t *testing.T, dir *statedir.Dir) {
	t.Helper()
	if conn, err := dir.DialUnix(t.Context(), socket); !errors.Is(err, statedir.ErrNotRunning) {
		t.Fatalf("%v, %v, want ErrNotRunning", conn, err)
	}
}

func wantAnswer(t *testing.T, dir *statedir.Dir) {
	t.Helper()
	conn, err := dir.DialUnix(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestSocket(t *testing.T) {
	for _, test := range []struct {
		name string
		dir  func(t *testing.T) *statedir.Dir
	}{
		{"short", func(t *testing.T) *statedir.Dir { return open(t, t.TempDir()) }},
		{"long", longDir},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := test.dir(t)
			before, err := dir.SocketPath(socket)
			if err != nil || len(before) > 100 || !filepath.IsAbs(before) {
				t.Fatalf("path %q, %v", before, err)
			}
			if long := len(dir.Path(socket)) > 100; long == (before == dir.Path(socket)) {
				t.Fatalf("%s for %s", before, dir.Path(socket))
			}
			wantNotRunning(t, dir)
			for range 3 {
				child := startHelper(t, "listen", dir.String())
				if path := child.line(t); path != before {
					t.Fatalf("another process listens on %s, want %s", path, before)
				}
				wantMode(t, before, 0o600)
				wantMode(t, filepath.Dir(before), 0o700)
				wantAnswer(t, dir)
				child.kill(t)
				// Its socket is still there, and in nobody's way.
				if _, err := os.Lstat(before); err != nil {
					t.Fatal(err)
				}
				wantNotRunning(t, dir)
			}
			ln, err := dir.ListenUnix(socket)
			if err != nil {
				t.Fatal(err)
			}
			if err := ln.Close(); err != nil {
				t.Fatal(err)
			}
			wantNotRunning(t, dir)
		})
	}
}

// TestSocketWhateverTheEnvironment: a service and a login shell know different
// runtime directories, and must meet.
func TestSocketWhateverTheEnvironment(t *testing.T) {
	dir := longDir(t)
	run := sharedDir(t, 0o700)
	child := startHelper(t, "listen", dir.String(), "XDG_RUNTIME_DIR="+run)
	path := child.line(t)
	if !strings.HasPrefix(path, run) {
		t.Fatalf("it listens on %s, want a path in %s", path, run)
	}
	wantAnswer(t, dir)
	t.Setenv("XDG_RUNTIME_DIR", sharedDir(t, 0o700))
	wantAnswer(t, dir)
	if got, err := dir.SocketPath(socket); err != nil || got != path {
		t.Fatalf("%s, %v, want %s", got, err, path)
	}
	child.kill(t)
	// The runtime directory goes with the login session; the next one listens elsewhere.
	if err := os.RemoveAll(run); err != nil {
		t.Fatal(err)
	}
	wantNotRunning(t, dir)
	child = startHelper(t, "listen", dir.String())
	child.line(t)
	wantAnswer(t, dir)
	child.kill(t)
}

func TestSocketPathsDiffer(t *testing.T) {
	dir := longDir(t)
	other := open(t, dir.String()+"x")
	seen := map[string]bool{}
	for _, d := range []*statedir.Dir{dir, other} {
		for _, name := range []string{"a.sock", "b.sock"} {
			path, err := d.SocketPath(name)
			if err != nil || seen[path] {
				t.Errorf("%s of %s: %s, %v", name, d, path, err)
			}
			seen[path] = true
		}
	}
	again, err := open(t, dir.String()).SocketPath("a.sock")
	if err != nil || !seen[again] {
		t.Errorf("%s, %v", again, err)
	}
}

func TestSocketDamagedPointer(t *testing.T) {
	dir := longDir(t)
	want, err := dir.SocketPath(socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, pointer := range []string{"", "\n", "relative", "/" + strings.Repeat("x", 200)} {
		if err := dir.WriteFile(socket+".path", []byte(pointer)); err != nil {
			t.Fatal(err)
		}
		if got, err := dir.SocketPath(socket); err != nil || got != want {
			t.Errorf("with %q: %s, %v, want %s", pointer, got, err, want)
		}
	}
}

func TestSocketInTheWay(t *testing.T) {
	dir := open(t, t.TempDir())
	if err := dir.WriteFile(socket, []byte("mine")); err != nil {
		t.Fatal(err)
	}
	_, err := dir.ListenUnix(socket)
	wantError(t, err, dir.Path(socket), "in the way", "move it away")
	if got, err := dir.ReadFile(socket); err != nil || string(got) != "mine" {
		t.Fatal(err)
	}
}

// TestSocketAttacks: whoever may write to a common directory prepares what we
// are about to use. We neither listen nor connect there.
func TestSocketAttacks(t *testing.T) {
	evil := sharedDir(t, 0o777) // all of what is in it is reachable
	for name, prepare := range map[string]func(runtimeDir string) error{
		"a link to their directory": func(d string) error { return os.Symlink(evil, d) },
		"a link to our own":         func(d string) error { return os.Symlink(filepath.Dir(d), d) },
		"a dangling link":           func(d string) error { return os.Symlink(filepath.Join(evil, "none"), d) },
		"open to all":               func(d string) error { return errors.Join(os.Mkdir(d, 0o777), os.Chmod(d, 0o777)) },
		"open to look into":         func(d string) error { return errors.Join(os.Mkdir(d, 0o755), os.Chmod(d, 0o755)) },
		"a file":                    func(d string) error { return os.WriteFile(d, nil, 0o600) },
		"theirs": func(d string) error {
			if os.Getuid() != 0 {
				return os.Symlink(evil, d)
			}
			return errors.Join(os.Mkdir(d, 0o700), os.Chown(d, nobody, nobody))
		},
	} {
		dir := longDir(t)
		path, err := dir.SocketPath(socket)
		if err != nil {
			t.Fatal(err)
		}
		runtimeDir := filepath.Dir(path)
		if err := prepare(runtimeDir); err != nil {
			t.Fatal(err)
		}
		// They listen already, wherever they can.
		trap, trapErr := net.Listen("unix", path)
		_, err = dir.ListenUnix(socket)
		wantError(t, err, runtimeDir, "XDG_RUNTIME_DIR")
		conn, err := dir.DialUnix(context.Background(), socket)
		if err == nil {
			conn.Close()
			t.Errorf("%s: connected to it", name)
		}
		wantError(t, err, runtimeDir, "XDG_RUNTIME_DIR")
		if trapErr == nil {
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("%s: their socket was removed: %v", name, err)
			}
			trap.Close()
		}
	}
}

// TestSocketUnsafeParent: where others may rename what is ours, we put nothing.
func TestSocketUnsafeParent(t *testing.T) {
	for mode, safe := range map[os.FileMode]bool{
		0o777:                 false,
		0o770:                 false,
		0o777 | os.ModeSticky: true,
		0o755:                 true,
		0o700:                 true,
	} {
		dir := longDir(t)
		run := sharedDir(t, mode)
		t.Setenv("XDG_RUNTIME_DIR", run)
		path, err := dir.SocketPath(socket)
		if err != nil || strings.HasPrefix(path, run) != safe {
			t.Errorf("mode %v: %s, %v, want one in %s: %v", mode, path, err, run, safe)
		}
		// A pointer of earlier does not make it safe.
		if err := dir.WriteFile(socket+".path", []byte(fmt.Sprintf("%s/wgexpose/x-%s\n", run, socket))); err != nil {
			t.Fatal(err)
		}
		ln, err := dir.ListenUnix(socket)
		if err != nil {
			t.Errorf("mode %v: %v", mode, err)
			continue
		}
		if strings.HasPrefix(ln.Addr().String(), run) != safe {
			t.Errorf("mode %v: listens on %s", mode, ln.Addr())
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSocketOfAnotherUser: root may talk to a user's process, whose runtime
// directory is the user's; users do not talk to each other.
func TestSocketOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make files of another user")
	}
	dir := longDir(t)
	path, err := dir.SocketPath(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.Chown(filepath.Dir(path), nobody, nobody), os.Chown(dir.String(), nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := dir.DialUnix(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
