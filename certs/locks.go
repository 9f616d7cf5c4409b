package certs

import (
	"context"
	"fmt"
)

// certmagic's locks are in memory: no other process has the storage, none is left
// behind by a process that was killed, and they need no room on the disk.

// Lock waits for the lock.
func (s *storage) Lock(ctx context.Context, name string) error {
	for {
		held := s.tryLock(name)
		if held == nil {
			return nil
		}
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TryLock takes the lock if it is free.
func (s *storage) TryLock(_ context.Context, name string) (bool, error) {
	return s.tryLock(name) == nil, nil
}

// tryLock takes the lock and returns nil, or else what is closed when it is given up.
func (s *storage) tryLock(name string) (held chan struct{}) {
	s.locking.Lock()
	defer s.locking.Unlock()
	if held = s.locked[name]; held == nil {
		s.locked[name] = make(chan struct{})
	}
	return held
}

// Unlock gives the lock up.
func (s *storage) Unlock(_ context.Context, name string) error {
	s.locking.Lock()
	defer s.locking.Unlock()
	held := s.locked[name]
	if held == nil {
		return fmt.Errorf("certificates: %s is not locked", name)
	}
	delete(s.locked, name)
	close(held)
	return nil
}
