package keys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// renameNew renames without replacing; fs.ErrExist when path is there.
func renameNew(tmp, path string) error {
	err := unix.RenamexNp(tmp, path, unix.RENAME_EXCL)
	// rename(2): ENOTSUP from a file system without the flag.
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL) {
		return linkNew(tmp, path)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: path, Err: err}
	}
	return nil
}
