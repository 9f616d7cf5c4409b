package store

import "os"

// hasModes: a profile's access list says who may read a file, not its mode.
const hasModes = false

// cause finds the system's error.
func cause(err error) error { return err }

// syncDir has nothing to do: NTFS journals its names.
func syncDir(string) error { return nil }

// abandon closes a file that bbolt has mapped and locked.
func abandon(f *os.File) error { return f.Close() }
