// Package proof searches the memory of a machine for secrets: for every run that package redact would mask
// in an answer, in the same encodings, wherever it lies and also where the border of a page cuts it.
package proof

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"torno.internal/broker/internal/redact"
)

// maxMemory bounds a machine's memory, in bytes.
const maxMemory = 1 << 40

// chunk is how much memory is copied and searched at a time. A copy, since who owns the memory may shrink
// or change it: nothing it does can then hurt us.
const chunk = 256 * redact.PageSize

// A Result says what a search found, in totals: not what, nor where.
type Result struct {
	Hits    int   // runs that count, whole or cut by the border of a page
	Control int   // places at which the control was found
	Size    int64 // bytes of memory
	Present int64 // of them, bytes that the machine has ever touched
	Zero    int64 // of them, bytes in pages that are nothing but zeros
}

// ErrMemory means that a file is no machine's memory.
var ErrMemory = errors.New("not a memory file (memfd)")

// Check refuses files that are not memfds. What can be searched without effect on anybody is nothing else:
// devices, pipes and files of other users must not be read in the broker's name.
func Check(f *os.File) (size int64, err error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return 0, err
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return 0, err
	}
	_, seals := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0) // which other files don't have
	if stat.Mode&unix.S_IFMT != unix.S_IFREG || !strings.HasPrefix(name, "/memfd:") || seals != nil {
		return 0, ErrMemory
	}
	if stat.Size <= 0 || stat.Size > maxMemory {
		return 0, fmt.Errorf("%w: %d bytes", ErrMemory, stat.Size)
	}
	return stat.Size, nil
}

// Search searches memory f for the runs of m, and for control, which must be there: a search that does not
// find what is there proves nothing. Holes are not read: they would no longer be holes.
func Search(ctx context.Context, f *os.File, m *redact.Matcher, control []byte) (Result, error) {
	size, err := Check(f)
	if err != nil {
		return Result{}, err
	}
	s := &search{f: f, control: control, matcher: m, pages: m.Pages(), buf: make([]byte, len(control)+chunk)}
	defer s.close()
	s.result.Size = size
	for at := int64(0); at < size; {
		from, to, err := extent(f, at, size)
		if err == io.EOF {
			break
		}
		if err == nil {
			err = s.extent(ctx, from, to)
		}
		if err != nil {
			return Result{}, err
		}
		at = to
	}
	s.result.Hits += s.pages.Straddling()
	return s.result, nil
}

// extent returns the next piece of f that is no hole, or io.EOF.
func extent(f *os.File, at, size int64) (from, to int64, err error) {
	from, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, err
	}
	if to, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE); errors.Is(err, unix.ENXIO) {
		to, err = size, nil
	}
	return from, to, err
}

// A search is one under way.
type search struct {
	f       *os.File
	matcher *redact.Matcher
	pages   *redact.Pages
	control []byte
	buf     []byte // the end of what was before, as long as control, and a chunk
	scanner *redact.Scanner
	result  Result
}

// extent searches one piece of memory.
func (s *search) extent(ctx context.Context, from, to int64) error {
	kept := 0 // bytes of what was before, at the beginning of buf
	for at := from; at < to; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := s.buf[kept : kept+int(min(chunk, to-at))]
		n, err := s.f.ReadAt(b, at)
		if n == 0 {
			return fmt.Errorf("%w: it became shorter: %w", ErrMemory, err)
		}
		b = b[:n]
		s.result.Present += int64(n)
		s.result.Control += bytes.Count(s.buf[:kept+n], s.control)
		keep := min(len(s.control)-1, kept+n)
		tail := append([]byte(nil), s.buf[kept+n-keep:kept+n]...) // before what is found in it is masked
		s.text(b)
		kept = copy(s.buf, tail)
		at += int64(n)
	}
	s.gap()
	return nil
}

var zeros [redact.PageSize]byte

// text searches memory that follows what was searched before. Pages of zeros are most of what there is,
// and end every run.
func (s *search) text(b []byte) {
	begin := 0
	for i := 0; i+redact.PageSize <= len(b); i += redact.PageSize {
		page := b[i : i+redact.PageSize]
		if page[0] == 0 && bytes.Equal(page, zeros[:]) {
			s.result.Zero += redact.PageSize
			s.mask(b[begin:i])
			s.gap()
			begin = i + redact.PageSize
			continue
		}
		s.pages.Add(page)
	}
	s.mask(b[begin:])
}

// mask counts the runs in b, and overwrites them: b is our own copy.
func (s *search) mask(b []byte) {
	if len(b) == 0 {
		return
	}
	if s.scanner == nil {
		s.scanner = s.matcher.Scanner()
	}
	s.result.Hits += s.scanner.Mask(b)
}

// gap ends the text.
func (s *search) gap() {
	if s.scanner != nil {
		s.scanner.Close()
		s.scanner = nil
	}
}

func (s *search) close() {
	s.gap()
	s.pages.Wipe()
	clear(s.buf)
}
