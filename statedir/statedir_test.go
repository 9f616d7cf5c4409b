package statedir_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/statedir"
)

// wantError demands an *Error that names the path and holds the words.
func wantError(t *testing.T, err error, path string, words ...string) {
	t.Helper()
	var e *statedir.Error
	if !errors.As(err, &e) {
		t.Errorf("got %v, want an *Error of %s", err, path)
		return
	}
	if e.Path != path || e.Problem == "" || e.Fix == "" {
		t.Errorf("got %+v, want one of %s with a problem and what to do", e, path)
	}
	for _, word := range append(words, path) {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

func TestOpenMakesTheDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 { // it is there the second time
		dir := open(t, path)
		if dir.Path("x") != filepath.Join(dir.String(), "x") {
			t.Errorf("path %s of %s", dir.Path("x"), dir)
		}
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		t.Fatal(info, err)
	}
}

func TestOpenRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	dir := open(t, "state")
	t.Chdir(t.TempDir())
	if err := dir.WriteFile("x", nil); err != nil || !filepath.IsAbs(dir.String()) {
		t.Fatalf("%s: %v", dir, err)
	}
}

func TestOpenNotADirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := statedir.Open(file)
	wantError(t, err, file, "is not a directory", "--state")
	_, err = statedir.Open(filepath.Join(file, "below"))
	wantError(t, err, file, "is not a directory", "--state")
	if data, err := os.ReadFile(file); string(data) != "mine" {
		t.Fatal(err)
	}
	_, err = statedir.Open("")
	wantError(t, err, "", "no path", "--state")
}

func TestFiles(t *testing.T) {
	dir := open(t, t.TempDir())
	if _, err := dir.ReadFile("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a missing file: %v", err)
	}
	for _, text := range []string{"one", "", "two\x00\xff", strings.Repeat("long", 100_000), "3"} {
		if err := dir.WriteFile("x", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := dir.ReadFile("x"); err != nil || string(got) != text {
			t.Fatalf("got %.20q, %v, want %.20q", got, err, text)
		}
	}
	// Nothing is left lying about.
	if names, err := os.ReadDir(dir.String()); err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
	// A file that cannot be replaced stays, and leaves nothing either.
	if err := os.MkdirAll(dir.Path("taken/below"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := dir.WriteFile("taken", []byte("x")); err == nil {
		t.Fatal("a directory was replaced")
	}
	if names, err := os.ReadDir(dir.String()); err != nil || len(names) != 2 {
		t.Fatalf("%v, %v", names, err)
	}
}

// TestWriteFileSurvivesKill: the file is whole at any moment, and what was
// acknowledged is there.
func TestWriteFileSurvivesKill(t *testing.T) {
	dir := open(t, t.TempDir())
	for range 10 {
		child := startHelper(t, "write", dir.String())
		acked := 0
		for range 1 + rand.IntN(30) {
			acked++
			if line := child.line(t); line != strconv.Itoa(acked) {
				t.Fatalf("line %q, want %d", line, acked)
			}
			if _, err := dir.ReadFile("file"); err != nil {
				t.Fatal(err)
			}
		}
		acked += len(child.kill(t))
		got, err := dir.ReadFile("file")
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(content(acked)) && string(got) != string(content(acked+1)) {
			t.Fatalf("%d was acknowledged, and %.20q… is there", acked, got)
		}
	}
}

func TestLock(t *testing.T) {
	dir := open(t, t.TempDir())
	wantLocked := func() {
		t.Helper()
		_, err := dir.Lock("test.lock")
		if !errors.Is(err, statedir.ErrLocked) {
			t.Fatalf("%v, want ErrLocked", err)
		}
		wantError(t, err, dir.String(), "in use by another wgexpose process", "stop that process")
	}
	lock, err := dir.Lock("test.lock")
	if err != nil {
		t.Fatal(err)
	}
	wantLocked()
	if other, err := dir.Lock("other.lock"); err != nil {
		t.Errorf("another lock of the directory: %v", err)
	} else if err := other.Unlock(); err != nil {
		t.Error(err)
	}
	child := startHelper(t, "lock", dir.String())
	if line := child.line(t); line != "taken" {
		t.Fatalf("another process says %s, want taken", line)
	}
	child.kill(t)
	for range 2 {
		if err := lock.Unlock(); err != nil {
			t.Fatal(err)
		}
	}

	// Held by another, which is killed: free at once.
	for range 5 {
		child := startHelper(t, "lock", dir.String())
		if line := child.line(t); line != "locked" {
			t.Fatalf("another process says %s, want locked", line)
		}
		wantLocked()
		child.kill(t)
		lock, err := dir.Lock("test.lock")
		if err != nil {
			t.Fatalf("after the holder was killed: %v", err)
		}
		if err := lock.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	dir := open(t, t.TempDir())
	path := dir.Path("version")
	wantFile := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Fatalf("the file holds %q, %v, want %q", got, err, want)
		}
	}
	for range 2 {
		if err := dir.CheckVersion(2); err != nil {
			t.Fatal(err)
		}
		wantFile("2\n")
	}
	// An older one stays until its files are brought up to date.
	if err := dir.CheckVersion(3); err != nil {
		t.Fatal(err)
	}
	wantFile("2\n")
	if err := dir.SetVersion(3); err != nil {
		t.Fatal(err)
	}
	wantFile("3\n")

	err := dir.CheckVersion(2)
	var version *statedir.VersionError
	if !errors.As(err, &version) || version.Found != 3 || version.Supported != 2 || version.Path != path {
		t.Fatalf("%v, want a *VersionError", err)
	}
	for _, word := range []string{path, "version 3", "up to 2", "newer wgexpose"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
	wantFile("3\n")

	for _, damaged := range []string{"", "\n", "two", "0", "-1", "+1", "1.0", "1 2", "0x1", "99999999999999999999", strings.Repeat("\x00", 4096)} {
		if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		wantError(t, dir.CheckVersion(2), path, "is damaged", "restore it from a copy")
		wantFile(damaged)
	}
	for text, good := range map[string]bool{"2": true, "1\r\n": true, " 2 \n": true, "002": true, "7": false} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := dir.CheckVersion(2); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzCheckVersion(f *testing.F) {
	for _, seed := range []string{"1\n", "2", "", "-1", "1e9", "999999999", "\x00"} {
		f.Add([]byte(seed))
	}
	path := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := open(t, path)
		if err := os.WriteFile(dir.Path("version"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		err := dir.CheckVersion(1)
		var damaged *statedir.Error
		var newer *statedir.VersionError
		if err != nil && !errors.As(err, &damaged) && !errors.As(err, &newer) {
			t.Fatalf("%q: %v", data, err)
		}
		if got, rerr := os.ReadFile(dir.Path("version")); rerr != nil || string(got) != string(data) {
			t.Fatalf("%q was rewritten as %q, %v", data, got, rerr)
		}
	})
}

func TestDefaults(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	t.Setenv("AppData", filepath.Join(home, "AppData"))
	state := filepath.Join(home, "xdg")
	t.Setenv("XDG_STATE_HOME", state)
	if got, err := statedir.AgentDefault(); err != nil || got != filepath.Join(state, "wgexpose") {
		t.Errorf("agent: %s, %v", got, err)
	}
	got, err := statedir.EdgeDefault()
	want := filepath.Join(state, "wgexpose-edge")
	if os.Geteuid() == 0 {
		want = "/var/lib/wgexpose"
	}
	if err != nil || got != want {
		t.Errorf("edge: %s, %v, want %s", got, err, want)
	}
	// A relative one does not count.
	t.Setenv("XDG_STATE_HOME", "state")
	if got, err := statedir.AgentDefault(); err != nil || !strings.HasPrefix(got, home) || got == filepath.Join(state, "wgexpose") {
		t.Errorf("agent: %s, %v, want one in %s", got, err, home)
	}
}
