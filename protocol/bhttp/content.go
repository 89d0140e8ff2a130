package bhttp

import "io"

// Read reads content of the message whose head was read last. It returns io.EOF once the content
// terminator has been read, and io.ErrUnexpectedEOF if the source ends before. It returns what has
// arrived and does not wait to fill p; it may use all of p as scratch space.
func (r *Reader) Read(p []byte) (int, error) {
	switch {
	case r.err != nil:
		return 0, r.err
	case r.state == trailer:
		return 0, io.EOF
	case r.state != content:
		return 0, errOrder
	case len(p) == 0:
		return 0, nil
	}
	for {
		n, err := r.take(p)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		if r.state == trailer {
			return 0, io.EOF
		}
		if r.Buffered() == 0 && len(p) >= bufferSize {
			n, err = r.readDirect(p)
			if n > 0 || err != nil {
				return n, err
			}
			if r.state == trailer { // the terminator came alone; what is buffered is no content
				return 0, io.EOF
			}
			continue
		}
		if err := r.fill(); err != nil {
			return 0, unexpected(err)
		}
	}
}

// take moves content from the buffer to p, over as many chunks as are there.
func (r *Reader) take(p []byte) (int, error) {
	used, n, err := r.unframe(p, r.buf[r.start:r.end])
	r.start += used
	return n, err
}

// readDirect reads from the source into p itself and takes the framing out in place, so that a large
// chunk costs one system call and no second buffer. What lies beyond the content goes to the buffer.
func (r *Reader) readDirect(p []byte) (int, error) {
	got, err := readSome(r.src, p)
	if err != nil {
		return 0, unexpected(err)
	}
	used, n, err := r.unframe(p, p[:got])
	r.keep(p[used:got])
	return n, err
}

// keep puts b, which the buffer has no other bytes beside, into the buffer.
func (r *Reader) keep(b []byte) {
	if len(b) > len(r.buf) {
		r.buf = make([]byte, max(bufferSize, len(b)))
	}
	r.start, r.end = 0, copy(r.buf, b)
}

// unframe copies content from src to dst, which may be the same memory, until either ends or the
// content does. It returns how much of src it used and how much of dst it filled. A malformed chunk
// length is reported only when no content stands before it, so none is lost.
func (r *Reader) unframe(dst, src []byte) (used, n int, err error) {
	for n < len(dst) && used < len(src) {
		if r.left == 0 {
			v, size, err := readMinimal(src[used:])
			if err != nil && n == 0 {
				return used, 0, r.fail(err)
			}
			if size == 0 {
				break
			}
			used += size
			if v == 0 {
				r.state = trailer
				break
			}
			r.left = v
			continue
		}
		m := int(min(r.left, uint64(len(src)-used), uint64(len(dst)-n)))
		copy(dst[n:], src[used:used+m])
		used, n, r.left = used+m, n+m, r.left-uint64(m)
	}
	return used, n, nil
}
