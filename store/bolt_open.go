package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/wgexpose/wgexpose/statedir"
)

// lockTimeout is how long to wait for the file's lock. It is not zero because
// another process that looks whether it may open the file holds it for a moment.
const lockTimeout = 200 * time.Millisecond

// OpenBolt opens the store in a file, which it makes with mode 0600 where it is
// missing; its directory must exist.
//
// The file is read through before anything is written to it. While another
// process has it open the error has [ErrLocked] in its chain, a file of a newer
// program is a [*VersionError], and a damaged one, an empty one or one of
// another program a [*CorruptError]; such files stay as they are, byte for byte.
func OpenBolt(path string) (*Bolt, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, openError(path, err)
		}
	}
	// With a shared lock first, so that this much can be said of any file.
	rev, err := inspect(path)
	if err != nil {
		return nil, openError(path, err)
	}
	if err := makePrivate(path); err != nil {
		return nil, openError(path, err)
	}
	db, file, err := openFile(path, false)
	if err != nil {
		return nil, openError(path, err)
	}
	b := &Bolt{path: path, db: db, file: file, queue: make(chan *request), closing: make(chan struct{})}
	// Another process may have had its turn since.
	if err := b.view(func(tx *bbolt.Tx) (err error) { rev, err = b.revision(tx); return err }); err != nil {
		return nil, errors.Join(openError(path, err), guard(path, db.Close))
	}
	b.watchers = newWatchers(rev)
	b.writer.Go(b.write)
	return b, nil
}

// openFile opens a bbolt file, and gives its file too.
func openFile(path string, readOnly bool) (db *bbolt.DB, file *os.File, err error) {
	err = guard(path, func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockTimeout,
			ReadOnly:     readOnly,
			NoStatistics: true,
			FreelistType: bbolt.FreelistMapType,
			OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
				// Whether to make a file is create's decision.
				f, err := os.OpenFile(name, flag&^os.O_CREATE, perm)
				file = f
				return f, err
			},
		})
		return err
	})
	if p := (*panicError)(nil); errors.As(err, &p) && file != nil {
		// bbolt closes its file when it fails, but not when it panics.
		err = errors.Join(err, abandon(file))
	}
	return db, file, err
}

// create makes an empty store under another name and gives it its own when it
// is complete. So an empty or incomplete file is never the trace of a first
// start that was cut short, and always damage. Two processes may do this at
// once; the first one's file stays.
func create(path string) (err error) {
	temp := path + ".new-" + rand.Text()[:10]
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.Remove(temp); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	if err := f.Close(); err != nil {
		return err
	}
	db, _, err := openFile(temp, false)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket(dataBucket); err != nil {
			return err
		}
		return errors.Join(
			meta.Put(schemaKey, seal(schemaKey, 0, []byte(strconv.Itoa(schema)))),
			(&ledger{}).write(tx))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, does not replace what another process has made.
	err = os.Link(temp, path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// Some file systems have no links (FAT, some network and user ones).
		if _, serr := os.Lstat(path); errors.Is(serr, fs.ErrNotExist) {
			err = os.Rename(temp, path)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// inspect reads the whole file under a shared lock, and gives its revision.
func inspect(path string) (rev Revision, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if info.IsDir() {
		return 0, &fs.PathError{Op: "open", Path: path, Err: syscall.EISDIR}
	}
	if info.Size() == 0 {
		return 0, &CorruptError{Path: path, Reason: "it is empty"}
	}
	db, file, err := openFile(path, true)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, guard(path, db.Close)) }()
	if info, err = file.Stat(); err != nil {
		return 0, err
	}
	// bbolt must not see a file whose pages lead in circles: it would follow
	// them until the stack is full, and that nobody can recover from.
	if err := verifyPages(file, info.Size(), db.Info().PageSize); err != nil {
		return 0, &CorruptError{Path: path, Reason: err.Error()}
	}
	err = guard(path, func() error {
		return db.View(func(tx *bbolt.Tx) (err error) {
			rev, err = verifyValues(path, tx)
			return err
		})
	})
	return rev, err
}

// verifyValues holds every value against its checksum, the schema first, and
// all of them against the ledger.
func verifyValues(path string, tx *bbolt.Tx) (Revision, error) {
	damaged := func(format string, args ...any) error {
		return &CorruptError{Path: path, Reason: fmt.Sprintf(format, args...)}
	}
	meta, data := tx.Bucket(metaBucket), tx.Bucket(dataBucket)
	if meta == nil {
		return 0, damaged("it is not a database of wgexpose")
	}
	_, text, err := unseal(schemaKey, meta.Get(schemaKey))
	if err != nil {
		return 0, damaged("the schema version: %v", err)
	}
	version, err := strconv.Atoi(string(text))
	if err != nil || version < 1 {
		return 0, damaged("the schema version is %q", text)
	}
	if version > schema {
		return 0, &VersionError{Path: path, Found: version, Supported: schema}
	}
	if data == nil {
		return 0, damaged("it has no data bucket")
	}
	want, err := readLedger(path, tx)
	if err != nil {
		return 0, err
	}
	have := ledger{rev: want.rev}
	err = data.ForEach(func(k, v []byte) error {
		if v == nil {
			return damaged("there is a bucket at key %q", k)
		}
		rev, _, err := unseal(k, v)
		if err != nil {
			return damaged("key %q: %v", k, err)
		}
		if rev < 1 || rev > want.rev {
			return damaged("key %q has revision %d of %d", k, rev, want.rev)
		}
		have.add(v)
		return nil
	})
	if err == nil && have != want {
		err = damaged("%d of %d entries are there, or others than were stored", have.count, want.count)
	}
	return want.rev, err
}

// makePrivate takes a restored copy's rights from group and others.
func makePrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 == 0 || !hasModes {
		return nil
	}
	return os.Chmod(path, 0o600)
}

// openError says what a failure to open means for who started the program.
func openError(path string, err error) error {
	var corrupt *CorruptError
	var version *VersionError
	var state *statedir.Error
	var errno syscall.Errno
	switch {
	case errors.As(err, &corrupt), errors.As(err, &version):
		return err
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%w: %s is open elsewhere; stop that process first", ErrLocked, path)
	case errors.As(statedir.Explain("open", path, cause(err)), &state):
		return state
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch),
		!errors.As(err, &errno):
		// What has no error of the system behind it, bbolt found in the file.
		return &CorruptError{Path: path, Reason: err.Error()}
	}
	return fmt.Errorf("open database: %w", err)
}
