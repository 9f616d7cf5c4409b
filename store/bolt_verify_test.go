package store

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestVerifyAll: whatever bbolt writes passes, also where its trees grow deep,
// and shrink again, which is where the rules about branches come from.
func TestVerifyAll(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 50
	}
	seed := [2]uint64{rand.Uint64(), rand.Uint64()}
	t.Logf("seed %d %d", seed[0], seed[1])
	r := rand.New(rand.NewPCG(seed[0], seed[1]))
	path := filepath.Join(t.TempDir(), "edge.db")
	b, err := OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	b.db.NoSync = true // nothing here is about the disk
	// Seven of these fill a page, so that 400 are four branches high.
	key := func() string { return fmt.Sprintf("%04d%s", r.IntN(400), strings.Repeat("k", MaxKey-4)) }
	for round := range rounds {
		ops := map[string]Op{}
		remove := r.IntN(100)
		for range 1 + r.IntN(80) {
			op := Op{Key: key(), Any: true}
			if r.IntN(100) >= remove {
				op.Value = make([]byte, r.IntN(1+1<<r.IntN(13)))
			}
			ops[op.Key] = op
		}
		var list []Op
		for _, op := range ops {
			list = append(list, op)
		}
		if _, err := b.Commit(t.Context(), list...); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyPages(bytes.NewReader(file), int64(len(file)), b.db.Info().PageSize); err != nil {
			t.Fatalf("after commit %d: %v", round, err)
		}
	}
}

// readSample gives the file in testdata: see TestSample.
func readSample(t testing.TB) []byte {
	t.Helper()
	f, err := os.Open("testdata/edge.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	file, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestVerifyTree damages pages in the ways that bbolt would read without
// complaint, and stumble over when it writes.
func TestVerifyTree(t *testing.T) {
	const size = 4096
	sample := readSample(t)
	check := func(file []byte) error { return verifyPages(bytes.NewReader(file), int64(len(file)), size) }
	if err := check(sample); err != nil {
		t.Fatal(err)
	}
	v := &verifier{r: bytes.NewReader(sample), pageSize: size}
	m, err := v.meta()
	if err != nil {
		t.Fatal(err)
	}
	// The data bucket's is the one branch; below it there are leaves alone.
	branch := -1
	for n := 2; n < int(m.pages); n++ {
		if page := sample[n*size:]; order.Uint64(page) == uint64(n) && order.Uint16(page[8:]) == flagBranch && inUse(sample, m, n) {
			branch = n * size
		}
	}
	if branch < 0 {
		t.Fatal("the sample has no branch")
	}
	child := func(file []byte, i int) []byte { // its page
		return file[order.Uint64(file[branch+pageHeader+i*elementSize+8:])*size:]
	}
	for name, c := range map[string]struct {
		damage func(file []byte)
		want   string
	}{
		"an empty key in a branch": {func(file []byte) { order.PutUint32(file[branch+pageHeader+4:], 0) }, "key 0 is empty"},
		"an empty key in a leaf":   {func(file []byte) { order.PutUint32(child(file, 0)[pageHeader+8:], 0) }, "key 0 is empty"},
		"a branch's first key is lower": {func(file []byte) {
			at := branch + pageHeader
			file[at+int(order.Uint32(file[at:]))]--
		}, "the page above it says"},
		"another one is higher": {func(file []byte) {
			at := branch + pageHeader + elementSize
			end := at + int(order.Uint32(file[at:])+order.Uint32(file[at+4:]))
			file[end-1]++
		}, "the page above it says"},
		"a branch of one page": {func(file []byte) { order.PutUint16(file[branch+10:], 1) }, "with 1 pages below it"},
		"an empty leaf":        {func(file []byte) { order.PutUint16(child(file, 1)[10:], 0) }, "there is nothing in it"},
	} {
		file := bytes.Clone(sample)
		c.damage(file)
		if bytes.Equal(file, sample) {
			t.Errorf("%s: nothing has changed", name)
		}
		if err := check(file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// inUse tells whether page n is not free.
func inUse(file []byte, m boltMeta, n int) bool {
	free := file[m.freelist*4096:]
	for i := range int(order.Uint16(free[10:])) {
		if order.Uint64(free[pageHeader+8*i:]) == uint64(n) {
			return false
		}
	}
	return true
}
