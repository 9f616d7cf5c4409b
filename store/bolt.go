package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// The buckets of the file. All values are sealed. In the meta bucket "schema"
// holds the schema version in decimal, the same way in all versions, so that
// every program can tell which one it has before it; "revision" is the ledger.
var (
	metaBucket  = []byte("meta")
	dataBucket  = []byte("data")
	schemaKey   = []byte("schema")
	revisionKey = []byte("revision")
)

// schema is the version of the records and of how the file holds them.
const schema = 1

// A Bolt is a [Store] in one bbolt file, held by one process at a time.
type Bolt struct {
	path     string
	db       *bbolt.DB
	file     *os.File // db's own; closed by itself only when db cannot be
	watchers *watchers

	queue   chan *request // to the writer; unbuffered, so that what is sent is served
	closing chan struct{} // closed by Close: no more requests
	writer  sync.WaitGroup

	close    sync.Once
	closeErr error // set in close
	// Set by the writer alone, and read by Close once the writer has ended.
	broken error
	stuck  bool // bbolt panicked, and may hold its own locks
}

// Get reads one entry.
func (b *Bolt) Get(ctx context.Context, key string) (Entry, error) {
	if err := b.ready(ctx); err != nil {
		return Entry{}, err
	}
	if err := validKey(key); err != nil {
		return Entry{}, err
	}
	var entry Entry
	err := b.view(func(tx *bbolt.Tx) error {
		sealed := tx.Bucket(dataBucket).Get([]byte(key))
		if sealed == nil {
			return fmt.Errorf("%s: %w", key, ErrNotFound)
		}
		var err error
		entry, err = b.entry([]byte(key), sealed)
		return err
	})
	return entry, err
}

// GetAll reads some entries in one snapshot.
func (b *Bolt) GetAll(ctx context.Context, keys []string) ([]Entry, Revision, error) {
	if err := b.ready(ctx); err != nil {
		return nil, 0, err
	}
	for _, key := range keys {
		if err := validKey(key); err != nil {
			return nil, 0, err
		}
	}
	var entries []Entry
	var rev Revision
	err := b.view(func(tx *bbolt.Tx) error {
		var err error
		if rev, err = b.revision(tx); err != nil {
			return err
		}
		data := tx.Bucket(dataBucket)
		for _, key := range keys {
			sealed := data.Get([]byte(key))
			if sealed == nil {
				continue
			}
			entry, err := b.entry([]byte(key), sealed)
			if err != nil {
				return err
			}
			entries = append(entries, entry)
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return entries, rev, nil
}

// List reads all entries of a prefix in one snapshot.
func (b *Bolt) List(ctx context.Context, prefix string) ([]Entry, Revision, error) {
	if err := b.ready(ctx); err != nil {
		return nil, 0, err
	}
	var entries []Entry
	var rev Revision
	err := b.view(func(tx *bbolt.Tx) error {
		var err error
		if rev, err = b.revision(tx); err != nil {
			return err
		}
		c := tx.Bucket(dataBucket).Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
			entry, err := b.entry(k, v)
			if err != nil {
				return err
			}
			if entries = append(entries, entry); len(entries)%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return entries, rev, nil
}

// Watch reports changes.
func (b *Bolt) Watch(ctx context.Context, after Revision) (<-chan Change, error) {
	return b.watchers.watch(ctx, after)
}

// Close ends the store. Commits that wait for their turn are answered with
// [ErrClosed], those that the writer has begun are finished.
func (b *Bolt) Close() error {
	b.close.Do(func() {
		close(b.closing)
		b.writer.Wait()
		b.watchers.close()
		if b.stuck {
			// The mapping stays until the process ends.
			b.closeErr = abandon(b.file)
			return
		}
		// Waits for the readers.
		b.closeErr = guard(b.path, b.db.Close)
	})
	return b.closeErr
}

// ready answers for calls that need not begin.
func (b *Bolt) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-b.closing:
		return ErrClosed
	default:
		return nil
	}
}

// view runs fn on a snapshot.
func (b *Bolt) view(fn func(*bbolt.Tx) error) error {
	err := guard(b.path, func() error { return b.db.View(fn) })
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// revision reads the store's revision.
func (b *Bolt) revision(tx *bbolt.Tx) (Revision, error) {
	l, err := readLedger(b.path, tx)
	return l.rev, err
}

// entry copies an entry out of the mapped file.
func (b *Bolt) entry(key, sealed []byte) (Entry, error) {
	rev, value, err := unseal(key, sealed)
	if err != nil {
		return Entry{}, &CorruptError{Path: b.path, Reason: fmt.Sprintf("key %q: %v", key, err)}
	}
	return Entry{Key: string(key), Value: append([]byte{}, value...), Revision: rev}, nil
}

// guard runs fn, which uses bbolt, and turns what bbolt does on a damaged file
// into an error: it panics on some contradictions, and reads from a mapping,
// where a page that the disk cannot give back, or that was cut off while the
// file is open, is a fault of the processor.
func guard(path string, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{CorruptError{Path: path, Reason: fmt.Sprint(p)}}
		}
	}()
	return fn()
}

// A panicError is damage that bbolt ran into. Its locks may be held for ever.
type panicError struct{ CorruptError }

// Unwrap shows the damage to errors.As.
func (e *panicError) Unwrap() error { return &e.CorruptError }
