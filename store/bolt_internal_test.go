package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// setMeta writes to the meta bucket of a closed store, as another program would.
func setMeta(t *testing.T, path string, key, sealed []byte) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(key, sealed) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func newStore(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "edge.db")
	b, err := OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Commit(t.Context(), Op{Key: "a", Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// refuse opens a store that must be refused, and not be touched.
func refuse(t *testing.T, path string) error {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, openErr := OpenBolt(path)
	if openErr == nil {
		t.Fatal("the store was opened")
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Fatal("the file was written to")
	}
	return openErr
}

func TestOpenBoltNewerSchema(t *testing.T) {
	path := newStore(t)
	newer := strconv.Itoa(schema + 1)
	setMeta(t, path, schemaKey, seal(schemaKey, 0, []byte(newer)))
	// A newer schema may seal its revision and its records in ways of its own.
	setMeta(t, path, revisionKey, []byte("of the future"))
	err := refuse(t, path)
	var version *VersionError
	if !errors.As(err, &version) || version.Found != schema+1 || version.Supported != schema || version.Path != path {
		t.Fatalf("%v, want a *VersionError", err)
	}
	for _, want := range []string{path, newer, strconv.Itoa(schema)} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}

// sealLedger gives what a ledger is stored as.
func sealLedger(t *testing.T, l ledger) (sealed []byte) {
	t.Helper()
	path := newStore(t)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if err := l.write(tx); err != nil {
			return err
		}
		sealed = bytes.Clone(tx.Bucket(metaBucket).Get(revisionKey))
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestOpenBoltDamagedMeta(t *testing.T) {
	// What newStore has stored, so that each of these is wrong in one way.
	sum := uint64(checksum(seal([]byte("a"), 1, []byte("1"))))
	path := newStore(t)
	setMeta(t, path, revisionKey, sealLedger(t, ledger{1, 1, sum}))
	b, err := OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for name, meta := range map[string][2][]byte{
		"a schema of words":      {schemaKey, seal(schemaKey, 0, []byte("one"))},
		"schema 0":               {schemaKey, seal(schemaKey, 0, []byte("0"))},
		"an unsealed schema":     {schemaKey, []byte("2")},
		"an empty schema":        {schemaKey, nil},
		"an unsealed revision":   {revisionKey, []byte("12345678")},
		"a seal of another key":  {revisionKey, seal(schemaKey, 7, nil)},
		"no ledger":              {revisionKey, seal(revisionKey, 1, nil)},
		"a revision that is old": {revisionKey, sealLedger(t, ledger{0, 1, sum})},
		"an entry less":          {revisionKey, sealLedger(t, ledger{1, 2, sum})},
		"an entry more":          {revisionKey, sealLedger(t, ledger{1, 0, 0})},
		"another entry":          {revisionKey, sealLedger(t, ledger{1, 1, sum + 1})},
	} {
		path := newStore(t)
		setMeta(t, path, meta[0], meta[1])
		var corrupt *CorruptError
		if err := refuse(t, path); !errors.As(err, &corrupt) || corrupt.Path != path {
			t.Errorf("%s: %v, want a *CorruptError", name, err)
		}
	}
}

// TestBoltUncertainCommit is what follows when the disk fails to sync the very
// last page of a commit: it can be read, and may be gone after a restart.
func TestBoltUncertainCommit(t *testing.T) {
	b, err := OpenBolt(filepath.Join(t.TempDir(), "edge.db"))
	if err != nil {
		t.Fatal(err)
	}
	changes, err := b.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	op := Op{Key: "a", Value: []byte("1")}
	if err := b.db.Update(func(tx *bbolt.Tx) error {
		l, err := readLedger(b.path, tx)
		if err != nil {
			return err
		}
		if _, err := b.applyOne(tx, &l, []Op{op}); err != nil {
			return err
		}
		return l.write(tx)
	}); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("input/output error")
	if err := b.failed(lost, 1); !errors.Is(err, ErrUncertain) || !errors.Is(err, ErrBroken) || !errors.Is(err, lost) {
		t.Errorf("%v, want ErrUncertain, ErrBroken and the cause", err)
	}
	if c := <-changes; c.Revision != 1 {
		t.Errorf("change %v, want revision 1, which is what is read now", c)
	}
	if _, err := b.Commit(t.Context(), Op{Key: "b", Value: []byte("1")}); errors.Is(err, ErrUncertain) || !errors.Is(err, ErrBroken) {
		t.Errorf("the next commit: %v, want ErrBroken alone", err)
	}
	if _, err := b.Get(t.Context(), "a"); err != nil {
		t.Errorf("reading goes on: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestSeal(t *testing.T) {
	key, value := []byte("key"), []byte("value")
	sealed := seal(key, 7, value)
	rev, got, err := unseal(key, sealed)
	if err != nil || rev != 7 || !bytes.Equal(got, value) {
		t.Fatalf("%d %q %v", rev, got, err)
	}
	if _, _, err := unseal([]byte("kez"), sealed); err == nil {
		t.Error("the seal fits another key")
	}
	for i := range sealed {
		for bit := range 8 {
			flipped := bytes.Clone(sealed)
			flipped[i] ^= 1 << bit
			if _, _, err := unseal(key, flipped); err == nil {
				t.Errorf("byte %d, bit %d: not noticed", i, bit)
			}
		}
	}
	for n := range sealed {
		if _, _, err := unseal(key, sealed[:n]); err == nil {
			t.Errorf("cut off at %d: not noticed", n)
		}
	}
}

// TestBoltBatch: commits that share a transaction share no misfortune.
func TestBoltBatch(t *testing.T) {
	b, err := OpenBolt(filepath.Join(t.TempDir(), "edge.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	changes, err := b.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var batch []*request
	for _, op := range []Op{
		{Key: "a", Value: []byte("1")},
		{Key: "b", Value: []byte("1")},
		{Key: "", Value: []byte("1")}, // Commit lets none such through; bbolt refuses it
		{Key: "a", Value: []byte("2")},
		{Key: "a", Value: []byte("3"), If: 1},
	} {
		batch = append(batch, &request{ops: []Op{op}, done: make(chan struct{})})
	}
	b.serve(batch) // the writer itself has nothing to do
	for i, want := range []Revision{1, 2, 0, 0, 3} {
		<-batch[i].done
		if got := batch[i]; want > 0 && (got.err != nil || got.rev != want) || want == 0 && got.err == nil {
			t.Errorf("commit %d: revision %d, %v, want %d", i, got.rev, got.err, want)
		}
	}
	if !errors.Is(batch[3].err, ErrConflict) || errors.Is(batch[2].err, ErrConflict) {
		t.Errorf("%v and %v, want a conflict in the second", batch[2].err, batch[3].err)
	}
	if c := <-changes; c.Revision != 3 || !slices.Equal(c.Keys, []string{"a", "b"}) {
		t.Errorf("change %v", c)
	}
}
