package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The same image in a directory and in an archive, whose entries docker links to one another.
func TestSources(t *testing.T) {
	f := files{}
	f.index(f.image(here, "one"))
	dir := t.TempDir()
	var pairs []string
	for name, b := range f {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, name, string(b))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	archived := tarOf(pairs...)
	archive, err := OpenArchive(bytes.NewReader(archived), int64(len(archived)))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Source{"directory": Directory{root}, "archive": archive} {
		image, err := Open(s, "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := names(image); err != nil || got != "b=one c/d=2 c/e=3" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// What is in a directory may lead out of it, or block; nothing of it is opened.
func TestHostileDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Symlink("/etc/passwd", filepath.Join(dir, "index.json")), os.Mkdir(filepath.Join(dir, "blobs"), 0o755), mkfifo(filepath.Join(dir, "pipe"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"index.json", "blobs", "pipe", "../passwd", "/etc/passwd", "none"} {
		if f, _, err := (Directory{root}).Open(name); err == nil {
			f.Close()
			t.Errorf("%s was opened", name)
		}
	}
}

func TestArchiveLinks(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Name: "a/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../b/layer.tar"},
		{Name: "b/layer.tar", Typeflag: tar.TypeReg, Size: 4},
		{Name: "loop", Typeflag: tar.TypeSymlink, Linkname: "loop"},
		{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "../../etc/passwd"},
		{Name: "dir/", Typeflag: tar.TypeDir},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			_, _ = io.WriteString(w, "data")
		}
	}
	_ = w.Close()
	a, err := OpenArchive(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	f, size, err := a.Open("a/layer.tar")
	if err != nil || size != 4 {
		t.Fatalf("%d bytes, %v", size, err)
	}
	if got, _ := io.ReadAll(f); string(got) != "data" {
		t.Errorf("%q", got)
	}
	for _, name := range []string{"loop", "out", "dir", "none"} {
		if _, _, err := a.Open(name); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A repeated is an archive that is one piece, over and over, and then zeros.
type repeated struct {
	piece []byte
	times int64
}

func (r repeated) ReadAt(p []byte, at int64) (int, error) {
	clear(p)
	for n := 0; n < len(p) && at < r.times*int64(len(r.piece)); {
		copied := copy(p[n:], r.piece[at%int64(len(r.piece)):])
		n, at = n+copied, at+int64(copied)
	}
	return len(p), nil
}

// An archive that is nothing but long names, as a compressed one may be in little room, takes no more memory than a bound.
func TestLongNames(t *testing.T) {
	for _, tt := range []struct {
		length, times int64
		ok            bool
	}{{4000, 10, true}, {maxName + 1, 1, false}, {4000, 1 + maxNames/4000, false}} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := errors.Join(w.WriteHeader(&tar.Header{Name: strings.Repeat("n", int(tt.length)), Format: tar.FormatPAX}), w.Flush()); err != nil {
			t.Fatal(err)
		}
		in := repeated{b.Bytes(), tt.times}
		_, err := OpenArchive(in, in.times*int64(len(in.piece))+2*blockSize)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%d names of %d bytes: %v", tt.times, tt.length, err)
		}
	}
}
