//go:build !windows

package keys

import (
	"errors"
	"os"
	"syscall"
)

// syncDir brings a directory's names to disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	// fsync(2): EINVAL where a file system cannot sync directories. Nothing
	// more can be done there.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
