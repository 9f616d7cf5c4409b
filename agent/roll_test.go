package agent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/statedir"
)

func TestRoll(t *testing.T) {
	dir, err := statedir.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	sign := func() *roll {
		r, err := signOn(dir)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	others := func(r *roll) []string {
		names, err := r.others()
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		return names
	}
	a, b, c := sign(), sign(), sign()
	want := []string{b.name, c.name}
	slices.Sort(want)
	if got := others(a); !slices.Equal(got, want) {
		t.Errorf("a sees %v, want %v", got, want)
	}
	if err := b.signOff(); err != nil {
		t.Fatal(err)
	}
	// c ends as after kill -9: the lock is free, the file stays.
	if err := c.lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if got := others(a); len(got) != 0 {
		t.Errorf("a sees %v, of which nobody runs any more", got)
	}
	if _, err := os.Stat(dir.Path(c.file())); !os.IsNotExist(err) {
		t.Errorf("what c left is still there: %v", err)
	}
	if err := a.signOff(); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir.String()); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestMuster(t *testing.T) {
	if m := newMuster(nil, time.Hour); !done(m.all) {
		t.Error("waits for nobody")
	}
	m := newMuster([]string{"a", "b"}, time.Hour)
	m.arrived("a")
	m.arrived("a")
	m.arrived("stranger")
	if done(m.all) {
		t.Error("does not wait for b")
	}
	m.arrived("b")
	if !done(m.all) {
		t.Error("waits when all are there")
	}
	m.end()
	late := newMuster([]string{"a"}, time.Millisecond)
	<-late.all
	late.arrived("a")
	late.end()
}

func done(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
