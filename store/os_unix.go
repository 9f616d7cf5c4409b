//go:build unix

package store

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// hasModes: a file's mode says who may read it.
const hasModes = true

// cause finds the system's error. bbolt formats some with %s, so that their text
// is all there is (its db.go, grow).
func cause(err error) error {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS} {
		if err != nil && strings.HasSuffix(err.Error(), errno.Error()) {
			return errno
		}
	}
	return err
}

// syncDir makes a new name in a directory durable (fsync(2)).
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// abandon closes a file that bbolt has mapped and locked. The mapping keeps
// the open file alive, and with it the lock (flock(2)), so that goes first.
func abandon(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}
