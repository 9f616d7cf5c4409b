package certs

import (
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/internal/smalldisk"
)

// An obstacle keeps everything new out of a storage until it is taken away.
type obstacle struct {
	name string
	dir  func(t *testing.T) string
	put  func(t *testing.T, dir string) (away func())
	want string // in the message
}

var obstacles = []obstacle{
	{"blocked", func(t *testing.T) string { return t.TempDir() }, block, "file exists"},
	{"full disk", func(t *testing.T) string { return smalldisk.Mount(t, "size=256k") }, func(t *testing.T, dir string) func() { return smalldisk.Fill(t, dir) }, "is full, in space or in inodes: free some there"},
}

// block puts other things where folders and files are to go.
func block(t *testing.T, dir string) (away func()) {
	t.Helper()
	link, folder := filepath.Join(dir, "certificates"), filepath.Join(dir, roomKey)
	err := errors.Join(os.Symlink(filepath.Join(dir, "nowhere"), link), os.MkdirAll(filepath.Join(folder, "inside"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(os.Remove(link), os.RemoveAll(folder)); err != nil {
			t.Fatal(err)
		}
	}
}

// Certificates of the own authority are made and served though nothing can be
// stored, and the next start has those that were served.
func TestServedWhileNothingCanBeStored(t *testing.T) {
	for _, o := range obstacles {
		t.Run(o.name, func(t *testing.T) {
			dir := o.dir(t)
			log, text := logger(t)
			cfg := Config{Mode: Internal, Domain: "example.com", Storage: dir, Allowed: tableOf("a.b.example.com").has, Logger: log, roomEvery: time.Millisecond}
			_, stop := start(t, cfg) // makes the authority
			stop()
			if err := os.RemoveAll(filepath.Join(dir, "certificates")); err != nil {
				t.Fatal(err)
			}
			away := o.put(t, dir)
			hosts := []string{"example.com", "a.b.example.com"}
			m, stop := start(t, cfg)
			if err := m.Manage(t.Context(), hosts...); err != nil {
				t.Fatal(err)
			}
			var serials []*big.Int
			for _, host := range hosts {
				serials = append(serials, leaf(t, m, dir, host).SerialNumber)
			}
			if !strings.Contains(text.String(), "certificates cannot be stored") || !strings.Contains(text.String(), o.want) {
				t.Errorf("the log does not say what happened, or not %q", o.want)
			}
			away()
			eventually(t, "all is stored", func() bool {
				return strings.Contains(text.String(), "certificates can be stored again")
			})
			stop()
			m, _ = start(t, cfg)
			if err := m.Manage(t.Context(), hosts...); err != nil {
				t.Fatal(err)
			}
			for i, host := range hosts {
				if leaf(t, m, dir, host).SerialNumber.Cmp(serials[i]) != 0 {
					t.Errorf("the next start has another certificate for %s", host)
				}
			}
		})
	}
}

// An authority is not asked for what could not be stored, and asked as soon as it
// can be.
func TestNoOrderWhileNothingCanBeStored(t *testing.T) {
	for _, o := range obstacles {
		t.Run(o.name, func(t *testing.T) {
			ca, asked := brokenAuthority(t)
			dir := o.dir(t)
			away := o.put(t, dir)
			log, text := logger(t)
			m, _ := start(t, Config{Mode: ACME, Issuers: []Issuer{{CA: ca}}, Storage: dir, Allowed: tableOf("app.example.com").has, Logger: log, roomEvery: time.Millisecond})
			if err := m.Manage(t.Context(), "app.example.com"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the first attempt", func() bool { return m.LastError("app.example.com") != nil })
			err := m.LastError("app.example.com")
			if _, ok := errors.AsType[*storageError](err); !ok || !strings.Contains(err.Error(), o.want) {
				t.Errorf("%v, want why nothing can be stored: %s", err, o.want)
			}
			_, before := m.Attempts()
			eventually(t, "more attempts", func() bool { _, failed := m.Attempts(); return failed > before+5 })
			if n := strings.Count(text.String(), "no certificate yet"); n != 1 {
				t.Errorf("told %d times, want once", n)
			}
			if n := asked.Load(); n != 0 {
				t.Errorf("the authority was asked %d times", n)
			}
			away()
			eventually(t, "the authority is asked", func() bool { return asked.Load() > 0 })
		})
	}
}

// What is not on the disk yet is found as if it were.
func TestUnsavedIsFound(t *testing.T) {
	dir := t.TempDir()
	away := block(t, dir)
	log, text := logger(t)
	s := newStorage(dir, time.Hour, log)
	const key = "certificates/ca/host/host.key"
	for _, value := range []string{"first", "second"} {
		if err := s.Store(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(t.Context(), key); err != nil || string(got) != value {
			t.Errorf("%q, %v; want %q", got, err, value)
		}
	}
	if n := strings.Count(text.String(), "cannot be stored"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if info, err := s.Stat(t.Context(), key); err != nil || info.Size != 6 || !info.IsTerminal || info.Modified.IsZero() {
		t.Errorf("%+v, %v", info, err)
	}
	if info, err := s.Stat(t.Context(), "certificates/ca"); err != nil || info.IsTerminal {
		t.Errorf("a folder: %+v, %v", info, err)
	}
	if _, err := s.Stat(t.Context(), "certificates/other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want that there is none", err)
	}
	list := func(folder string, recursive bool, want ...string) {
		t.Helper()
		if got, err := s.List(t.Context(), folder, recursive); err != nil || !slices.Equal(got, want) {
			t.Errorf("in %s are %q, %v; want %q", folder, got, err, want)
		}
	}
	look := func() {
		t.Helper()
		list("certificates/ca", false, "certificates/ca/host")
		list("certificates/ca", true, "certificates/ca/host", key)
		list("certificates/ca/host", false, key)
		if _, err := s.List(t.Context(), "certificates/c", true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v, want that there is no such folder", err)
		}
	}
	look()
	if err := s.Delete(t.Context(), "certificates/ca/host"); err != nil || !s.Exists(t.Context(), "certificates/ca/host") || !s.Exists(t.Context(), key) {
		t.Errorf("a folder that is not empty was deleted: %v", err)
	}
	if err := s.saveNow(); err == nil {
		t.Error("saved, while nothing can be")
	}
	away()
	if err := s.saveNow(); err != nil {
		t.Error(err)
	}
	look()
	if got := read(t, s.Filename(key)); got != "second" {
		t.Errorf("%q is on the disk", got)
	}

	// A file that was never written can be deleted.
	s = newStorage(t.TempDir(), time.Hour, log)
	defer block(t, s.Path)()
	if err := errors.Join(s.Store(t.Context(), key, nil), s.Delete(t.Context(), key)); err != nil || s.Exists(t.Context(), key) {
		t.Errorf("it is still there, %v", err)
	}
	if _, err := s.Load(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want that there is none", err)
	}
}
