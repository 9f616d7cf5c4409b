//go:build unix

package store

import (
	"errors"
	"os"
	"syscall"
)

// hasModes: a file's mode says who may read it.
const hasModes = true

// isNoSpace also counts a limit on the size of files (RLIMIT_FSIZE).
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// syncDir makes a new name in a directory durable (fsync(2)).
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
