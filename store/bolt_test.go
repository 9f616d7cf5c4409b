package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/store/storetest"
)

func TestBolt(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open {
		path := filepath.Join(t.TempDir(), "edge.db")
		return func() (store.Store, error) { return store.OpenBolt(path) }
	})
}

func TestOpenBoltMakesAPrivateFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "edge.db")
	s := openBolt(t, path)
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Fatalf("the directory has %v, %v, want the one file", names, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	wantMode := func() {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("mode %v, %v, want 0600", info.Mode(), err)
		}
	}
	wantMode()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A copy that somebody restored.
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	openBolt(t, path)
	wantMode()
}

func TestOpenBoltLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.db")
	s := openBolt(t, path)
	wantLocked := func() {
		t.Helper()
		_, err := store.OpenBolt(path)
		if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), path) {
			t.Fatalf("open of a store that is open: %v, want ErrLocked and the path", err)
		}
	}
	wantLocked()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	other := startHelper(t, "hold", path)
	if line, err := other.line(); line != "open" {
		t.Fatalf("%q, %v", line, err)
	}
	wantLocked()
	other.kill(t)
	openBolt(t, path) // at once
}

func TestOpenBoltErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := store.OpenBolt(filepath.Join(dir, "none", "edge.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
	_, err := store.OpenBolt(dir)
	if corrupt := (*store.CorruptError)(nil); err == nil || errors.As(err, &corrupt) {
		t.Errorf("a directory in its place: %v, want an error that is none of damage", err)
	}
	path := filepath.Join(dir, "secret.db")
	openBolt(t, path).Close()
	if os.Getuid() == 0 || runtime.GOOS == "windows" {
		t.Log("root may read everything")
		return
	}
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenBolt(path); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file that may not be read: %v", err)
	}
}

// BenchmarkCommit is one small change after the other, and as many at once as
// there are agents that come back after an edge's restart.
func BenchmarkCommit(b *testing.B) {
	value := []byte(strings.Repeat("x", 400))
	b.Run("alone", func(b *testing.B) {
		s := openBolt(b, filepath.Join(b.TempDir(), "edge.db"))
		for b.Loop() {
			if _, err := s.Commit(b.Context(), store.Op{Key: "node/1", Value: value, Any: true}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("together", func(b *testing.B) {
		s := openBolt(b, filepath.Join(b.TempDir(), "edge.db"))
		b.SetParallelism(100)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Commit(b.Context(), store.Op{Key: "node/1", Value: value, Any: true}); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
