//go:build !linux && !darwin && !windows

package keys

// renameNew names without replacing; fs.ErrExist when path is there.
func renameNew(tmp, path string) error { return linkNew(tmp, path) }
