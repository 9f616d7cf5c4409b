package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/store"
)

const (
	crashWriters = 3
	crashKeys    = 7 // of one transaction
)

func crashKey(writer, i int) string { return fmt.Sprintf("w%d/%d", writer, i) }

// crashValue is large enough for transactions to span pages, and changes its
// size so that pages are split, joined and freed.
func crashValue(n int) []byte {
	return []byte(strconv.Itoa(n) + " " + strings.Repeat("x", n*131%2500))
}

func crashNumber(value []byte) (int, error) {
	number, _, _ := strings.Cut(string(value), " ")
	return strconv.Atoi(number)
}

// commitForEver commits numbered transactions from several writers, and prints
// each acknowledged one as: writer number revision.
func commitForEver(path string) error {
	s, err := store.OpenBolt(path)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range crashWriters {
		go func() {
			n := 0
			if entry, err := s.Get(context.Background(), crashKey(w, 0)); err == nil {
				if n, err = crashNumber(entry.Value); err != nil {
					failed <- err
					return
				}
			} else if !errors.Is(err, store.ErrNotFound) {
				failed <- err
				return
			}
			for {
				n++
				ops := make([]store.Op, crashKeys)
				for i := range ops {
					ops[i] = store.Op{Key: crashKey(w, i), Value: crashValue(n), Any: true}
				}
				// One key that comes and goes.
				gone := store.Op{Key: crashKey(w, crashKeys), Any: true}
				if n%2 == 0 {
					gone.Value = crashValue(n)
				}
				rev, err := s.Commit(context.Background(), append(ops, gone)...)
				if err != nil {
					failed <- err
					return
				}
				// One write each, so that lines are not mixed.
				fmt.Fprintf(os.Stdout, "%d %d %d\n", w, n, rev)
			}
		}()
	}
	return <-failed
}

// TestBoltSurvivesKill kills a process that commits, again and again on one
// file, and looks for everything that it was told is stored.
func TestBoltSurvivesKill(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	path := filepath.Join(t.TempDir(), "edge.db")
	var acked [crashWriters]int
	var ackedRev [crashWriters]store.Revision
	var lastRev store.Revision
	total := 0
	for round := range rounds {
		child := startHelper(t, "commit", path)
		var lines []string
		// The child does not wait for us, so the moment is somewhere in a commit.
		for range 1 + rand.IntN(60) {
			line, err := child.line()
			if err != nil {
				t.Fatalf("round %d: the child has ended: %v", round, err)
			}
			lines = append(lines, line)
		}
		lines = append(lines, child.kill(t)...)
		total += len(lines)
		for _, line := range lines {
			var w, n int
			var rev store.Revision
			if _, err := fmt.Sscan(line, &w, &n, &rev); err != nil {
				t.Fatalf("round %d: line %q: %v", round, line, err)
			}
			if n != acked[w]+1 {
				t.Fatalf("round %d: writer %d goes on with %d after %d", round, w, n, acked[w])
			}
			if rev <= ackedRev[w] {
				t.Fatalf("round %d: revision %d after %d", round, rev, ackedRev[w])
			}
			acked[w], ackedRev[w] = n, rev
		}

		s, err := store.OpenBolt(path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for w := range crashWriters {
			n, rev := wholeTransaction(t, s, w)
			if n != acked[w] && n != acked[w]+1 {
				t.Fatalf("round %d: writer %d: transaction %d is stored, %d was acknowledged", round, w, n, acked[w])
			}
			if n == acked[w] && rev != ackedRev[w] {
				t.Fatalf("round %d: writer %d: revision %d is stored, %d was acknowledged", round, w, rev, ackedRev[w])
			}
			// One may have been made without being said; the next child goes on from it.
			acked[w], ackedRev[w] = n, rev
		}
		_, rev, err := s.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if rev <= lastRev || rev < max(ackedRev[0], ackedRev[1], ackedRev[2]) {
			t.Fatalf("round %d: the store is at revision %d, it was at %d, and %d was acknowledged", round, rev, lastRev, ackedRev)
		}
		lastRev = rev
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d transactions", rounds, total)
}

// wholeTransaction gives the number and revision of a writer's last
// transaction, all of whose keys must be there.
func wholeTransaction(t *testing.T, s store.Store, w int) (int, store.Revision) {
	t.Helper()
	entries, _, err := s.List(t.Context(), fmt.Sprintf("w%d/", w))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) == 0 {
		return 0, 0
	}
	n, err := crashNumber(entries[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	if want := crashKeys + (n+1)%2; len(entries) != want {
		t.Fatalf("writer %d: transaction %d has %d keys, want %d", w, n, len(entries), want)
	}
	for i, e := range entries {
		if e.Key != crashKey(w, i) || string(e.Value) != string(crashValue(n)) || e.Revision != entries[0].Revision {
			t.Fatalf("writer %d: %s has %.20q at revision %d, beside %d at %d", w, e.Key, e.Value, e.Revision, n, entries[0].Revision)
		}
	}
	return n, entries[0].Revision
}

// TestBoltSurvivesKillOfFirstOpen kills a process that makes a new store.
func TestBoltSurvivesKillOfFirstOpen(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	made := 0
	for range rounds {
		path := filepath.Join(t.TempDir(), "edge.db")
		child := startHelper(t, "hold", path)
		// Any moment will do: before, while or after it makes the file.
		<-time.After(time.Duration(rand.IntN(40_000)) * time.Microsecond)
		child.kill(t)
		if _, err := os.Stat(path); err == nil {
			made++
		}
		s, err := store.OpenBolt(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), store.Op{Key: "a", Value: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d had made the file", made, rounds)
}

// TestOpenBoltTogether has processes race for a store that is not there yet.
func TestOpenBoltTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.db")
	var children []*helper
	for range 4 {
		children = append(children, startHelper(t, "hold", path))
	}
	open := 0
	for _, child := range children {
		line, err := child.line()
		if err != nil {
			t.Fatalf("a process has ended: %v", err)
		}
		if line == "open" {
			open++
		}
	}
	if open != 1 {
		t.Fatalf("%d processes have the store open", open)
	}
	for _, child := range children {
		child.kill(t)
	}
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(names) != 1 {
		t.Fatalf("the directory has %v, %v, want the one file", names, err)
	}
	openBolt(t, path)
}
