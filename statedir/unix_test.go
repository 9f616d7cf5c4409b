//go:build unix

package statedir_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/wgexpose/wgexpose/internal/smalldisk"
	"github.com/wgexpose/wgexpose/statedir"
)

func wantMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != want {
		t.Errorf("%s: mode %v, %v, want %v", path, info.Mode(), err, want)
	}
}

func TestModes(t *testing.T) {
	// Whatever a user's umask is.
	defer syscall.Umask(syscall.Umask(0))
	dir := open(t, filepath.Join(t.TempDir(), "state"))
	wantMode(t, dir.String(), 0o700)
	if err := dir.WriteFile("file", nil); err != nil {
		t.Fatal(err)
	}
	wantMode(t, dir.Path("file"), 0o600)
	// A file that was made by hand becomes private when it is written.
	if err := os.Chmod(dir.Path("file"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := dir.WriteFile("file", nil); err != nil {
		t.Fatal(err)
	}
	wantMode(t, dir.Path("file"), 0o600)
	lock, err := dir.Lock("test.lock")
	if err != nil {
		t.Fatal(err)
	}
	wantMode(t, dir.Path("test.lock"), 0o600)
	ln, err := dir.ListenUnix("test.sock")
	if err != nil {
		t.Fatal(err)
	}
	wantMode(t, dir.Path("test.sock"), 0o600)
	if err := errors.Join(ln.Close(), lock.Unlock()); err != nil {
		t.Fatal(err)
	}
}

func TestOpenToOthers(t *testing.T) {
	for _, mode := range []os.FileMode{0o755, 0o750, 0o701, 0o777, 0o720} {
		// Made ready for us, but empty.
		path := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		open(t, path)
		wantMode(t, path, 0o700)
		// Somebody's, with files in it.
		if err := os.WriteFile(filepath.Join(path, "theirs"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := statedir.Open(path)
		wantError(t, err, path, "is open to other users", fmt.Sprintf("%04o", mode), "chmod 700")
		wantMode(t, path, mode)
	}
	// A fresh volume.
	path := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(path, "lost+found"), 0o700), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

func TestOpenThroughALink(t *testing.T) {
	real := filepath.Join(t.TempDir(), "real")
	first := open(t, real)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if second := open(t, link); second.String() != first.String() {
		t.Fatalf("%s and %s are one directory", first, second)
	}
}

func TestFullFileSystem(t *testing.T) {
	dir := open(t, smalldisk.Mount(t, "size=64k,mode=700"))
	if err := dir.WriteFile("file", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	err := dir.WriteFile("file", make([]byte, 100<<10))
	wantError(t, err, dir.Path("file"), "is full", "free some")
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want ENOSPC in its chain", err)
	}
	if got, err := dir.ReadFile("file"); err != nil || string(got) != "kept" {
		t.Fatalf("%q, %v", got, err)
	}
	if names, err := os.ReadDir(dir.String()); err != nil || len(names) != 1 {
		t.Fatalf("left behind: %v, %v", names, err)
	}
	// What only reads works when nothing can be written at all.
	smalldisk.Fill(t, dir.String())
	if got, err := open(t, dir.String()).ReadFile("file"); err != nil || string(got) != "kept" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	path := smalldisk.Mount(t, "ro,mode=700")
	_, err := statedir.Open(path)
	wantError(t, err, path, "read-only", "--state")
	_, err = statedir.Open(filepath.Join(path, "new"))
	wantError(t, err, filepath.Join(path, "new"), "read-only", "--state")
}

// nobody is a user that owns nothing of these tests.
const nobody = 65534

// asNobody runs a helper as another user, and gives what it says on standard error.
func asNobody(t *testing.T, name, path string, env ...string) string {
	t.Helper()
	if os.Getuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("only root can become another user")
	}
	// The test binary itself, whose directory that user may not enter.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(append(os.Environ(), helperEnv+"="+name, pathEnv+"="+path), env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Skipf("cannot run as another user: %v", err)
	}
	if err == nil {
		t.Fatal("the helper has ended well")
	}
	return stderr.String()
}

// sharedDir is a directory with a short path, whatever $TMPDIR is.
func sharedDir(t *testing.T, mode os.FileMode) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "wg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNotWritable(t *testing.T) {
	shared := sharedDir(t, 0o755)
	theirs := filepath.Join(shared, "theirs")
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{theirs, filepath.Join(shared, "new"), filepath.Join(theirs, "new")} {
		got := asNobody(t, "lock", path)
		for _, word := range []string{path, "not accessible to this user", "permission denied", "run as the user that owns it", "--state"} {
			if !strings.Contains(got, word) {
				t.Errorf("%s: %q does not say %q", path, got, word)
			}
		}
	}
	ours := filepath.Join(shared, "ours")
	if err := errors.Join(os.Mkdir(ours, 0o500), os.Chown(ours, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	if got := asNobody(t, "lock", ours); !strings.Contains(got, ours) || !strings.Contains(got, "not accessible to this user") {
		t.Errorf("a directory without the right to write: %q", got)
	}
}
