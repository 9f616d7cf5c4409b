package certs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/wgexpose/wgexpose/statedir"
)

const (
	// defaultRoomEvery is the time between two tries to write what could not be.
	defaultRoomEvery = 10 * time.Second
	// roomSize is more than a certificate with its chain, its key and their
	// description take, each in blocks of its own.
	roomSize = 32 << 10
	roomKey  = "room"
)

// storage is certmagic's files, for one process.
//
// It does not fail while the disk takes nothing (it is full, say): what cannot be
// written is kept in memory, found there, and written as soon as that works. A
// certificate that an authority has just signed is so not lost, and certmagic, which
// answers a write that fails by deleting what it wrote before (v0.25.6, crypto.go,
// storeTx), does not delete the key of the one before.
//
// Two of certmagic's parts do not get into each other's way: cleaning deletes
// folders that it has found empty, with all that is in them, while a new certificate
// may just get its files there.
type storage struct {
	*certmagic.FileStorage
	log   *slog.Logger
	every time.Duration // between two tries to write what is unsaved
	wake  chan struct{} // to save; there is something unsaved

	mu      sync.Mutex         // held while files and folders come and go; guards unsaved
	unsaved map[string]unsaved // by key

	locking sync.Mutex               // guards locked
	locked  map[string]chan struct{} // by name; closed when it is given up
}

// unsaved is what could not be written yet.
type unsaved struct {
	value []byte
	at    time.Time
}

// A storageError says why an authority was not asked for a certificate.
type storageError struct{ err error }

func (e *storageError) Error() string {
	return "no authority is asked for it as long as it could not be stored: " + e.err.Error()
}
func (e *storageError) Unwrap() error { return e.err }

func newStorage(path string, every time.Duration, log *slog.Logger) *storage {
	return &storage{
		FileStorage: &certmagic.FileStorage{Path: path},
		log:         log, every: every,
		wake:    make(chan struct{}, 1),
		unsaved: make(map[string]unsaved),
		locked:  make(map[string]chan struct{}),
	}
}

// Store writes a file atomically, and makes its folders; or else it keeps the
// value in memory until save can do so.
func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.write(ctx, key, value)
	if err == nil {
		delete(s.unsaved, key)
		return nil
	}
	if len(s.unsaved) == 0 {
		s.log.Error("certificates cannot be stored; they are kept in memory, served, and stored as soon as that is possible", "err", err)
	}
	s.unsaved[key] = unsaved{bytes.Clone(value), time.Now()}
	s.wakeSave()
	return nil
}

func (s *storage) write(ctx context.Context, key string, value []byte) error {
	return statedir.Explain("store", s.Filename(key), s.FileStorage.Store(ctx, key, value))
}

func (s *storage) wakeSave() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// save writes what could not be written before, again and again until ctx ends.
func (s *storage) save(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
		pause := time.NewTimer(s.every)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
		if err := s.saveNow(); err != nil {
			s.wakeSave()
			if ctx.Err() != nil {
				s.log.Error("certificates could not be stored, and the next start gets new ones", "err", err)
			}
		}
	}
}

// saveNow writes what is unsaved, as far as that can be. Who stops the edge waits for
// it.
func (s *storage) saveNow() (failed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.unsaved)
	for key, u := range s.unsaved {
		if err := s.write(context.Background(), key, u.value); err != nil {
			failed = err
			continue
		}
		delete(s.unsaved, key)
	}
	if n > 0 && failed == nil {
		s.log.Info("certificates can be stored again, and none is left in memory only")
	}
	return failed
}

// room is a *storageError if nothing can be written now.
func (s *storage) room(ctx context.Context) error {
	value := make([]byte, roomSize)
	rand.Read(value) // no file system can make it smaller; never fails
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.write(ctx, roomKey, value)
	if err == nil {
		err = s.FileStorage.Delete(ctx, roomKey)
	}
	if err != nil {
		return &storageError{err}
	}
	return nil
}

// Load gives what was last stored.
func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	u, ok := s.unsaved[key]
	s.mu.Unlock()
	if ok {
		return bytes.Clone(u.value), nil
	}
	return s.FileStorage.Load(ctx, key)
}

// Exists tells whether there is such a file or folder.
func (s *storage) Exists(ctx context.Context, key string) bool {
	s.mu.Lock()
	_, ok := s.unsaved[key]
	ok = ok || s.holdsLocked(key)
	s.mu.Unlock()
	return ok || s.FileStorage.Exists(ctx, key)
}

// Stat describes what was last stored, or a folder.
func (s *storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u, ok := s.unsaved[key]; ok {
		return certmagic.KeyInfo{Key: key, Modified: u.at, Size: int64(len(u.value)), IsTerminal: true}, nil
	}
	info, err := s.FileStorage.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) && s.holdsLocked(key) {
		return certmagic.KeyInfo{Key: key}, nil
	}
	return info, err
}

// List gives what is in a folder, in order; recursive: and in those inside.
func (s *storage) List(ctx context.Context, folder string, recursive bool) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, err := s.FileStorage.List(ctx, folder, recursive)
	if err != nil && !(errors.Is(err, fs.ErrNotExist) && s.holdsLocked(folder)) {
		return nil, err
	}
	for key := range s.unsaved {
		if !strings.HasPrefix(key, folder+"/") {
			continue
		}
		for ; key != folder; key = path.Dir(key) { // the folders, too
			if recursive || path.Dir(key) == folder {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// Delete deletes a file, or a folder if that is empty. One that is not stays,
// without an error.
func (s *storage) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if inside, err := os.ReadDir(s.Filename(key)); err == nil && len(inside) > 0 || s.holdsLocked(key) {
		return nil
	}
	delete(s.unsaved, key)
	return s.FileStorage.Delete(ctx, key)
}

// holdsLocked tells whether something unsaved belongs into a folder.
func (s *storage) holdsLocked(folder string) bool {
	for key := range s.unsaved {
		if strings.HasPrefix(key, folder+"/") {
			return true
		}
	}
	return false
}
