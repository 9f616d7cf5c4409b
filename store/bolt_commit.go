package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/wgexpose/wgexpose/statedir"
)

// maxBatch bounds the commits that share one write to the disk.
const maxBatch = 128

// A request is one Commit on its way through the writer.
type request struct {
	ops  []Op
	done chan struct{} // closed by the writer once the rest is set

	rev  Revision
	keys []string // changed
	err  error
}

// Commit hands the operations to the writer, and waits for what became of
// them. A context that ends before the writer has taken them withdraws them;
// afterwards the answer, which is near, is waited for.
func (b *Bolt) Commit(ctx context.Context, ops ...Op) (Revision, error) {
	if err := b.ready(ctx); err != nil {
		return 0, err
	}
	if err := validOps(ops); err != nil {
		return 0, err
	}
	r := &request{ops: ops, done: make(chan struct{})}
	select {
	case b.queue <- r:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-b.closing:
		return 0, ErrClosed
	}
	<-r.done
	if r.err != nil {
		return 0, r.err
	}
	return r.rev, nil
}

// write is the only goroutine that changes the file. The commits that came in
// while the last ones were being synced share the next transaction: a sync
// takes the same time for one as for a hundred.
func (b *Bolt) write() {
	for {
		var batch []*request
		select {
		case r := <-b.queue:
			batch = append(batch, r)
		case <-b.closing:
			return
		}
		for more := true; more && len(batch) < maxBatch; {
			select {
			case r := <-b.queue:
				batch = append(batch, r)
			default:
				more = false
			}
		}
		b.serve(batch)
	}
}

// serve applies a batch and answers it.
func (b *Bolt) serve(batch []*request) {
	err := b.apply(batch)
	if err != nil && b.broken == nil && len(batch) > 1 {
		// One that is too much for the disk must not fail the others.
		for _, r := range batch {
			b.serve([]*request{r})
		}
		return
	}
	for _, r := range batch {
		if err != nil {
			r.err = err
		} else if r.err == nil && len(r.keys) > 0 {
			b.watchers.publish(r.rev, r.keys)
		}
		close(r.done)
	}
}

// errUnchanged rolls a transaction back that has nothing to write.
var errUnchanged = errors.New("nothing to write")

// apply runs a batch in one transaction. Conflicts are set in their requests;
// an error is one of all of them.
func (b *Bolt) apply(batch []*request) error {
	if b.broken != nil {
		return b.broken
	}
	var rev Revision // of the last change; 0 before there is something to write
	err := guard(b.path, func() error {
		return b.db.Update(func(tx *bbolt.Tx) error {
			l, err := readLedger(b.path, tx)
			if err != nil {
				return err
			}
			before := l.rev
			for _, r := range batch {
				r.keys, r.err = b.applyOne(tx, &l, r.ops)
				if r.err != nil && !errors.Is(r.err, ErrConflict) {
					return r.err
				}
				r.rev = l.rev
			}
			if rev = l.rev; rev == before {
				return errUnchanged
			}
			return l.write(tx)
		})
	})
	if err == nil || errors.Is(err, errUnchanged) {
		return nil
	}
	return b.failed(err, rev)
}

// failed finds out what an unsuccessful write has left behind.
func (b *Bolt) failed(err error, rev Revision) error {
	if p := (*panicError)(nil); errors.As(err, &p) {
		b.stuck = true
		b.broken = fmt.Errorf("%w until it is opened again: %w", ErrBroken, err)
		return fmt.Errorf("commit: %w; %w", ErrUncertain, b.broken)
	}
	if e := (*statedir.Error)(nil); errors.As(statedir.Explain("write", b.path, cause(err)), &e) {
		err = e
	}
	if rev == 0 {
		return fmt.Errorf("commit: %w", err)
	}
	// bbolt writes and syncs the data, then the page that makes it valid. When
	// syncing that last page fails, the new state is what is read from now on,
	// and what the disk holds is known to nobody: a later sync that succeeds
	// does not say that the lost pages were written (https://lwn.net/Articles/752063/).
	var now Revision
	viewErr := b.view(func(tx *bbolt.Tx) (err error) {
		now, err = b.revision(tx)
		return err
	})
	if viewErr == nil && now < rev {
		return fmt.Errorf("commit: %w", err)
	}
	if viewErr == nil {
		b.watchers.publish(now, nil) // whoever reads, sees it
	}
	b.broken = fmt.Errorf("%w until it is opened again: %w", ErrBroken, errors.Join(err, viewErr))
	return fmt.Errorf("commit: %w; %w", ErrUncertain, b.broken)
}

// applyOne checks one commit's conditions, then makes its changes at the next
// revision. It has changed nothing when it returns a conflict.
func (b *Bolt) applyOne(tx *bbolt.Tx, l *ledger, ops []Op) (keys []string, err error) {
	data := tx.Bucket(dataBucket)
	olds := make([][]byte, len(ops)) // in the mapped file, valid until it is changed
	for i, op := range ops {
		var have Revision
		if olds[i] = data.Get([]byte(op.Key)); olds[i] != nil {
			if have, _, err = unseal([]byte(op.Key), olds[i]); err != nil {
				return nil, &CorruptError{Path: b.path, Reason: fmt.Sprintf("key %q: %v", op.Key, err)}
			}
		}
		if !op.Any && have != op.If {
			return nil, &ConflictError{Key: op.Key, Want: op.If, Have: have}
		}
	}
	next := l.rev + 1
	for i, op := range ops {
		key := []byte(op.Key)
		if op.Check || op.Value == nil && olds[i] == nil {
			continue
		}
		if olds[i] != nil {
			l.remove(olds[i])
		}
		if op.Value == nil {
			err = data.Delete(key)
		} else {
			sealed := seal(key, next, op.Value)
			l.add(sealed)
			err = data.Put(key, sealed)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op.Key, err)
		}
		keys = append(keys, op.Key)
		l.rev = next
	}
	slices.Sort(keys)
	return keys, nil
}
