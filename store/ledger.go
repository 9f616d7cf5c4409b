package store

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// A ledger says what is in the data bucket: at which revision, how many
// entries, and the sum of their checksums. Without it an entry that is gone,
// because one bit of a page's count of entries has flipped, would never be missed.
// It is the sealed value of "revision": | count 8 | sum 8 |.
type ledger struct {
	rev        Revision
	count, sum uint64
}

func (l *ledger) add(sealed []byte) {
	l.count++
	l.sum += uint64(checksum(sealed))
}

func (l *ledger) remove(sealed []byte) {
	l.count--
	l.sum -= uint64(checksum(sealed))
}

func (l *ledger) write(tx *bbolt.Tx) error {
	value := binary.BigEndian.AppendUint64(nil, l.count)
	value = binary.BigEndian.AppendUint64(value, l.sum)
	return tx.Bucket(metaBucket).Put(revisionKey, seal(revisionKey, l.rev, value))
}

func readLedger(path string, tx *bbolt.Tx) (ledger, error) {
	rev, value, err := unseal(revisionKey, tx.Bucket(metaBucket).Get(revisionKey))
	if err == nil && len(value) != 16 {
		err = fmt.Errorf("it has %d bytes", len(value))
	}
	if err != nil {
		return ledger{}, &CorruptError{Path: path, Reason: "the store's revision: " + err.Error()}
	}
	return ledger{rev: rev, count: binary.BigEndian.Uint64(value), sum: binary.BigEndian.Uint64(value[8:])}, nil
}
