package store

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// hasModes: a profile's access list says who may read a file, not its mode.
const hasModes = false

func isNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// syncDir has nothing to do: NTFS journals its names.
func syncDir(string) error { return nil }

// abandon closes a file that bbolt has mapped and locked.
func abandon(f *os.File) error { return f.Close() }
