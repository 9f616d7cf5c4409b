package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// An Item is a record and the revision to change it by.
type Item[T any] struct {
	Value    T
	Revision Revision
}

// Read gets one record and its revision. [ErrNotFound] and a [*RecordError]
// are in the chain of its errors.
func Read[T any](ctx context.Context, s Store, key string) (T, Revision, error) {
	entry, err := s.Get(ctx, key)
	if err != nil {
		var none T
		return none, 0, err
	}
	v, err := Decode[T](entry)
	return v, entry.Revision, err
}

// ReadAll gets the records of a prefix by key, as of the revision that it returns.
func ReadAll[T any](ctx context.Context, s Store, prefix string) (map[string]Item[T], Revision, error) {
	entries, rev, err := s.List(ctx, prefix)
	if err != nil {
		return nil, 0, err
	}
	all := make(map[string]Item[T], len(entries))
	for _, entry := range entries {
		v, err := Decode[T](entry)
		if err != nil {
			return nil, 0, err
		}
		all[entry.Key] = Item[T]{v, entry.Revision}
	}
	return all, rev, nil
}

// Put makes an operation that stores a record under a key which has the given
// revision, or, with revision 0, does not exist.
func Put[T any](key string, v T, ifRev Revision) (Op, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return Op{}, &RecordError{key, err}
	}
	if len(value) > MaxValue {
		return Op{}, &RecordError{key, fmt.Errorf("%w: %d bytes are more than %d", ErrInvalid, len(value), MaxValue)}
	}
	return Op{Key: key, Value: value, If: ifRev}, nil
}

// Decode reads the record out of an entry: one JSON value of the record's
// shape and nothing after it. Fields that this program does not know are
// skipped: a program of the same schema version may have added them.
func Decode[T any](entry Entry) (T, error) {
	var v, none T
	if len(entry.Value) > MaxValue {
		return none, &RecordError{entry.Key, fmt.Errorf("%d bytes are more than %d", len(entry.Value), MaxValue)}
	}
	// encoding/json takes null for any value, and leaves it as it is.
	if bytes.Equal(bytes.TrimSpace(entry.Value), []byte("null")) {
		return none, &RecordError{entry.Key, errors.New("it is null")}
	}
	d := json.NewDecoder(bytes.NewReader(entry.Value))
	if err := d.Decode(&v); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it ends too early")
		}
		return none, &RecordError{entry.Key, err}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return none, &RecordError{entry.Key, errors.New("there is something after it")}
	}
	return v, nil
}
