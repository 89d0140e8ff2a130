package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The layout of bbolt's file, as far as it is checked here. Numbers are in the machine's own order.
//
//	page:    id (8) | flags (2) | count (2) | overflow (4) | elements; it is 1 + overflow pages long
//	meta:    page header | magic (4) | version (4) | page size (4) | flags (4) | root (8) | sequence (8) | freelist (8) |
//	         end (8) | transaction (8) | FNV-1a of all of the meta before (8)
//	branch:  position (4) | length of the key (4) | page (8), for each element
//	leaf:    flags (4) | position (4) | length of the key (4) | of the value (4), for each element
//	bucket:  root (8) | sequence (8) | the page itself, where root is zero; it is a leaf's value
//	freelist: the numbers of free pages (8 each); where count is the highest there is, the first is how many
const (
	pageHeader  = 16
	elementSize = 16
	bucketSize  = 16
	metaSize    = 64
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf's element
)

// Bounds on a file. bbolt's trees of this many levels hold more than any disk.
const (
	leastPageSize = 1 << 10
	mostPageSize  = 1 << 16
	maxLevels     = 32
	mostOverflow  = 256 << 20 // bytes of one page with what it overflows to; a manifest of millions of agents has less
)

var native = binary.NativeEndian

// A pageWalk looks at every page that is in use, once.
type pageWalk struct {
	r      io.ReaderAt
	size   int64
	meta   boltMeta
	used   []uint64 // a bit for each page
	bufs   [maxLevels][]byte
	names  []string // of the buckets
	halved bool     // one of the two metas is damaged: the file is as it was one transaction ago
}

type boltMeta struct{ pageSize, root, freelist, end, tx uint64 }

// checkPages holds that bbolt can read a file of so many bytes without harm: that pages are what they are used as, in
// use once, of keys in order, and within the file. It does not look at what is stored.
func checkPages(r io.ReaderAt, size int64) (*pageWalk, error) {
	w := &pageWalk{r: r, size: size}
	if err := w.findMeta(); err != nil {
		return nil, err
	}
	w.used = make([]uint64, w.meta.end/64+1) // the file is as long
	w.used[0] = 3                            // the metas
	if err := w.freelist(); err != nil {
		return nil, err
	}
	if err := w.tree(w.meta.root, subtree{buckets: true}); err != nil {
		return nil, err
	}
	return w, nil
}

// emptyTx is the transaction that a file without buckets is at, at most: the first one makes them.
const emptyTx = 1

// findMeta reads both metas and keeps the one that bbolt would use.
func (w *pageWalk) findMeta() error {
	first, ok := w.metaAt(0)
	size := int64(first.pageSize)
	var second boltMeta
	var also bool
	if ok {
		second, also = w.metaAt(size)
	}
	for at := int64(leastPageSize); at <= mostPageSize && !ok && !also; at *= 2 {
		second, also = w.metaAt(at)
		size = at
	}
	switch {
	case !ok && !also, also && second.pageSize != uint64(size):
		return errors.New("it has no beginning that can be read")
	case !ok, also && second.tx > first.tx:
		w.meta = second
	default:
		w.meta = first
	}
	if m := w.meta; m.end < 2 || m.end > uint64(w.size)/m.pageSize {
		return fmt.Errorf("it was cut off: it has %d pages and %d bytes", m.end, w.size)
	}
	w.halved = !ok || !also
	return nil
}

// metaAt reads the meta of the page that stands at an offset.
func (w *pageWalk) metaAt(at int64) (boltMeta, bool) {
	var b [pageHeader + metaSize]byte
	if _, err := w.r.ReadAt(b[:], at); err != nil {
		return boltMeta{}, false
	}
	return decodeBoltMeta(b[pageHeader:])
}

func decodeBoltMeta(b []byte) (m boltMeta, ok bool) {
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	m = boltMeta{uint64(native.Uint32(b[8:])), native.Uint64(b[16:]), native.Uint64(b[32:]), native.Uint64(b[40:]), native.Uint64(b[48:])}
	return m, native.Uint32(b) == boltMagic && native.Uint32(b[4:]) == boltVersion && native.Uint64(b[metaSize-8:]) == sum.Sum64() &&
		m.pageSize >= leastPageSize && m.pageSize <= mostPageSize && m.pageSize&(m.pageSize-1) == 0
}

// take marks a page as in use.
func (w *pageWalk) take(id uint64) error {
	if id < 2 || id >= w.meta.end {
		return fmt.Errorf("page %d is used, of %d", id, w.meta.end)
	}
	if w.used[id/64]&(1<<(id%64)) != 0 {
		return fmt.Errorf("page %d is used twice", id)
	}
	w.used[id/64] |= 1 << (id % 64)
	return nil
}

// read returns a page with all that it overflows to, in the buffer of its level.
func (w *pageWalk) read(id uint64, level int) (rawPage, error) {
	if err := w.take(id); err != nil {
		return rawPage{}, err
	}
	size := int(w.meta.pageSize)
	b, err := w.load(id, 0, size, level)
	if err != nil {
		return rawPage{}, err
	}
	p := rawPage{b}
	if native.Uint64(b) != id {
		return rawPage{}, fmt.Errorf("page %d says that it is page %d", id, native.Uint64(b))
	}
	more := uint64(p.overflow())
	if more >= w.meta.end-id || more > mostOverflow/w.meta.pageSize {
		return rawPage{}, fmt.Errorf("page %d is %d pages long, of %d", id, more+1, w.meta.end)
	}
	for i := range more {
		if err := w.take(id + 1 + i); err != nil {
			return rawPage{}, err
		}
	}
	if more > 0 {
		b, err = w.load(id, size, (int(more)+1)*size, level)
	}
	return rawPage{b}, err
}

// load reads the bytes from and before to of a page into the buffer of a level, which has those before.
func (w *pageWalk) load(id uint64, from, to, level int) ([]byte, error) {
	b := w.bufs[level]
	if cap(b) < to {
		b = append(make([]byte, 0, to), b[:min(from, len(b))]...)
	}
	b = b[:to]
	w.bufs[level] = b
	if _, err := w.r.ReadAt(b[from:], int64(id*w.meta.pageSize)+int64(from)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return b, nil
}

// freelist holds that no free page is in use.
func (w *pageWalk) freelist() error {
	p, err := w.read(w.meta.freelist, 0)
	if err != nil {
		return fmt.Errorf("the list of free pages: %w", err)
	}
	ids, n := p.b[pageHeader:], uint64(p.count())
	if n == 0xFFFF {
		n, ids = native.Uint64(ids), ids[8:]
	}
	if p.flags() != flagFreelist || n > uint64(len(ids)/8) {
		return fmt.Errorf("page %d is no list of free pages", w.meta.freelist)
	}
	for i := range n {
		if err := w.take(native.Uint64(ids[8*i:])); err != nil {
			return fmt.Errorf("the list of free pages: %w", err)
		}
	}
	return nil
}

// A subtree is what is known of the pages below one before they are looked at.
type subtree struct {
	level   int
	first   []byte // the key that a branch says is the first one; nil: none leads here
	most    []byte // keys are below it; nil bounds nothing
	buckets bool   // its leaves hold buckets, and nothing else
}

// tree looks at the pages from id down.
func (w *pageWalk) tree(id uint64, t subtree) error {
	if t.level == maxLevels {
		return fmt.Errorf("page %d stands below %d others", id, t.level)
	}
	p, err := w.read(id, t.level)
	if err != nil {
		return err
	}
	switch {
	case p.flags() == flagBranch && p.count() > 0:
		return w.branch(p, id, t)
	case p.flags() == flagLeaf && (p.count() > 0 || t.first == nil):
		err = w.leaf(p, t)
	default:
		err = fmt.Errorf("it is of kind %#x and has %d elements", p.flags(), p.count())
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (w *pageWalk) branch(p rawPage, id uint64, t subtree) error {
	n := p.count()
	key, child, err := p.branch(0)
	if err == nil {
		err = t.follows(nil, key)
	}
	for i := range n {
		below := subtree{level: t.level + 1, first: key, most: t.most, buckets: t.buckets}
		var next uint64
		if err == nil && i+1 < n {
			if below.most, next, err = p.branch(i + 1); err == nil {
				err = t.follows(key, below.most)
			}
		}
		if err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		if err := w.tree(child, below); err != nil {
			return err
		}
		key, child = below.most, next
	}
	return nil
}

var errOrder = errors.New("its keys are out of order")

// follows holds that a key may follow on another; nil: it is the first.
func (t *subtree) follows(last, key []byte) error {
	switch {
	case len(key) == 0, last == nil && t.first != nil && !bytes.Equal(key, t.first):
		return errOrder
	case last != nil && bytes.Compare(last, key) >= 0, t.most != nil && bytes.Compare(key, t.most) >= 0:
		return errOrder
	}
	return nil
}

func (w *pageWalk) leaf(p rawPage, t subtree) error {
	var last []byte
	for i := range p.count() {
		key, value, bucket, err := p.leaf(i)
		if err == nil {
			err = t.follows(last, key)
		}
		if err == nil && bucket != t.buckets {
			err = errors.New("a bucket stands where none does, or none where one does")
		}
		if err != nil {
			return err
		}
		last = key
		if !bucket {
			continue
		}
		w.names = append(w.names, string(key))
		if err := w.bucket(value, t.level); err != nil {
			return fmt.Errorf("bucket %q: %w", key, err)
		}
	}
	return nil
}

// bucket looks at the pages of a bucket, which stands in a leaf of a level.
func (w *pageWalk) bucket(value []byte, level int) error {
	if len(value) < bucketSize {
		return errors.New("it is too short")
	}
	if id := native.Uint64(value); id != 0 {
		return w.tree(id, subtree{level: level + 1})
	}
	p := rawPage{value[bucketSize:]}
	if len(p.b) < pageHeader || p.flags() != flagLeaf || native.Uint64(p.b) != 0 || p.overflow() != 0 {
		return errors.New("it is no leaf within another")
	}
	return w.leaf(p, subtree{})
}

// A rawPage is a page as it stands in the file, with at least its header.
type rawPage struct{ b []byte }

func (p rawPage) flags() uint16    { return native.Uint16(p.b[8:]) }
func (p rawPage) count() int       { return int(native.Uint16(p.b[10:])) }
func (p rawPage) overflow() uint32 { return native.Uint32(p.b[12:]) }

// slice returns n bytes that stand at a position behind an element's beginning.
func (p rawPage) slice(element int, position, n uint64) ([]byte, error) {
	from := uint64(element) + position
	if from > uint64(len(p.b)) || n > uint64(len(p.b))-from {
		return nil, errors.New("an element leads out of it")
	}
	return p.b[from : from+n], nil
}

// element returns where element i stands.
func (p rawPage) element(i int) (int, error) {
	at := pageHeader + i*elementSize
	if at+elementSize > len(p.b) {
		return 0, errors.New("it has more elements than room")
	}
	return at, nil
}

// branch returns the key and the page of an element.
func (p rawPage) branch(i int) (key []byte, child uint64, err error) {
	at, err := p.element(i)
	if err != nil {
		return nil, 0, err
	}
	e := p.b[at:]
	key, err = p.slice(at, uint64(native.Uint32(e)), uint64(native.Uint32(e[4:])))
	return key, native.Uint64(e[8:]), err
}

// leaf returns the key and the value of an element, and whether that is a bucket.
func (p rawPage) leaf(i int) (key, value []byte, bucket bool, err error) {
	at, err := p.element(i)
	if err != nil {
		return nil, nil, false, err
	}
	e := p.b[at:]
	flags, position, k, v := native.Uint32(e), uint64(native.Uint32(e[4:])), uint64(native.Uint32(e[8:])), uint64(native.Uint32(e[12:]))
	both, err := p.slice(at, position, k+v)
	if err == nil && flags > flagBucket {
		err = fmt.Errorf("an element is of kind %#x", flags)
	}
	if err != nil {
		return nil, nil, false, err
	}
	return both[:k], both[k:], flags == flagBucket, nil
}
