package certs

import (
	"context"
	"os"
	"sync"

	"github.com/caddyserver/certmagic"
)

// storage is certmagic's files, where two of its parts do not get into each
// other's way: cleaning deletes folders that it has found empty, with all that is
// in them, while a new certificate may just get its files there.
type storage struct {
	*certmagic.FileStorage
	mu sync.Mutex // held while files and folders come and go
}

// Store writes a file atomically, and makes its folders.
func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.FileStorage.Store(ctx, key, value)
}

// Delete deletes a file, or a folder if that is empty. One that is not stays,
// without an error.
func (s *storage) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if inside, err := os.ReadDir(s.Filename(key)); err == nil && len(inside) > 0 {
		return nil
	}
	return s.FileStorage.Delete(ctx, key)
}
