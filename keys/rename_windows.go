package keys

import (
	"os"

	"golang.org/x/sys/windows"
)

// renameNew renames without replacing; fs.ErrExist when path is there.
func renameNew(tmp, path string) error {
	from, err := windows.UTF16PtrFromString(tmp)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: path, Err: err}
	}
	to, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: path, Err: err}
	}
	// Without MOVEFILE_REPLACE_EXISTING. Write-through stands for the directory
	// sync that Windows does not have.
	if err := windows.MoveFileEx(from, to, windows.MOVEFILE_WRITE_THROUGH); err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: path, Err: err}
	}
	return nil
}

// syncDir has nothing to do: see renameNew.
func syncDir(string) error { return nil }
