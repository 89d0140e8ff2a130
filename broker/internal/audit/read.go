package audit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"time"
)

// A scanner reads the lines of one segment up to the zeros of its unused rest.
type scanner struct {
	r      *bufio.Reader
	offset int64 // of the next line
}

func newScanner(r io.Reader) *scanner { return &scanner{r: bufio.NewReaderSize(r, maxLine)} }

// errTorn means that the last line does not end.
var errTorn = errors.New("the line does not end")

// next returns the next line without its end, valid until the next call. It returns io.EOF where the
// unused rest begins, and errTorn where a line does not end.
func (s *scanner) next() ([]byte, error) {
	first, err := s.r.Peek(1)
	if err != nil || first[0] == 0 {
		return nil, io.EOF
	}
	line, err := s.r.ReadSlice('\n')
	if err != nil || bytes.IndexByte(line, 0) >= 0 {
		return nil, errTorn
	}
	s.offset += int64(len(line))
	return line[:len(line)-1], nil
}

// errBehind means that the unused rest is not all zeros.
var errBehind = errors.New("something stands behind the last record")

// rest reads what follows the last line. It returns io.EOF, or errBehind if that is more than zeros.
func (s *scanner) rest() error {
	for {
		if _, err := s.r.Peek(1); err != nil {
			return err
		}
		b, _ := s.r.Peek(s.r.Buffered())
		if len(bytes.Trim(b, "\x00")) > 0 {
			return errBehind
		}
		_, _ = s.r.Discard(len(b))
	}
}

// seek goes on at an offset of f, which s reads.
func (s *scanner) seek(f io.ReadSeeker, offset int64) error {
	_, err := f.Seek(offset, io.SeekStart)
	s.r.Reset(f)
	s.offset = offset
	return err
}

// scanFrom calls f with the whole lines of a segment from offset on and returns where they end.
func scanFrom(path string, offset int64, f func([]byte) error) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return offset, err
	}
	defer file.Close()
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return offset, err
	}
	s := newScanner(file)
	s.offset = offset
	for {
		line, err := s.next()
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) { // torn: it is being written
			return s.offset, nil
		}
		if err != nil {
			return s.offset, err
		}
		if err := f(line); err != nil {
			return s.offset, err
		}
	}
}

// errEnough ends a scan early.
var errEnough = errors.New("enough")

// timeOf returns the time of a segment's first line.
func timeOf(path string) (t time.Time, err error) {
	_, err = scanFrom(path, 0, func(line []byte) error {
		r, err := Decode(line)
		t = r.Time
		return errors.Join(err, errEnough)
	})
	if err == nil {
		return t, errors.New("an empty segment")
	}
	if t.IsZero() {
		return t, err
	}
	return t, nil
}
