package workspace

import (
	"archive/tar"
	"io"
	"time"
)

// Modes that entries have: all that is said of permissions is whether a file can be executed.
const (
	modeFile       = 0o644
	modeExecutable = 0o755
	modeDirectory  = 0o755
	modeSymlink    = 0o777
)

// Records of the pax header that say what tar(5) cannot.
const (
	recordDeleted = "TORNO.deleted"
	recordOther   = "TORNO.other"
)

// A Writer writes an archive: Add an entry, then Write as many bytes as a File has; Close at the end. It
// is not safe for concurrent use.
type Writer struct {
	tar   *tar.Writer
	left  Limits
	order order
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{tar: tar.NewWriter(w), left: NewLimits()}
}

// Add writes an entry's header. The entries come in the order of Compare.
func (w *Writer) Add(e *Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if err := w.order.next(e); err != nil {
		return err
	}
	if err := w.left.Take(e); err != nil {
		return err
	}
	return w.tar.WriteHeader(header(e))
}

// header says e in tar's words.
func header(e *Entry) *tar.Header {
	h := &tar.Header{
		Name: e.Name, Typeflag: tar.TypeReg, Mode: modeFile, Size: e.Size,
		ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}
	if m := e.Modified; e.Kind == File && m.Unix() > 0 && m.Unix() < 1<<33 { // what the header has digits for
		h.ModTime = m.Truncate(time.Second)
	}
	switch e.Kind {
	case File:
		if e.Executable {
			h.Mode = modeExecutable
		}
	case Directory:
		h.Typeflag, h.Name, h.Mode = tar.TypeDir, e.Name+"/", modeDirectory
	case Symlink:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.Target, modeSymlink
	case Deleted:
		h.PAXRecords = map[string]string{recordDeleted: "1"}
	case Other:
		h.PAXRecords = map[string]string{recordOther: "1"}
	}
	return h
}

// Write writes content of the File that was added last.
func (w *Writer) Write(p []byte) (int, error) { return w.tar.Write(p) }

// Close ends the archive. It is an error if the last file is incomplete.
func (w *Writer) Close() error { return w.tar.Close() }
