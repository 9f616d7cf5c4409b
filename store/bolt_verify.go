package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// The on-disk format of bbolt 1.x (its internal/common: meta.go, page.go,
// bucket.go), in the byte order of the machine:
//
//	page    | id 8 | flags 2 | count 2 | overflow 4 | elements … | keys and values … |
//	meta    | header | magic 4 | version 4 | page size 4 | flags 4 | root page 8 | sequence 8 | freelist 8 | pages 8 | txid 8 | fnv-1a 8 |
//	branch  count × | pos 4 | key size 4 | page 8 |              pos counts from the element
//	leaf    count × | flags 4 | pos 4 | key size 4 | value size 4 |
//	bucket  the value of a leaf element with flag 1: | root page 8 | sequence 8 |, and with root 0 a leaf page inside
//	free    count × | page 8 |; count 65535: the first is the count
const (
	pageHeader   = 16
	elementSize  = 16
	bucketHeader = 16

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	flagBucket   = 0x01

	boltMagic  = 0xED0CDAED
	noFreelist = math.MaxUint64
)

var order = binary.NativeEndian

// verifier walks every page that can be reached, each once, and trusts none.
//
// bbolt itself takes its pages at their word: a wrong number makes it panic,
// loop, or read outside of its mapping. Its own Check does too.
//
// What bbolt never writes is damage even where it can be read, because bbolt
// relies on it to write. It finds a page's place in the branch above by the
// page's first key (its node.go, spill and rebalance): under any other key the
// new page would be put beside the old one, which is free to be overwritten
// from then on. And it panics at an empty key, and at a branch of one page.
type verifier struct {
	r        io.ReaderAt
	pageSize uint64
	pages    uint64          // below this number, in the file and in use
	used     map[uint64]bool // page numbers that something refers to
}

// verifyPages checks the structure of a bbolt file of which one of the first two pages is valid.
func verifyPages(r io.ReaderAt, size int64, pageSize int) error {
	if pageSize < 512 || int64(pageSize)*2 > size {
		return fmt.Errorf("it has %d bytes, and pages of %d", size, pageSize)
	}
	v := &verifier{r: r, pageSize: uint64(pageSize), used: map[uint64]bool{0: true, 1: true}}
	m, err := v.meta()
	if err != nil {
		return err
	}
	if m.pages > uint64(size)/v.pageSize {
		return fmt.Errorf("it is cut off: %d of %d pages are there", uint64(size)/v.pageSize, m.pages)
	}
	v.pages = m.pages
	if err := v.tree(m.root, nil, nil); err != nil {
		return err
	}
	if m.freelist == noFreelist {
		return fmt.Errorf("it has no list of free pages")
	}
	return v.freelist(m.freelist)
}

type boltMeta struct {
	root, freelist, pages, txid uint64
}

// meta gives the newer of the two valid meta pages, as bbolt chooses it.
func (v *verifier) meta() (best boltMeta, err error) {
	found := false
	for n := range uint64(2) {
		page := make([]byte, pageHeader+64)
		if _, err := v.r.ReadAt(page, int64(n*v.pageSize)); err != nil {
			return best, err
		}
		b := page[pageHeader:]
		sum := fnv.New64a()
		sum.Write(b[:56])
		if order.Uint32(b) != boltMagic || order.Uint64(b[56:]) != sum.Sum64() || uint64(order.Uint32(b[8:])) != v.pageSize {
			continue
		}
		m := boltMeta{root: order.Uint64(b[16:]), freelist: order.Uint64(b[32:]), pages: order.Uint64(b[40:]), txid: order.Uint64(b[48:])}
		if !found || m.txid > best.txid {
			best, found = m, true
		}
	}
	if !found {
		return best, fmt.Errorf("both of its first pages are invalid")
	}
	return best, nil
}

// page reads a page with what overflows from it, and claims its numbers.
func (v *verifier) page(n uint64) ([]byte, error) {
	if n < 2 || n >= v.pages {
		return nil, fmt.Errorf("there is a reference to page %d of %d", n, v.pages)
	}
	head := make([]byte, pageHeader)
	if _, err := v.r.ReadAt(head, int64(n*v.pageSize)); err != nil {
		return nil, fmt.Errorf("page %d: %w", n, err)
	}
	if id := order.Uint64(head); id != n {
		return nil, fmt.Errorf("page %d says that it is page %d", n, id)
	}
	more := uint64(order.Uint32(head[12:]))
	if n+more >= v.pages {
		return nil, fmt.Errorf("page %d goes on to page %d of %d", n, n+more, v.pages)
	}
	for i := n; i <= n+more; i++ {
		if v.used[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		v.used[i] = true
	}
	page := make([]byte, (more+1)*v.pageSize)
	if _, err := v.r.ReadAt(page, int64(n*v.pageSize)); err != nil {
		return nil, fmt.Errorf("page %d: %w", n, err)
	}
	return page, nil
}

// tree checks the pages from n down, whose first key must be first, and all of
// whose keys must be below high; nil is any.
func (v *verifier) tree(n uint64, first, high []byte) error {
	page, err := v.page(n)
	if err != nil {
		return err
	}
	switch flags := order.Uint16(page[8:]); flags {
	case flagLeaf:
		if err := v.leaf(page, first, high); err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
		return nil
	case flagBranch:
		return v.branch(n, page, first, high)
	default:
		return fmt.Errorf("page %d has the type %#x inside a tree", n, flags)
	}
}

func (v *verifier) branch(n uint64, page, first, high []byte) error {
	count := int(order.Uint16(page[10:]))
	if count < 2 {
		return fmt.Errorf("page %d is a branch with %d pages below it", n, count)
	}
	keys := make([][]byte, count)
	children := make([]uint64, count)
	for i := range count {
		at := pageHeader + i*elementSize
		if at+elementSize > len(page) {
			return fmt.Errorf("page %d: element %d is outside of it", n, i)
		}
		key, ok := slice(page, at, order.Uint32(page[at:]), order.Uint32(page[at+4:]))
		if !ok {
			return fmt.Errorf("page %d: key %d is outside of it", n, i)
		}
		if err := inOrder(i, key, keys, first, high); err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
		keys[i], children[i] = key, order.Uint64(page[at+8:])
	}
	for i, child := range children {
		next := high
		if i+1 < count {
			next = keys[i+1]
		}
		if err := v.tree(child, keys[i], next); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks a leaf page, or a small bucket's page inside of a value. Only one
// that is a whole tree may be empty.
func (v *verifier) leaf(page, first, high []byte) error {
	count := int(order.Uint16(page[10:]))
	if count == 0 && first != nil {
		return fmt.Errorf("there is nothing in it")
	}
	keys := make([][]byte, count)
	for i := range count {
		at := pageHeader + i*elementSize
		if at+elementSize > len(page) {
			return fmt.Errorf("element %d is outside of it", i)
		}
		pos, ksize, vsize := order.Uint32(page[at+4:]), order.Uint32(page[at+8:]), order.Uint32(page[at+12:])
		both, ok := slice(page, at, pos, ksize)
		if !ok {
			return fmt.Errorf("key %d is outside of it", i)
		}
		key := both
		if both, ok = slice(page, at, pos, uint32(min(uint64(ksize)+uint64(vsize), math.MaxUint32))); !ok {
			return fmt.Errorf("value %d is outside of it", i)
		}
		if err := inOrder(i, key, keys, first, high); err != nil {
			return err
		}
		keys[i] = key
		switch flags := order.Uint32(page[at:]); flags {
		case 0:
		case flagBucket:
			if err := v.bucket(both[ksize:]); err != nil {
				return fmt.Errorf("bucket %q: %w", key, err)
			}
		default:
			return fmt.Errorf("key %q has the type %#x", key, flags)
		}
	}
	return nil
}

// bucket checks what a bucket's value leads to.
func (v *verifier) bucket(value []byte) error {
	if len(value) < bucketHeader {
		return fmt.Errorf("its header is cut off")
	}
	if root := order.Uint64(value); root != 0 {
		return v.tree(root, nil, nil)
	}
	page := value[bucketHeader:]
	if len(page) < pageHeader || order.Uint64(page) != 0 || order.Uint16(page[8:]) != flagLeaf {
		return fmt.Errorf("there is no page in it")
	}
	return v.leaf(page, nil, nil)
}

func (v *verifier) freelist(n uint64) error {
	page, err := v.page(n)
	if err != nil {
		return err
	}
	if flags := order.Uint16(page[8:]); flags != flagFreelist {
		return fmt.Errorf("page %d has the type %#x and not that of the free list", n, flags)
	}
	ids, count := page[pageHeader:], uint64(order.Uint16(page[10:]))
	if count == math.MaxUint16 {
		count, ids = order.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids))/8 {
		return fmt.Errorf("page %d: %d free pages do not fit into it", n, count)
	}
	for i := range count {
		id := order.Uint64(ids[i*8:])
		if id < 2 || id >= v.pages {
			return fmt.Errorf("page %d of %d is said to be free", id, v.pages)
		}
		if v.used[id] {
			return fmt.Errorf("page %d is in use and free", id)
		}
		v.used[id] = true
	}
	return nil
}

// slice cuts size bytes out of a page, at pos from an element.
func slice(page []byte, element int, pos, size uint32) ([]byte, bool) {
	from := uint64(element) + uint64(pos)
	to := from + uint64(size)
	if to > uint64(len(page)) {
		return nil, false
	}
	return page[from:to], true
}

// inOrder holds key i against the one before it, and against what the branch
// above says of the page.
func inOrder(i int, key []byte, keys [][]byte, first, high []byte) error {
	switch {
	case len(key) == 0:
		return fmt.Errorf("key %d is empty", i)
	case i == 0 && first != nil && !bytes.Equal(key, first):
		return fmt.Errorf("it begins with key %q, and the page above it says %q", key, first)
	case i > 0 && bytes.Compare(key, keys[i-1]) <= 0, high != nil && bytes.Compare(key, high) >= 0:
		return fmt.Errorf("key %d is not in order", i)
	}
	return nil
}
