package keys

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

var (
	// ErrPermissions is in the chain of what [Load] returns for a key file that
	// others than its owner can open.
	ErrPermissions = errors.New("key file is open to others")

	// ErrCorrupt is in the chain of what [Load] returns for a file that holds
	// no key.
	ErrCorrupt = errors.New("key file holds no key")
)

// A FileError is something about a key file that its owner can put right.
type FileError struct {
	Path    string // of the key file
	Problem string // what is wrong: "is open to other users (mode 0644)"
	Fix     string // what to do: "run: chmod 600 /…"
	Err     error  // ErrPermissions, ErrCorrupt or the system's own
}

// Error reads: "key file /x/agent.key is open to other users (mode 0644): run: chmod 600 /x/agent.key".
func (e *FileError) Error() string {
	return "key file " + e.Path + " " + e.Problem + ": " + e.Fix
}

// Unwrap gives the cause.
func (e *FileError) Unwrap() error { return e.Err }

// maxFile is more than a key and any white space around it, in bytes.
const maxFile = 256

// Load reads a key file: the 44 characters of `wg genkey` and a line break. A
// missing file satisfies errors.Is(err, fs.ErrNotExist). A file that is open to
// its group or to others is refused with [ErrPermissions], except on Windows,
// where the mode says nothing; what is no key, with [ErrCorrupt]. Neither error
// repeats the content.
func Load(path string) (Private, error) {
	// Asked before it is opened: opening a FIFO would wait for a writer.
	info, err := os.Stat(path)
	if err != nil {
		return Private{}, fmt.Errorf("load key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Private{}, corrupt(path, "is not a regular file")
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return Private{}, &FileError{Path: path, Problem: "cannot be read by this user", Fix: "run as the user who owns it", Err: err}
	}
	if err != nil {
		return Private{}, fmt.Errorf("load key: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return Private{}, fmt.Errorf("load key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return Private{}, &FileError{
			Path:    path,
			Problem: fmt.Sprintf("is open to other users (mode %04o)", mode),
			Fix:     "run: chmod 600 " + shellQuote(path),
			Err:     ErrPermissions,
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Private{}, fmt.Errorf("load key: %w", err)
	}
	text := strings.TrimSpace(string(data))
	switch {
	case len(data) > maxFile:
		return Private{}, corrupt(path, fmt.Sprintf("is longer than %d bytes, so it is no key", maxFile))
	case text == "":
		return Private{}, corrupt(path, "is empty")
	}
	key, err := ParsePrivate(text)
	if err != nil {
		return Private{}, corrupt(path, "is damaged ("+err.Error()+")")
	}
	return key, nil
}

func corrupt(path, problem string) error {
	return &FileError{
		Path:    path,
		Problem: problem,
		Fix:     "restore it from a backup, or move it away and start again with a new key, which is a new identity",
		Err:     ErrCorrupt,
	}
}

// LoadOrCreate loads a key file as [Load] does, or makes one with a new key and
// mode 0600. The file appears whole or not at all and is on disk when
// LoadOrCreate returns. Of callers at the same time, in whatever processes, one
// makes the file and all get its key. The directory must exist.
func LoadOrCreate(path string) (Private, error) {
	key, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = New(); err != nil {
		return Private{}, err
	}
	dir := filepath.Dir(path)
	err = create(dir, path, key)
	if errors.Is(err, fs.ErrExist) {
		// Another caller was faster. Whoever wins may still have to bring the
		// directory to disk, and this caller must not use the key before that.
		if key, err = Load(path); err != nil {
			return Private{}, err
		}
		err = syncDir(dir)
	}
	if err != nil {
		return Private{}, fmt.Errorf("create key %s: %w", path, err)
	}
	return key, nil
}

// create makes the file of a new key; fs.ErrExist when there is one.
func create(dir, path string, key Private) (err error) {
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // O_EXCL, mode 0600
	if err != nil {
		return err
	}
	defer func() {
		// Gone already when it was renamed.
		if rerr := os.Remove(tmp.Name()); err == nil && rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = rerr
		}
	}()
	b := key.Expose()
	_, err = io.WriteString(tmp, base64.StdEncoding.EncodeToString(b[:])+"\n")
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := renameNew(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// linkNew gives tmp its second name, where a system or a file system knows no
// rename that spares an existing file. The caller removes the first.
func linkNew(tmp, path string) error { return os.Link(tmp, path) }

// shellQuote makes a path fit to be pasted into a POSIX shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:@", r)
	}
	if s != "" && !strings.HasPrefix(s, "-") && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	if strings.HasPrefix(s, "-") {
		s = "./" + s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
