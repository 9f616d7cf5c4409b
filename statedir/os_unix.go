//go:build unix

package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// checkPrivate refuses a directory that group or others may enter, unless it
// is empty and can be closed to them.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return Explain("open state directory", path, err)
	}
	if !info.IsDir() {
		return &Error{Path: path, Problem: "is not a directory", Fix: "move it away, or name another directory with --state", Err: syscall.ENOTDIR}
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	open := &Error{Path: path, Problem: fmt.Sprintf("is open to other users (mode %04o)", info.Mode().Perm()),
		Fix: "run: chmod 700 '" + path + "', or name another directory with --state", Err: fs.ErrPermission}
	empty, err := isEmpty(path)
	if err != nil {
		return Explain("open state directory", path, err)
	}
	if !empty {
		return open
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return open
	}
	return nil
}

// checkWritable asks the kernel instead of writing, so that commands that only
// read work on a full file system.
func checkWritable(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }

// isLimit: a quota, or a limit on the size of files (RLIMIT_FSIZE).
func isLimit(err error) bool {
	return errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// isRefused tells whether a socket's file is there and nobody listens on it.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

func replaceFile(dir, path string, data []byte) (err error) {
	// The temporary file lies beside the target; renameio would else try
	// whether $TMPDIR is on the same file system.
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Cleanup(); err == nil {
			err = cerr
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	// The new name is durable once the directory is (fsync(2)).
	return syncDir(dir)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// ownedByUs tells whether a file belongs to this process's user. For root it
// may also belong to the state directory's owner, whom root serves here.
func ownedByUs(info fs.FileInfo, state string) bool {
	uid, ok := owner(info)
	if !ok || uid == os.Geteuid() {
		return ok
	}
	if os.Geteuid() != 0 {
		return false
	}
	st, err := os.Stat(state)
	if err != nil {
		return false
	}
	stateUID, ok := owner(st)
	return ok && uid == stateUID
}

func ownedByRoot(info fs.FileInfo) bool {
	uid, ok := owner(info)
	return ok && uid == 0
}

func isPrivate(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 == 0 }

// onlyOwnerRenames tells whether the entries of a directory are safe from
// users who own neither them nor it.
func onlyOwnerRenames(dir fs.FileInfo) bool {
	return dir.Mode().Perm()&0o022 == 0 || dir.Mode()&fs.ModeSticky != 0
}

// owner gives the user that a file belongs to.
func owner(info fs.FileInfo) (uid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}
