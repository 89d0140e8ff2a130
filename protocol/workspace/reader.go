package workspace

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// A Reader reads an archive and accepts nothing else that tar(5) can say. Each error but that of the
// source is final. It is not safe for concurrent use.
type Reader struct {
	src   *counter
	tar   *tar.Reader
	end   int64 // where the last entry does, with its padding
	left  Limits
	order order
	err   error
}

// NewReader returns a Reader of r that holds the archive to the limits.
func NewReader(r io.Reader, limits Limits) *Reader {
	src := &counter{r: r}
	return &Reader{src: src, tar: tar.NewReader(src), left: limits.orDefault()}
}

// A counter counts what is read, which tar.Reader does block by block.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Sizes of the format in bytes.
const (
	block     = 512
	endOfFile = 2 * block
)

// Next reads the next entry; Read then gives the content of a File. It returns io.EOF after the last
// entry, once nothing follows it.
func (r *Reader) Next() (*Entry, error) {
	if r.err != nil {
		return nil, r.err
	}
	e, err := r.next()
	if err != nil {
		r.err = err
		return nil, err
	}
	return e, nil
}

func (r *Reader) next() (*Entry, error) {
	h, err := r.tar.Next()
	switch {
	case err == io.EOF:
		return nil, r.atEnd()
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	case err != nil:
		return nil, err
	}
	e, err := entry(h)
	if err != nil {
		return nil, err
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	if err := r.order.next(e); err != nil {
		return nil, err
	}
	if err := r.left.Take(e); err != nil {
		return nil, err
	}
	r.end = r.src.n + (e.Size+block-1)/block*block
	return e, nil
}

// atEnd wants the source to end where the archive does, which tar.Reader lets end anywhere.
func (r *Reader) atEnd() error {
	if r.src.n != r.end+endOfFile {
		return malformed("it ends in the middle")
	}
	var one [1]byte
	switch _, err := io.ReadFull(r.src, one[:]); err {
	case nil:
		return malformed("something follows its end")
	default:
		return err // io.EOF, or what broke the source
	}
}

// Read reads content of the File that Next returned last.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	return r.tar.Read(p)
}

// entry reads what a header says, if it says nothing else than a Writer could have.
func entry(h *tar.Header) (*Entry, error) {
	e := &Entry{Name: h.Name, Size: h.Size}
	marks, err := readRecords(h.PAXRecords)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w of %q", err, h.Name)
	case h.Format != tar.FormatUSTAR && h.Format != tar.FormatPAX:
		return nil, malformed("%q is written in format %v", h.Name, h.Format)
	case h.Devmajor != 0 || h.Devminor != 0:
		return nil, malformed("%q is a device", h.Name)
	case h.Linkname != "" && h.Typeflag != tar.TypeSymlink:
		return nil, malformed("%q is a link of type %q", h.Name, h.Typeflag)
	case marks != 0 && (h.Typeflag != tar.TypeReg || h.Mode != modeFile):
		return nil, malformed("%q is there and is not", h.Name)
	}
	want := int64(modeFile)
	switch h.Typeflag {
	case tar.TypeReg:
		e.Kind, e.Executable, e.Modified = File, h.Mode == modeExecutable, h.ModTime
		if e.Executable {
			want = modeExecutable
		}
		if h.ModTime.Equal(time.Unix(0, 0)) {
			e.Modified = time.Time{}
		}
	case tar.TypeDir:
		e.Kind, want = Directory, modeDirectory
		e.Name = strings.TrimSuffix(e.Name, "/")
	case tar.TypeSymlink:
		e.Kind, e.Target, want = Symlink, h.Linkname, modeSymlink
	default:
		return nil, malformed("%q is of type %q", h.Name, h.Typeflag)
	}
	if h.Mode != want {
		return nil, malformed("%q has mode %#o", h.Name, h.Mode)
	}
	if marks != 0 {
		e.Kind, e.Modified = marks, time.Time{}
	}
	return e, nil
}

// readRecords returns what kind the records of a pax header make of an entry; 0: what the header says.
// Records that say something else, as those of sparse files do, are refused.
func readRecords(records map[string]string) (Kind, error) {
	var kind Kind
	for key, value := range records {
		switch {
		case key == "path" || key == "linkpath" || key == "size":
		case key == recordDeleted && value == "1" && kind == 0:
			kind = Deleted
		case key == recordOther && value == "1" && kind == 0:
			kind = Other
		default:
			return 0, malformed("record %q", key)
		}
	}
	return kind, nil
}
