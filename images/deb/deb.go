// Package deb reads Debian packages (deb(5)): an ar archive that holds a compressed tar of files.
package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// magic begins an ar archive, and arHeader is the size of what stands before each member.
const (
	magic    = "!<arch>\n"
	arHeader = 60
)

// maxWindow bounds the memory of a decompressor, in bytes.
const maxWindow = 128 << 20

// ErrFormat means that a file is no Debian package.
var ErrFormat = errors.New("not a Debian package")

// Files calls f for every entry of the package's file tree, with a reader of its content, until f
// returns an error, which Files returns.
func Files(r io.Reader, f func(h *tar.Header, content io.Reader) error) error {
	b := bufio.NewReaderSize(r, 1<<20)
	if err := expect(b, magic); err != nil {
		return err
	}
	for {
		name, size, err := member(b)
		if err != nil {
			return err
		}
		if suffix, ok := strings.CutPrefix(name, "data.tar"); ok {
			return files(suffix, io.LimitReader(b, size), f)
		}
		if _, err := io.CopyN(io.Discard, b, size+size&1); err != nil {
			return fmt.Errorf("%w: member %q: %w", ErrFormat, name, err)
		}
	}
}

// maxControl bounds a control file, in bytes.
const maxControl = 1 << 20

// Control returns the package's control file (deb-control(5)), without empty lines at its end.
func Control(r io.Reader) (string, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	if err := expect(b, magic); err != nil {
		return "", err
	}
	for {
		name, size, err := member(b)
		if err != nil {
			return "", err
		}
		suffix, ok := strings.CutPrefix(name, "control.tar")
		if !ok {
			if _, err := io.CopyN(io.Discard, b, size+size&1); err != nil {
				return "", fmt.Errorf("%w: member %q: %w", ErrFormat, name, err)
			}
			continue
		}
		control := ""
		err = files(suffix, io.LimitReader(b, size), func(h *tar.Header, content io.Reader) error {
			if path.Clean(h.Name) != "control" {
				return nil
			}
			text, err := io.ReadAll(io.LimitReader(content, maxControl))
			control = strings.TrimRight(string(text), "\n")
			return err
		})
		if err == nil && (control == "" || strings.Contains(control, "\n\n")) {
			err = fmt.Errorf("%w: no control file", ErrFormat)
		}
		return control, err
	}
}

func expect(r io.Reader, want string) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		return fmt.Errorf("%w: begins with %q", ErrFormat, got)
	}
	return nil
}

// member reads a member's header: 16 bytes of name, 32 of times, owner and mode, 10 of size, and 2 that end it.
func member(r io.Reader) (name string, size int64, err error) {
	var h [arHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return "", 0, fmt.Errorf("%w: no file tree", ErrFormat)
	}
	size, err = strconv.ParseInt(strings.TrimSpace(string(h[48:58])), 10, 64)
	if err != nil || size < 0 || !bytes.Equal(h[58:], []byte("`\n")) {
		return "", 0, fmt.Errorf("%w: bad member", ErrFormat)
	}
	return strings.TrimRight(string(h[:16]), " /"), size, nil
}

// files reads the tar inside, compressed as its suffix says.
func files(suffix string, r io.Reader, f func(h *tar.Header, content io.Reader) error) error {
	decompressed, err := decompress(suffix, r)
	if err != nil {
		return fmt.Errorf("%w: .tar%s: %w", ErrFormat, suffix, err)
	}
	t := tar.NewReader(decompressed)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: .tar%s: %w", ErrFormat, suffix, err)
		}
		if err := f(h, t); err != nil {
			return err
		}
	}
}

func decompress(suffix string, r io.Reader) (io.Reader, error) {
	switch suffix {
	case "":
		return r, nil
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		return xz.ReaderConfig{DictCap: maxWindow}.NewReader(r)
	case ".zst":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return nil, errors.New("unknown compression")
}
