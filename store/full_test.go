//go:build unix

package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/wgexpose/wgexpose/internal/smalldisk"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/store"
)

// fillToTheLimit commits until no file may grow any more, goes on reading, and
// commits again once it may.
func fillToTheLimit(path string) error {
	ctx := context.Background()
	s, err := store.OpenBolt(path)
	if err != nil {
		return err
	}
	defer s.Close()
	// The kernel's default answer to too large a file is to end the process.
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	tight := limit
	tight.Cur = 300 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &tight); err != nil {
		return err
	}
	stored, err := fill(ctx, s)
	if err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if err := goOn(ctx, s, stored); err != nil {
		return err
	}
	fmt.Println(stored + 1)
	return nil
}

// fill commits records until there is no space for another one, and gives the
// number of those that were acknowledged.
func fill(ctx context.Context, s store.Store) (int, error) {
	for n := 0; ; n++ {
		_, err := s.Commit(ctx, fullOp(n))
		if err == nil && n < 100_000 {
			continue
		}
		if !isFull(err) || errors.Is(err, store.ErrBroken) {
			return 0, fmt.Errorf("after %d commits: %v, want what to do about a full disk", n, err)
		}
		if n < 10 {
			return 0, fmt.Errorf("%w after %d commits already", err, n)
		}
		// It stays so, and says so, and what is stored stays too.
		for range 3 {
			if _, err := s.Commit(ctx, fullOp(n)); !isFull(err) {
				return 0, fmt.Errorf("once more: %v, want what to do about a full disk", err)
			}
		}
		return n, wantFull(ctx, s, n)
	}
}

// isFull tells whether an error says what happened, and what to do.
func isFull(err error) bool {
	var state *statedir.Error
	return errors.As(err, &state) && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EFBIG)) && strings.Contains(state.Fix, "free some")
}

// goOn commits one more, now that there is space.
func goOn(ctx context.Context, s store.Store, stored int) error {
	if _, err := s.Commit(ctx, fullOp(stored)); err != nil {
		return fmt.Errorf("with space again: %w", err)
	}
	return wantFull(ctx, s, stored+1)
}

func fullOp(n int) store.Op {
	return store.Op{Key: fmt.Sprintf("k/%06d", n), Value: []byte(strings.Repeat(strconv.Itoa(n), 300))}
}

// wantFull demands that exactly the first n records are there.
func wantFull(ctx context.Context, s store.Store, n int) error {
	entries, rev, err := s.List(ctx, "")
	if err != nil {
		return err
	}
	if len(entries) != n || rev != store.Revision(n) {
		return fmt.Errorf("%d entries at revision %d, want %d", len(entries), rev, n)
	}
	for i, e := range entries {
		if op := fullOp(i); e.Key != op.Key || string(e.Value) != string(op.Value) {
			return fmt.Errorf("%s is %.20q…", e.Key, e.Value)
		}
	}
	return nil
}

func TestBoltFileLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.db")
	child := startHelper(t, "fill", path)
	line, err := child.line()
	if err != nil {
		t.Fatal("the child has failed")
	}
	if err := child.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	if err := wantFull(t.Context(), openBolt(t, path), n); err != nil {
		t.Fatal(err)
	}
}

// TestBoltDiskFull fills a whole file system, which takes root and Linux.
func TestBoltDiskFull(t *testing.T) {
	dir := smalldisk.Mount(t, "size=1m")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 256<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "edge.db")
	s, err := store.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := fill(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	// A restart on a full disk finds everything.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = store.OpenBolt(path); err != nil {
		t.Fatal(err)
	}
	if err := wantFull(t.Context(), s, stored); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), fullOp(stored)); !isFull(err) {
		t.Fatalf("%v, want what to do about a full disk", err)
	}
	// A new store cannot be made, and leaves nothing behind.
	smalldisk.Fill(t, dir)
	if _, err := store.OpenBolt(filepath.Join(dir, "other.db")); !isFull(err) {
		t.Fatalf("a new store on a full disk: %v, want what to do about a full disk", err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "other*"))
	if err != nil || len(names) > 0 {
		t.Fatalf("left behind: %v, %v", names, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := goOn(t.Context(), s, stored); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
