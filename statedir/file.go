package statedir

import (
	"errors"
	"io/fs"
	"os"
)

// ReadFile reads a whole file. A missing one satisfies
// errors.Is(err, fs.ErrNotExist).
func (d *Dir) ReadFile(name string) ([]byte, error) {
	data, err := os.ReadFile(d.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, Explain("read", d.Path(name), err)
	}
	return data, nil
}

// WriteFile replaces a file, or makes it, with mode 0600. Whoever reads it, and
// whoever starts after a crash, finds the old content or the new, never a
// part. It is on disk when WriteFile returns. Concurrent writers of one name
// leave the content of one of them.
func (d *Dir) WriteFile(name string, data []byte) error {
	if err := replaceFile(d.path, d.Path(name), data); err != nil {
		return Explain("write", d.Path(name), err)
	}
	return nil
}
