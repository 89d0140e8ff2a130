package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// A file is the store's file. bbolt maps it into memory and believes what stands there: a damaged page has it panic,
// recurse without end or take all memory, and a file that is cut short raises a fault where it is read. So pages are
// checked before bbolt sees them, and again after somebody else wrote to the file; what still goes wrong is an error
// as well. It is safe for concurrent use.
type file struct {
	path string
	db   *bbolt.DB
	os   *os.File // that db has open
	// halved says that the file was opened as it was one transaction ago: of bbolt's two beginnings the newer was damaged.
	halved bool
	// foreign is called when somebody else wrote to the file; nil: nobody wants to know.
	foreign func()

	writing sync.Mutex // held by the one who writes

	mu    sync.Mutex
	ours  bool  // what is written at the moment is written by us
	stamp stamp // of the file as we left or checked it
	whole bool  // both beginnings are known to be good
	lost  error // it is damaged: nothing is read or written any more
	stuck bool  // bbolt panicked, and holds its locks for ever
}

// A stamp tells whether a file was written to, as far as its times do.
type stamp struct {
	size         int64
	mtime, ctime unix.Timespec
}

func stampOf(f *os.File) (s stamp) {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) == nil {
		s = stamp{st.Size, st.Mtim, st.Ctim}
	}
	return s
}

// openFile opens the file at path. One that is not there is made, unless it is only read.
func openFile(path string, readOnly bool) (*file, error) {
	f := &file{path: path}
	opt := &bbolt.Options{Timeout: time.Second, ReadOnly: readOnly, OpenFile: f.open}
	err := f.guard(func() (err error) { f.db, err = bbolt.Open(path, 0o600, opt); return err })
	if err != nil && f.stuck {
		err = errors.Join(err, f.os.Close())
	}
	if errors.Is(err, ErrDamaged) {
		return nil, err // it names the file
	}
	if err != nil {
		return nil, fmt.Errorf("opening %q: %w", path, err)
	}
	f.stamp = stampOf(f.os)
	return f, nil
}

// open is how bbolt opens the file.
func (f *file) open(path string, flag int, mode fs.FileMode) (*os.File, error) {
	file, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	f.os = file
	if info, err := file.Stat(); err == nil && info.Size() == 0 {
		f.whole = true // it will be made
		return file, nil
	}
	if f.halved, err = f.check(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	f.whole = !f.halved
	return file, nil
}

// check looks at all pages. The error is a *DamagedError.
func (f *file) check() (halved bool, err error) {
	info, err := f.os.Stat()
	if err != nil {
		return false, &DamagedError{f.path, err.Error()}
	}
	w, err := checkPages(f.os, info.Size())
	if err != nil {
		return false, &DamagedError{f.path, err.Error()}
	}
	for _, want := range buckets {
		if w.meta.tx > emptyTx && !slices.Contains(w.names, string(want)) {
			return false, &DamagedError{f.path, fmt.Sprintf("it has no bucket %q", want)}
		}
	}
	return w.halved, nil
}

// read calls fn in a read transaction. The error matches ErrDamaged if the file is.
func (f *file) read(fn func(*bbolt.Tx) error) error {
	if err := f.ready(); err != nil {
		return err
	}
	return f.guard(func() error { return f.db.View(fn) })
}

// write calls fn in a write transaction, which is on disk when write returns. The error matches ErrDamaged if the file is.
func (f *file) write(fn func(*bbolt.Tx) error) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	if err := f.look(); err != nil {
		return err
	}
	f.setOurs(true)
	defer f.setOurs(false)
	err := f.guard(func() error { return f.db.Update(fn) })
	if err == nil { // it wrote the older beginning anew
		f.mu.Lock()
		defer f.mu.Unlock()
		f.whole = true
	}
	return err
}

// setOurs says whether a transaction of ours is being written.
func (f *file) setOurs(ours bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ours, f.stamp = ours, stampOf(f.os)
}

// ready looks at the pages if somebody else wrote to the file, and reports whether it can be read.
func (f *file) ready() error {
	f.mu.Lock()
	same := f.lost != nil || f.ours || f.stamp == stampOf(f.os)
	lost := f.lost
	f.mu.Unlock()
	if same || !f.writing.TryLock() { // who writes looks
		return lost
	}
	defer f.writing.Unlock()
	return f.look()
}

// look is ready for the holder of f.writing.
func (f *file) look() error {
	now := stampOf(f.os)
	f.mu.Lock()
	lost, same := f.lost, f.stamp == now
	f.mu.Unlock()
	if lost != nil || same {
		return lost
	}
	if f.foreign != nil {
		f.foreign()
	}
	if err := f.checkOpen(); err != nil {
		return f.lose(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stamp = now
	return nil
}

// checkOpen is check for a file that bbolt has open. That would go back to the older of two beginnings without a word, and with
// the free pages of the newer: it would write over what it reads.
func (f *file) checkOpen() error {
	halved, err := f.check()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && halved && f.whole {
		err = &DamagedError{f.path, "one of its two beginnings can't be read"}
	}
	return err
}

// lose keeps everybody from the file.
func (f *file) lose(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost == nil {
		f.lost = err
	}
	return f.lost
}

// guard calls fn, which calls bbolt, and makes errors of what a damaged file has that do. A panic that the file is no
// reason for is our own mistake, and goes on.
func (f *file) guard(fn func() error) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		damage := f.checkOpen()
		if _, fault := p.(interface{ Addr() uintptr }); fault && damage == nil {
			damage = &DamagedError{f.path, "it can't be read where it is mapped"}
		}
		if damage == nil {
			panic(p)
		}
		f.mu.Lock()
		f.stuck = true
		f.mu.Unlock()
		err = f.lose(damage)
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return fn()
}

// close closes the file. Where bbolt panicked its mapping stays until the process ends.
func (f *file) close() error {
	f.mu.Lock()
	stuck := f.stuck
	f.mu.Unlock()
	if stuck {
		return f.os.Close()
	}
	return f.db.Close()
}
