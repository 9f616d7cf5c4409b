package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A sealed value is what the file holds for a key:
//
//	| revision 8 | checksum 4 | value … |   big endian
//
// bbolt has checksums for its two meta pages only, so each value carries its
// own, over key, revision and value: a bit that flipped on the disk becomes an
// error and never another record.
const sealSize = 12

var errSeal = errors.New("its checksum is wrong")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func seal(key []byte, rev Revision, value []byte) []byte {
	sealed := make([]byte, sealSize, sealSize+len(value))
	binary.BigEndian.PutUint64(sealed, uint64(rev))
	sealed = append(sealed, value...)
	binary.BigEndian.PutUint32(sealed[8:], sealSum(key, sealed))
	return sealed
}

// unseal gives the revision and the value, which lies in sealed.
func unseal(key, sealed []byte) (Revision, []byte, error) {
	if len(sealed) < sealSize || checksum(sealed) != sealSum(key, sealed) {
		return 0, nil, errSeal
	}
	return Revision(binary.BigEndian.Uint64(sealed)), sealed[sealSize:], nil
}

// checksum reads it off a value whose seal was looked at.
func checksum(sealed []byte) uint32 { return binary.BigEndian.Uint32(sealed[8:]) }

func sealSum(key, sealed []byte) uint32 {
	sum := crc32.Update(0, castagnoli, key)
	sum = crc32.Update(sum, castagnoli, sealed[:8])
	return crc32.Update(sum, castagnoli, sealed[sealSize:])
}
