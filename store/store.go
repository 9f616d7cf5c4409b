// Package store keeps what an edge must not forget: its settings, nodes,
// invites, and who owns which public name and port.
//
//	s, err := store.OpenBolt("/var/lib/wgexpose/edge.db")
//
//	invite, rev, err := store.Read[store.Invite](ctx, s, store.InviteKey(id))
//	invite.Revoked = true
//	op, err := store.Put(store.InviteKey(id), invite, rev)
//	_, err = s.Commit(ctx, op)              // ErrConflict: somebody changed it in between
//
//	changes, err := s.Watch(ctx, rev)       // and everybody who watches is told
//
// A [Store] maps keys to small values under one revision counter. All changes
// are compare-and-swap transactions, durable when acknowledged, and all
// reactions come out of Watch: nobody is called back in the middle of a write.
// [Bolt] keeps one on a single machine. The records themselves, JSON under
// typed keys, are at [Settings], [Node], [Invite] and [Public].
package store

import (
	"context"
	"fmt"
	"unicode/utf8"
)

// Limits that every store holds, so that what one backend takes the next one
// does too. etcd's defaults are 1.5 MiB a request and 128 operations a
// transaction; a cluster that serves as a store needs --max-txn-ops=1024.
const (
	MaxKey    = 512       // bytes of a key
	MaxValue  = 256 << 10 // bytes of a value
	MaxOps    = 1024      // operations of a commit
	MaxCommit = 1 << 20   // bytes of all keys and values of a commit
)

// A Revision counts the commits that changed something, from 1. Zero is the
// revision of an empty store, and stands for "there is no such key".
type Revision uint64

// An Entry is one key as it was found. Its value is the caller's own.
type Entry struct {
	Key      string
	Value    []byte   // never nil
	Revision Revision // of the last change of this key
}

// An Op is one part of a commit. The zero If demands that the key does not
// exist, so that an Op which says nothing creates and never overwrites.
type Op struct {
	Key   string
	Value []byte   // the new value; nil deletes
	If    Revision // the revision that the key must have; 0: it must not exist
	Any   bool     // whatever revision it has, or none
	Check bool     // only hold the key to If: it keeps its value and its revision
}

// A Change tells a watcher that the store has moved on.
type Change struct {
	Revision Revision // the store's, when the last of these changes was made
	Keys     []string // the keys that changed, sorted; nil: any key may have
}

// A Store holds an edge's records.
//
// All methods are safe for concurrent use, beside Close too, and return the
// context's error once it has ended. Keys are valid UTF-8 of 1 to [MaxKey]
// bytes without control characters, and sort by their bytes; slashes mean
// nothing to the store. Arguments are not kept and not changed, and results
// are the caller's own. A nil value cannot be stored, an empty one can.
//
// The one counter of revisions belongs to the stored data: it goes up by one
// with each commit that changes something, and never goes back, neither when
// keys are deleted nor when the store is closed, killed, or opened by another
// process. A revision therefore names one state of the store for good.
//
// After Close, all methods return [ErrClosed].
type Store interface {
	// Get returns one entry, as of the newest commit: whoever was answered by
	// Commit, or told by Watch, finds at least that state. For a key that does
	// not exist the error has [ErrNotFound] in its chain.
	Get(ctx context.Context, key string) (Entry, error)

	// GetAll returns the entries of those of the keys that exist, in the order of
	// the keys, and the revision of the store. All are of one moment.
	GetAll(ctx context.Context, keys []string) ([]Entry, Revision, error)

	// List returns all entries whose keys begin with the prefix, sorted by
	// key, and the revision of the store. Both are of one moment: no commit is
	// half in it, and a Watch after that revision misses nothing. An empty
	// prefix lists all, and a prefix without keys gives no entries and no error.
	List(ctx context.Context, prefix string) ([]Entry, Revision, error)

	// Commit applies all operations, or none, at one revision, which it
	// returns. When it returns nil they are durable: they survive the end of
	// the process and of the machine's power.
	//
	// First all conditions are held against the same state. If one fails,
	// nothing is changed and the error is a [*ConflictError] with the first
	// such key in the order of the operations; read again and decide anew.
	// Concurrent commits have the effect of some order one after the other.
	//
	// A key may occur once. Deleting what does not exist changes nothing. A
	// commit that changes nothing leaves the revision as it is and returns it;
	// storing the value that is there already is a change. Operations that
	// break a limit are [ErrInvalid].
	//
	// With another error nothing has changed, with two exceptions that the
	// error names: [ErrUncertain] says that it may have been applied, and
	// [ErrBroken] that the store takes no more commits until it is opened anew.
	Commit(ctx context.Context, ops ...Op) (Revision, error)

	// Watch reports what changes after the given revision, which is one that
	// this store has returned. What has happened since by the time of the call
	// comes as one first Change.
	//
	// Changes come in the order of their revisions, each one higher than the
	// one before. A receiver that is slow costs nobody anything: changes that
	// it has not taken are merged into one, with the keys of all and the last
	// revision. If they become many, Keys is nil, and any key may have changed.
	// The last change is never lost: when no more commits come, the receiver
	// is left with one that has the store's revision. So the way to follow a
	// store is to list, to watch after that revision, and to read again
	// whatever keys are named, all of them when none are.
	//
	// The channel is closed when ctx ends or the store is closed.
	Watch(ctx context.Context, after Revision) (<-chan Change, error)

	// Close ends all watches, waits for the calls under way, and releases the
	// store. A second call returns what the first did.
	Close() error
}

// Delete makes an operation that removes a key which has the given revision.
func Delete(key string, ifRev Revision) Op { return Op{Key: key, If: ifRev} }

// Check makes an operation that changes nothing, and fails the commit unless
// the key has the given revision; with 0, unless it does not exist.
func Check(key string, ifRev Revision) Op { return Op{Key: key, If: ifRev, Check: true} }

// validKey refuses keys that some backend, or a log line, could not carry.
func validKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: the key is empty", ErrInvalid)
	case len(key) > MaxKey:
		return fmt.Errorf("%w: a key of %d bytes is longer than %d", ErrInvalid, len(key), MaxKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("%w: key %q is not UTF-8", ErrInvalid, key)
	}
	for _, r := range key {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("%w: key %q has a control character", ErrInvalid, key)
		}
	}
	return nil
}

// validOps holds the operations of a commit to the limits.
func validOps(ops []Op) error {
	if len(ops) > MaxOps {
		return fmt.Errorf("%w: %d operations in one commit are more than %d", ErrInvalid, len(ops), MaxOps)
	}
	seen := make(map[string]bool, len(ops))
	total := 0
	for _, op := range ops {
		if err := validKey(op.Key); err != nil {
			return err
		}
		if seen[op.Key] {
			return fmt.Errorf("%w: key %q occurs twice in one commit", ErrInvalid, op.Key)
		}
		seen[op.Key] = true
		if len(op.Value) > MaxValue {
			return fmt.Errorf("%w: the value of %q has %d bytes, more than %d", ErrInvalid, op.Key, len(op.Value), MaxValue)
		}
		if op.Check && op.Value != nil {
			return fmt.Errorf("%w: the check of %q has a value", ErrInvalid, op.Key)
		}
		if op.Any && (op.If != 0 || op.Check) {
			return fmt.Errorf("%w: the condition of %q is both any and a revision", ErrInvalid, op.Key)
		}
		total += len(op.Key) + len(op.Value)
	}
	if total > MaxCommit {
		return fmt.Errorf("%w: a commit of %d bytes is larger than %d", ErrInvalid, total, MaxCommit)
	}
	return nil
}
