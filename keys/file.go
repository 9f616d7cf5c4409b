package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// ErrPermissions means that others can read a private key's file.
var ErrPermissions = errors.New("others can read this private key")

// maxFile bounds what is read of a key file; a key has 45 bytes.
const maxFile = 4 << 10

// Load reads a private key's file. A file that the group or others can read
// is refused with ErrPermissions, since the key may have been read; a missing
// one satisfies errors.Is with fs.ErrNotExist.
func Load(path string) (Private, error) {
	f, err := os.Open(path)
	if err != nil {
		return Private{}, fmt.Errorf("read the private key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Private{}, fmt.Errorf("read the private key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Private{}, fmt.Errorf("read the private key: %s is not a regular file", path)
	}
	// Windows keeps permissions elsewhere, and Go's mode says nothing of them.
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return Private{}, fmt.Errorf("%s has mode %04o: %w; if nobody did, run: chmod 600 %s", path, mode, ErrPermissions, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Private{}, fmt.Errorf("read the private key: %w", err)
	}
	if len(text) > maxFile {
		return Private{}, fmt.Errorf("%s is no private key: it is larger than %d bytes", path, maxFile)
	}
	k, err := ParsePrivate(strings.TrimSpace(string(text)))
	if err != nil {
		return Private{}, fmt.Errorf("%s is damaged (%w); restore it from a copy, or move it away to start with a new key", path, err)
	}
	return k, nil
}

// LoadOrCreate reads a private key's file, or makes a key and its file when
// there is none. The file appears whole or not at all, also after a crash,
// and of two callers at once both get the key of one.
func LoadOrCreate(path string) (Private, error) {
	k, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = New(); err != nil {
		return Private{}, err
	}
	err = create(path, k)
	if errors.Is(err, fs.ErrExist) {
		return Load(path)
	}
	if err != nil {
		return Private{}, fmt.Errorf("write the private key: %w", err)
	}
	return k, nil
}

// create writes k to a file beside path and links it there, which, unlike a
// rename, fails when path exists.
func create(path string, k Private) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(k.text())
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a new name in dir durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be opened for that there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
