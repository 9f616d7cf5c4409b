package statedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/windows"
)

// checkPrivate looks at the kind only: a profile's access list keeps others out.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return Explain("open state directory", path, err)
	}
	if !info.IsDir() {
		return &Error{Path: path, Problem: "is not a directory", Fix: "move it away, or name another directory with --state", Err: syscall.ENOTDIR}
	}
	return nil
}

// checkWritable leaves the answer to the first write: Windows has no cheap
// question for it.
func checkWritable(string) error { return nil }

func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

func isLimit(err error) bool { return errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED) }

// isRefused tells whether a socket's file is there and nobody listens on it.
func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }

// replaceFile renames over the target, which Go does with MOVEFILE_REPLACE_EXISTING.
func replaceFile(dir, path string, data []byte) (err error) {
	f, err := os.CreateTemp(dir, "."+filepath.Base(path))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Ownership and modes say nothing on Windows; %TMP% lies in the user's profile.

func ownedByUs(fs.FileInfo, string) bool { return true }
func ownedByRoot(fs.FileInfo) bool       { return true }
func isPrivate(fs.FileInfo) bool         { return true }
func onlyOwnerRenames(fs.FileInfo) bool  { return true }
