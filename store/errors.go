package store

import (
	"errors"
	"fmt"
)

// What callers branch on.
var (
	ErrNotFound  = errors.New("no such key")
	ErrConflict  = errors.New("changed by somebody else")
	ErrInvalid   = errors.New("not a valid store operation")
	ErrClosed    = errors.New("the store is closed")
	ErrLocked    = errors.New("the database is in use by another process")
	ErrUncertain = errors.New("the change may have been made")
	ErrBroken    = errors.New("the database takes no more changes")
)

// A ConflictError says which key of a commit did not have the revision that
// was expected. It satisfies errors.Is(err, ErrConflict).
type ConflictError struct {
	Key  string
	Want Revision // 0: it was not to exist
	Have Revision // 0: it does not exist
}

// Error names the key and both revisions.
func (e *ConflictError) Error() string {
	switch {
	case e.Want == 0:
		return fmt.Sprintf("%s exists already", e.Key)
	case e.Have == 0:
		return fmt.Sprintf("%s does not exist any more", e.Key)
	}
	return fmt.Sprintf("%s was changed by somebody else (it has revision %d, not %d)", e.Key, e.Have, e.Want)
}

// Is makes every conflict an [ErrConflict].
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// A CorruptError says that a database file is damaged. Nothing was written to
// it, and nothing is guessed about its content.
type CorruptError struct {
	Path   string
	Reason string // what was found: "page 7 says that it is page 0"
}

// Error says what to do about it.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("the database %s is damaged (%s): restore it from a copy, "+
		"or move it away to start with an empty one", e.Path, e.Reason)
}

// A VersionError says that a database was written by a newer program. Nothing
// was written to it.
type VersionError struct {
	Path      string
	Found     int // the schema version of the file
	Supported int // the newest that this program knows
}

// Error names both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("the database %s has schema version %d, and this program knows up to %d: "+
		"use the newer wgexpose that wrote it", e.Path, e.Found, e.Supported)
}

// A RecordError says that a stored value is not the record that its key stands for.
type RecordError struct {
	Key string
	Err error
}

// Error names the key and what is wrong with its value.
func (e *RecordError) Error() string { return fmt.Sprintf("record %s: %v", e.Key, e.Err) }

// Unwrap gives the decoder's error.
func (e *RecordError) Unwrap() error { return e.Err }
