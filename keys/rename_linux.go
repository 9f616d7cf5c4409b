package keys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// renameNew renames without replacing; fs.ErrExist when path is there.
func renameNew(tmp, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	// renameat2(2): EINVAL from a file system without the flag, such as NFS;
	// ENOSYS from kernels before 3.15 and from sandboxes.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return linkNew(tmp, path)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: path, Err: err}
	}
	return nil
}
