package upstream

// An h2Buffer holds content that arrived and was not yet read. It grows with what arrives, up to the
// window, and is given back when it is empty and was large. The zero value is empty.
type h2Buffer struct {
	buf   []byte
	start int // buf[start:] is unread
}

// h2KeptBuffer is the capacity in bytes that stays while a connection is idle.
const h2KeptBuffer = 16 << 10

func (b *h2Buffer) len() int { return len(b.buf) - b.start }

// write appends p, whose length the caller has checked against the window.
func (b *h2Buffer) write(p []byte) {
	if len(b.buf)+len(p) > cap(b.buf) {
		to := b.buf[:0]
		if need := b.len() + len(p); need > cap(b.buf)/2 {
			to = make([]byte, 0, max(need, min(2*need, h2Window), 4<<10))
		}
		b.buf, b.start = append(to, b.buf[b.start:]...), 0
	}
	b.buf = append(b.buf, p...)
}

// read moves bytes to p.
func (b *h2Buffer) read(p []byte) int {
	n := copy(p, b.buf[b.start:])
	if b.start += n; b.start == len(b.buf) {
		b.buf, b.start = b.buf[:0], 0
	}
	return n
}

// trim gives a large buffer back; it is empty.
func (b *h2Buffer) trim() {
	if cap(b.buf) > h2KeptBuffer {
		b.buf = nil
	}
}
