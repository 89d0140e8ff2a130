package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"torno.internal/images/apt"
	"torno.internal/images/disk"
	"torno.internal/images/oci"
	"torno.internal/images/tree"
)

// From says what an image is made of.
type From struct {
	Path string    // a root file system or container image: a directory or an archive, which may be compressed
	Tag  string    // of a container image, where there are several
	In   io.Reader // read instead of Path; may be nil

	Report apt.Report // is told how far it is; may be nil
}

// Import makes an image of a root file system, or of a container image for this machine: an OCI image layout or
// what docker save writes.
func (s Store) Import(ctx context.Context, name string, from From) (*Image, error) {
	release, err := s.hold(ctx, name)
	if err != nil {
		return nil, err
	}
	defer release()
	info, err := os.Stat(from.Path)
	switch {
	case from.In != nil:
		return s.importStream(ctx, name, from)
	case err != nil:
		return nil, &Error{err, "--from DIRECTORY or --from ARCHIVE"}
	case info.IsDir():
		return s.importDirectory(ctx, name, from)
	}
	f, err := os.Open(from.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	from.In = f
	return s.importStream(ctx, name, from)
}

func (s Store) importDirectory(ctx context.Context, name string, from From) (*Image, error) {
	root, err := os.OpenRoot(from.Path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if source := (oci.Directory{Root: root}); oci.IsImage(source) {
		return s.importImage(ctx, name, from, source)
	}
	image, err := s.build(name, "directory "+filepath.Base(from.Path), func(f *os.File) error { return disk.FromRoot(from.Path, f) })
	if err != nil {
		return nil, err
	}
	return image, image.publish(s)
}

// importStream makes an image of an archive. It is read twice, so what is no plain file is copied first.
func (s Store) importStream(ctx context.Context, name string, from From) (*Image, error) {
	f, err := plainFile(ctx, from)
	if err != nil {
		return nil, explain(fmt.Errorf("reading %q: %w", from.Path, err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	archive, err := oci.OpenArchive(f, info.Size())
	if err != nil {
		return nil, notAnImage(from.Path, err)
	}
	if oci.IsImage(archive) {
		return s.importImage(ctx, name, from, archive)
	}
	return s.importLayers(ctx, name, from, &Image{Source: filepath.Base(from.Path)}, func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(f, 0, info.Size())), nil
	})
}

// plainFile returns what is in r, uncompressed, as a file.
func plainFile(ctx context.Context, from From) (*os.File, error) {
	r := from.In
	if f, ok := r.(*os.File); ok {
		begin := make([]byte, 4)
		info, err := f.Stat()
		if err == nil && info.Mode().IsRegular() {
			if n, err := f.ReadAt(begin, 0); (err == nil || errors.Is(err, io.EOF)) && !oci.Compressed(begin[:n]) {
				return os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
			}
		}
	}
	in, err := oci.Decompress(readerOf(ctx, r, from.Report, "reading"))
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := disk.Temporary()
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(out, io.LimitReader(in, disk.MaxSize+1))
	if err == nil && n > disk.MaxSize {
		err = fmt.Errorf("%w: more than %d GiB", disk.ErrTooLarge, disk.MaxSize>>30)
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

func (s Store) importImage(ctx context.Context, name string, from From, source oci.Source) (*Image, error) {
	found, err := oci.Open(source, from.Tag)
	if err != nil {
		return nil, notAnImage(from.Path, err)
	}
	of := &Image{Source: filepath.Base(from.Path), Digest: found.Digest}
	if found.Tag != "" {
		of.Source += ", " + found.Tag
	}
	image, err := s.importLayers(ctx, name, from, of, found.Layers...)
	if err != nil {
		return nil, notAnImage(from.Path, err)
	}
	return image, nil
}

// importLayers makes an image of layers, and says of it what like says.
func (s Store) importLayers(ctx context.Context, name string, from From, like *Image, layers ...tree.Layer) (*Image, error) {
	step := "reading layers" // first to see what they hold, then to copy it
	for i, open := range layers {
		layers[i] = func() (io.ReadCloser, error) {
			r, err := open()
			if err != nil {
				return nil, err
			}
			return struct {
				io.Reader
				io.Closer
			}{readerOf(ctx, r, from.Report, step), r}, nil
		}
	}
	merged, err := tree.Merge(layers...)
	if err != nil {
		return nil, err
	}
	step = "writing the file system"
	image, err := s.build(name, like.Source, func(f *os.File) error {
		r, w := io.Pipe()
		go func() { w.CloseWithError(merged.WriteTar(w)) }()
		err := disk.FromTar(r, f)
		r.Close() // an error there must not leave the writer behind
		return err
	})
	if err != nil {
		return nil, err
	}
	image.Digest = like.Digest
	return image, image.publish(s)
}

// notAnImage adds what helps to what is wrong with a source.
func notAnImage(path string, err error) error {
	switch {
	case errors.Is(err, oci.ErrSeveral):
		return &Error{fmt.Errorf("%q: %w", path, err), "--tag TAG chooses one"}
	case errors.Is(err, oci.ErrPlatform):
		return &Error{fmt.Errorf("%q: %w", path, err), "get the image for this machine, such as docker pull --platform or skopeo copy --override-arch do"}
	case errors.Is(err, oci.ErrDigest):
		return &Error{fmt.Errorf("%q: %w", path, err), "it is damaged, or was tampered with; get it again"}
	case errors.Is(err, oci.ErrFormat):
		return &Error{fmt.Errorf("%q: %w", path, err), "docker save, docker export, skopeo copy … oci:DIR and tar write what torno reads"}
	}
	return fmt.Errorf("%q: %w", path, err)
}

// A readerFunc is a reader that is a function.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// readerOf returns r, which ends with ctx and reports what is read.
func readerOf(ctx context.Context, r io.Reader, report apt.Report, what string) io.Reader {
	var done int64
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.Read(p)
		if done += int64(n); report != nil {
			report(what, done, 0)
		}
		return n, err
	})
}
