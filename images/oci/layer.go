package oci

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"regexp"

	"github.com/klauspost/compress/zstd"

	"torno.internal/images/tree"
)

// maxWindow bounds the memory of a decompressor, in bytes.
const maxWindow = 128 << 20

// maxLayer bounds a layer as it is unpacked, in bytes: as much content as a tree holds, and headers.
const maxLayer = tree.MaxContent + 4<<30

// validDigest is the only form of digest that is known.
var validDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// blobName returns where the blob of a digest is.
func blobName(digest string) (string, error) {
	if !validDigest.MatchString(digest) {
		return "", fmt.Errorf("%w: digest %.100q", ErrFormat, digest)
	}
	return "blobs/sha256/" + digest[len("sha256:"):], nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// A layer is a file that holds a layer, and what it must be.
type layer struct {
	source Source
	name   string
	size   int64  // as it is stored; -1: not known
	digest string // as it is stored; empty: not known
	diffID string // digest of what is inside
}

// open implements tree.Layer.
func (l layer) open() (io.ReadCloser, error) {
	f, size, err := l.source.Open(l.name)
	if err != nil {
		return nil, err
	}
	if l.size >= 0 && size != l.size {
		return nil, errors.Join(fmt.Errorf("%w: %q has %d bytes, want %d", ErrFormat, l.name, size, l.size), f.Close())
	}
	stored := &counter{Reader: f, sum: sha256.New()}
	unpacked, err := Decompress(stored)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%q: %w", l.name, err), f.Close())
	}
	return &verifier{
		layer: l, file: f, stored: stored, unpacked: unpacked, inside: &counter{Reader: unpacked, sum: sha256.New()},
	}, nil
}

// A counter digests and counts what is read.
type counter struct {
	io.Reader
	sum hash.Hash
	n   int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.sum.Write(p[:n])
	c.n += int64(n)
	return n, err
}

func (c *counter) digest() string { return "sha256:" + hex.EncodeToString(c.sum.Sum(nil)) }

// A verifier is a layer that is being read. Its end is an error unless all of it was what its digests say.
type verifier struct {
	layer
	file     io.Closer
	stored   *counter
	unpacked io.Closer
	inside   *counter
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.inside.Read(p)
	if v.inside.n > maxLayer {
		return 0, fmt.Errorf("%w: layer %q has more than %d bytes", tree.ErrTooLarge, v.name, int64(maxLayer))
	}
	if err == io.EOF {
		if err := v.verify(); err != nil {
			return n, err
		}
	}
	return n, err
}

func (v *verifier) verify() error {
	if _, err := io.Copy(io.Discard, v.stored); err != nil { // what a decompressor leaves unread
		return err
	}
	if v.layer.digest != "" && v.stored.digest() != v.layer.digest {
		return fmt.Errorf("%w: %q", ErrDigest, v.name)
	}
	if v.inside.digest() != v.diffID {
		return fmt.Errorf("%w: what is in %q", ErrDigest, v.name)
	}
	return nil
}

func (v *verifier) Close() error { return errors.Join(v.unpacked.Close(), v.file.Close()) }

// What compressed content begins with.
var (
	gzipMagic = []byte("\x1f\x8b")
	zstdMagic = []byte("\x28\xb5\x2f\xfd")
)

// Compressed reports whether what begins so is compressed.
func Compressed(begin []byte) bool {
	return bytes.HasPrefix(begin, gzipMagic) || bytes.HasPrefix(begin, zstdMagic)
}

// Decompress returns what is in r, which is gzip, zstd, or neither, as its first bytes say.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	begin, err := b.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(begin, gzipMagic):
		return gzip.NewReader(b)
	case bytes.HasPrefix(begin, zstdMagic):
		d, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}
