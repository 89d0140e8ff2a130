package bhttp

import (
	"errors"
	"io"
	"sync"
)

// copySize is the size of the buffers that Copy works with: as much as one chunk holds.
const copySize = 64 << 10 // bytes

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// Copy copies content from r to w until io.EOF and returns how many bytes it was. After every read it
// calls flush with the bytes so far, so that a caller holds back nothing, and nothing but the last piece
// if it wants the content's end to go out together with that.
func Copy(w io.Writer, r io.Reader, flush func(total int64) error) (int64, error) {
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	var total int64
	for {
		n, err := r.Read(buf[:])
		total += int64(n)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return total, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		if err := flush(total); err != nil {
			return total, err
		}
	}
}
