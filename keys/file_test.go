package keys

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func writeKey(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.key")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // not lessened by the umask
		t.Fatal(err)
	}
	return path
}

// onlyFile checks that a directory holds one file, and nothing left behind.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("the directory holds %v", entries)
	}
}

func TestLoadOrCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.key")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Load of no file: %v", err)
	}
	made, err := LoadOrCreate(path)
	if err != nil {
		t.Fatal(err)
	}
	onlyFile(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("the file has mode %v", info.Mode())
	}
	content, err := os.ReadFile(path)
	if err != nil || string(content) != text(made)+"\n" {
		t.Errorf("the file is not what wg genkey would write: %d bytes, %v", len(content), err)
	}
	for name, load := range map[string]func(string) (Private, error){"Load": Load, "LoadOrCreate": LoadOrCreate} {
		if got, err := load(path); err != nil || !got.Equal(made) {
			t.Errorf("%s gives another key: %v", name, err)
		}
	}
}

func TestLoadOrCreateTogether(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "edge.key")
		got := make([]Private, 16)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() {
				<-start
				var err error
				if got[i], err = LoadOrCreate(path); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		for i := range got {
			if got[i].IsZero() || !got[i].Equal(got[0]) {
				t.Fatal("two callers got different keys")
			}
		}
		if stored, err := Load(path); err != nil || !stored.Equal(got[0]) {
			t.Fatalf("the file has another key than the callers got: %v", err)
		}
		onlyFile(t, path)
	}
}

// TestCreateNeverReplaces: with a file that appears after the first look, by
// either way of naming the new one.
func TestCreateNeverReplaces(t *testing.T) {
	for name, rename := range map[string]func(string, string) error{"renameNew": renameNew, "linkNew": linkNew} {
		path := writeKey(t, "old", 0o600)
		tmp := filepath.Join(filepath.Dir(path), "new")
		if err := os.WriteFile(tmp, []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := rename(tmp, path); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s over a file: %v", name, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "old" {
			t.Errorf("%s: the file now has %q, %v", name, b, err)
		}
		other := path + ".2"
		if err := rename(tmp, other); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := os.ReadFile(other); err != nil || string(b) != "new" {
			t.Errorf("%s: the new file has %q, %v", name, b, err)
		}
	}
	path := writeKey(t, "old", 0o600)
	if err := create(filepath.Dir(path), path, mustNew(t)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over a file: %v", err)
	}
	onlyFile(t, path)
}

func TestLoadOrCreateWithoutDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "edge.key")
	_, err := LoadOrCreate(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "create key "+path) {
		t.Errorf("the error is %v", err)
	}
}

func TestLoadRefusesOpenFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing on Windows")
	}
	content := text(mustNew(t)) + "\n"
	for _, mode := range []os.FileMode{0o604, 0o640, 0o644, 0o660, 0o602, 0o610, 0o666, 0o777} {
		path := writeKey(t, content, mode)
		for name, load := range map[string]func(string) (Private, error){"Load": Load, "LoadOrCreate": LoadOrCreate} {
			key, err := load(path)
			var fe *FileError
			if !errors.Is(err, ErrPermissions) || !errors.As(err, &fe) || fe.Path != path || !key.IsZero() {
				t.Fatalf("%s of mode %v: %v", name, mode, err)
			}
		}
	}
	for _, mode := range []os.FileMode{0o600, 0o400, 0o700} {
		if _, err := Load(writeKey(t, content, mode)); err != nil {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

// TestChmodCommandWorks: the command in the error, run as it stands, mends it.
func TestChmodCommandWorks(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing on Windows")
	}
	for _, dir := range []string{"plain", "with space", "it's $HOME & \"co\"", "-rf", "*", "~", "#x", "ünï"} {
		path := filepath.Join(t.TempDir(), dir, "edge.key")
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text(mustNew(t))), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if err == nil {
			t.Fatal("an open file was read")
		}
		_, command, ok := strings.Cut(err.Error(), "run: ")
		if !ok {
			t.Fatalf("the error names no command: %v", err)
		}
		if out, err := exec.Command("/bin/sh", "-c", command).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", command, err, out)
		}
		if _, err := Load(path); err != nil {
			t.Errorf("after %s: %v", command, err)
		}
	}
	if got := shellQuote("-x.key"); got != "'./-x.key'" {
		t.Errorf("a path like an option is quoted as %s", got)
	}
}

func TestLoadCorrupt(t *testing.T) {
	key := text(mustNew(t))
	for name, c := range map[string]struct{ content, want string }{
		"empty":       {"", "is empty"},
		"white space": {"\n\n", "is empty"},
		"cut off":     {key[:20], "is damaged (private key has 20 characters"},
		"zeros":       {strings.Repeat("\x00", 45), "is damaged"},
		"two lines":   {key + "\n" + key + "\n", "is damaged (private key has 89 characters"},
		"a PEM file":  {"-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("A", 300), "longer than 256 bytes"},
	} {
		path := writeKey(t, c.content, 0o600)
		for _, load := range []func(string) (Private, error){Load, LoadOrCreate} {
			_, err := load(path)
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "backup") {
				t.Errorf("%s: the error is %v", name, err)
			}
			if err != nil && strings.Contains(err.Error(), key[:20]) {
				t.Errorf("%s: the error repeats the content: %v", name, err)
			}
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != c.content {
			t.Errorf("%s: the file was changed: %v", name, err)
		}
	}
	if _, err := Load(writeKey(t, "  "+key+" \r\n\n", 0o600)); err != nil {
		t.Errorf("white space around the key: %v", err)
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a directory: %v", err)
	}
}
