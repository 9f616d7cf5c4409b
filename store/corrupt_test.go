package store_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/wgexpose/wgexpose/store"
)

// sample is the file of a store with branches, overflow pages, free pages and
// two buckets, and what is in it before and after the last commit.
type sample struct {
	file   []byte
	states [2]string
}

// pageSize is that of the sample in testdata.
const pageSize = 4096

var update = flag.Bool("update", false, "write testdata anew")

// readSample gives the sample in testdata, so that damage at a place is the
// same damage each time: bbolt lays out the pages of a new one by chance.
func readSample(t testing.TB) sample {
	t.Helper()
	s := makeSample(t) // for what is in it
	f, err := os.Open(filepath.Join("testdata", "edge.db.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if s.file, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSample: a file that an earlier program has written is read and written.
func TestSample(t *testing.T) {
	if *update {
		var out bytes.Buffer
		z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(makeSample(t).file); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("testdata", "edge.db.gz"), out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []sample{readSample(t), makeSample(t)} {
		if s.open(t, s.file) {
			t.Error("an undamaged file is refused")
		}
	}
}

func makeSample(t testing.TB) sample {
	t.Helper()
	path := filepath.Join(t.TempDir(), "edge.db")
	s := openBolt(t, path)
	commit := func(ops ...store.Op) {
		t.Helper()
		if _, err := s.Commit(context.Background(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	var ops []store.Op
	for i := range 60 {
		ops = append(ops, store.Op{Key: fmt.Sprintf("node/%010d", i), Value: bytes.Repeat([]byte{byte(i)}, 100+i*7%900)})
	}
	commit(ops...)
	commit(store.Op{Key: "invite/large", Value: bytes.Repeat([]byte("large "), 2000)})
	for i := range 30 {
		commit(store.Op{Key: fmt.Sprintf("node/%010d", i*3), Any: true})
	}
	var out sample
	for i := range out.states {
		commit(store.Op{Key: "settings", Value: []byte(fmt.Sprint("last ", i)), Any: true})
		out.states[i] = stateOf(t, s)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if out.file, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return out
}

func stateOf(t testing.TB, s store.Store) string {
	t.Helper()
	entries, rev, err := s.List(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(rev, entries)
}

// open opens a damaged copy. It is refused, by name and untouched, or whatever
// was damaged did not matter: then everything is there and the store works. It
// tells whether it was refused.
func (s sample) open(t testing.TB, file []byte) bool {
	t.Helper()
	path := filepath.Join(t.TempDir(), "edge.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := store.OpenBolt(path)
	if err != nil {
		var corrupt *store.CorruptError
		if !errors.As(err, &corrupt) || corrupt.Path != path || corrupt.Reason == "" ||
			!strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "restore it from a copy") {
			t.Fatalf("%v, want a *CorruptError of %s", err, path)
		}
		now, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(now, file) {
			t.Fatalf("the damaged file was written to (%v)", err)
		}
		return true
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	state := stateOf(t, b)
	// The last commit cannot be told from one that a power failure cut short
	// when the page that made it valid is damaged.
	if state != s.states[1] && state != s.states[0] {
		t.Fatalf("a damaged file was opened, and its content is another: %.200s", state)
	}
	rewrite(t, b)
	state = stateOf(t, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err = store.OpenBolt(path); err != nil {
		t.Fatalf("the file was opened, and cannot be any more after it was written to: %v", err)
	}
	if now := stateOf(t, b); now != state {
		t.Fatalf("the file was opened, and does not hold what was written to it: %.200s, want %.200s", now, state)
	}
	return false
}

// rewrite changes every page of a store: it replaces all values, adds some, and
// removes the most of them, until pages are joined.
func rewrite(t testing.TB, b *store.Bolt) {
	t.Helper()
	entries, _, err := b.List(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	commits := [3][]store.Op{1: {{Key: "new", Value: make([]byte, 3000)}, {Key: "zzz", Value: make([]byte, 3000)}}}
	for i, e := range entries {
		commits[0] = append(commits[0], store.Op{Key: e.Key, Value: make([]byte, 200+10*i), If: e.Revision})
		if i%16 != 0 {
			commits[2] = append(commits[2], store.Op{Key: e.Key, Any: true})
		}
	}
	for _, ops := range commits {
		if _, err := b.Commit(context.Background(), ops...); err != nil {
			t.Fatalf("the file was opened, and cannot be written to: %v", err)
		}
	}
}

func TestOpenBoltDamaged(t *testing.T) {
	s := readSample(t)
	page := pageSize
	damage := func(from, to int, with byte) []byte {
		file := bytes.Clone(s.file)
		for i := from; i < to; i++ {
			file[i] = with
		}
		return file
	}
	for name, file := range map[string][]byte{
		"empty":            {},
		"one byte":         s.file[:1],
		"part of a page":   s.file[:page/2],
		"one page":         s.file[:page],
		"two pages":        s.file[:2*page],
		"half":             s.file[:len(s.file)/2],
		"not a page size":  s.file[:len(s.file)/3+17],
		"zeros":            make([]byte, len(s.file)),
		"zeroed beginning": damage(0, 2*page, 0),
		"zeroed end":       damage(2*page, len(s.file), 0),
		"ones":             damage(0, len(s.file), 0xff),
		"text":             bytes.Repeat([]byte("this is not a database\n"), 5000),
	} {
		if !s.open(t, file) {
			t.Errorf("%s: the file was opened", name)
		}
	}
	refused := 0
	for n := 0; n < len(s.file); n += page {
		for _, with := range []byte{0, 0xff, 0x01} {
			if s.open(t, damage(n, n+page, with)) {
				refused++
			}
		}
		// One entry less: it must be missed.
		fewer := bytes.Clone(s.file)
		binary.NativeEndian.PutUint16(fewer[n+10:], binary.NativeEndian.Uint16(fewer[n+10:])-1)
		s.open(t, fewer)
		s.open(t, s.file[:n])
		s.open(t, s.file[:n+page/3])
	}
	if refused < 20 {
		t.Errorf("only %d damaged pages of %d were found", refused, len(s.file)/page)
	}
}

// TestOpenBoltFlipped flips bits, where it hurts most more often.
func TestOpenBoltFlipped(t *testing.T) {
	s := readSample(t)
	seed := [2]uint64{rand.Uint64(), rand.Uint64()}
	r := rand.New(rand.NewPCG(seed[0], seed[1]))
	t.Logf("seed %d %d", seed[0], seed[1])
	page := pageSize
	rounds := 250
	if testing.Short() {
		rounds = 100
	}
	refused := 0
	for range rounds {
		file := bytes.Clone(s.file)
		for range 1 + r.IntN(3) {
			at := r.IntN(len(file))
			if r.IntN(2) == 0 {
				at = at/page*page + r.IntN(160) // headers and elements
			}
			file[at] ^= 1 << r.IntN(8)
		}
		if s.open(t, file) {
			refused++
		}
	}
	t.Logf("%d of %d were refused", refused, rounds)
	if refused < rounds/10 {
		t.Error("too few were found")
	}
}

func FuzzOpenBolt(f *testing.F) {
	s := readSample(f)
	page := uint32(pageSize)
	f.Add(uint32(0), []byte{0})
	f.Add(4*page+10, []byte{0})
	f.Add(2*page, []byte{3, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add(3*page+8, []byte{1, 0, 0xff, 0xff})
	f.Add(4*page+12, []byte{0xff, 0xff, 0xff, 0x7f})
	f.Add(5*page+16, binary.LittleEndian.AppendUint64(nil, 5))
	f.Add(15*page+16, binary.LittleEndian.AppendUint64(nil, 5)) // the branch: its first key is empty
	f.Add(15*page+10, []byte{1, 0})
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		file := bytes.Clone(s.file)
		copy(file[int(at)%len(file):], patch)
		s.open(t, file)
	})
}

func TestOpenBoltOfAnotherProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("theirs"))
		if err != nil {
			return err
		}
		if b, err = b.CreateBucket([]byte("nested")); err != nil {
			return err
		}
		return b.Put([]byte("k"), []byte("v"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.OpenBolt(path)
	if corrupt := (*store.CorruptError)(nil); !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "not a database of wgexpose") {
		t.Fatalf("%v, want a *CorruptError that says whose it is", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Fatalf("the file was written to (%v)", err)
	}
}

// TestBoltCutOffWhileOpen takes the file's pages away under a store that has
// them mapped: reading them is SIGBUS, which must end no process.
func TestBoltCutOffWhileOpen(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows lets nobody cut a mapped file")
	}
	s := makeSample(t)
	path := filepath.Join(t.TempDir(), "edge.db")
	if err := os.WriteFile(path, s.file, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := store.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(2*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	var corrupt *store.CorruptError
	if _, err := b.Get(t.Context(), "settings"); !errors.As(err, &corrupt) {
		t.Errorf("get: %v, want a *CorruptError", err)
	}
	if _, _, err := b.List(t.Context(), ""); !errors.As(err, &corrupt) {
		t.Errorf("list: %v, want a *CorruptError", err)
	}
	op := store.Op{Key: "a", Value: []byte("1")}
	if _, err := b.Commit(t.Context(), op); !errors.As(err, &corrupt) {
		t.Errorf("commit: %v, want a *CorruptError", err)
	}
	if _, err := b.Commit(t.Context(), op); !errors.Is(err, store.ErrBroken) {
		t.Errorf("another commit: %v, want ErrBroken", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	// And the lock is free.
	if _, err := store.OpenBolt(path); !errors.As(err, &corrupt) {
		t.Errorf("open again: %v, want a *CorruptError", err)
	}
}

// TestBoltDamagedWhileOpen changes a value behind the store's back.
func TestBoltDamagedWhileOpen(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows shows a mapping only what is written through it")
	}
	path := filepath.Join(t.TempDir(), "edge.db")
	b := openBolt(t, path)
	value := bytes.Repeat([]byte("to be found again "), 20)
	if _, err := b.Commit(t.Context(), store.Op{Key: "a", Value: value}); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("T"), int64(bytes.Index(file, value)))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	var corrupt *store.CorruptError
	if _, err := b.Get(t.Context(), "a"); !errors.As(err, &corrupt) {
		t.Errorf("get: %v, want a *CorruptError", err)
	}
	if _, _, err := b.List(t.Context(), ""); !errors.As(err, &corrupt) {
		t.Errorf("list: %v, want a *CorruptError", err)
	}
	if _, err := b.Commit(t.Context(), store.Op{Key: "a", Value: []byte("x"), Any: true}); !errors.As(err, &corrupt) || errors.Is(err, store.ErrBroken) {
		t.Errorf("commit: %v, want a *CorruptError", err)
	}
	// Another key is as good as before.
	if _, err := b.Commit(t.Context(), store.Op{Key: "b", Value: []byte("x")}); err != nil {
		t.Error(err)
	}
}
