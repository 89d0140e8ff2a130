package sign

import (
	"fmt"
	"hash"
	"io"
)

// A digestWriter passes content on and compares it with its digest. It holds the last byte back until the whole is
// known to be right, so that nobody ever takes wrong content for whole.
type digestWriter struct {
	w    io.Writer
	hash hash.Hash
	want digest
	last [1]byte
	held bool
}

func newDigestWriter(w io.Writer, want digest) *digestWriter {
	return &digestWriter{w: w, hash: want.hash.New(), want: want}
}

func (d *digestWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	d.hash.Write(p)
	if d.held {
		if _, err := d.w.Write(d.last[:]); err != nil {
			return 0, err
		}
	}
	end := len(p) - 1
	d.last[0], d.held = p[end], true
	if end > 0 {
		if n, err := d.w.Write(p[:end]); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// Close compares the digest and lets the last byte go.
func (d *digestWriter) Close() error {
	if got := d.hash.Sum(nil); string(got) != d.want.sum {
		return fmt.Errorf("digest %x: %w", got, ErrContent)
	}
	if !d.held {
		return nil
	}
	d.held = false
	_, err := d.w.Write(d.last[:])
	return err
}
