package websocket

import (
	"encoding/binary"
	"errors"
)

// Errors of a server's frames.
var (
	ErrReserved = errors.New("websocket: reserved bit or opcode in a frame")
	ErrMasked   = errors.New("websocket: a server's frame is masked")
	ErrLength   = errors.New("websocket: malformed frame length")
	ErrSequence = errors.New("websocket: frame out of sequence")
)

// CloseProtocolError is the frame that ends a connection with status 1002 (RFC 6455 §7.4.1).
var CloseProtocolError = [4]byte{0x88, 2, 1002 >> 8, 1002 & 0xff}

const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPong         = 10

	bitFin      = 0x80
	bitsRSV     = 0x70
	bitMask     = 0x80
	maxControl  = 125
	longest     = 10 // bytes of a server's frame header
	lengthShort = 126
	lengthLong  = 127
)

// Frames follows the frames that a server sends, without extensions (RFC 6455 §5.2), through any cuts:
//
//	FIN RSV×3 opcode(4) | MASK=0 length(7) | length(16 or 64) | payload
//
// The zero value stands before the first frame. It is not safe for concurrent use.
type Frames struct {
	head    [longest]byte // of the frame that begins
	n       int           // bytes of head that are there
	left    uint64        // payload still to come
	control bool          // of the frame under way
	message bool          // a message has begun and not ended
}

// Next looks at p, the next bytes from the server, and calls payload for every piece of payload in it, which may
// be changed in place. control says that the piece belongs to a Close, Ping or Pong frame. On error whole is how
// many bytes of p belong to frames before the bad one, or -1 if that began before p; nothing must follow.
func (f *Frames) Next(p []byte, payload func(b []byte, control bool) error) (whole int, err error) {
	whole = -1
	if f.n == 0 && f.left == 0 {
		whole = 0
	}
	for i := 0; i < len(p); {
		if f.left > 0 {
			n := int(min(f.left, uint64(len(p)-i)))
			if err := payload(p[i:i+n], f.control); err != nil {
				return whole, err
			}
			i += n
			if f.left -= uint64(n); f.left == 0 {
				whole = i
			}
			continue
		}
		f.head[f.n] = p[i]
		f.n++
		i++
		done, err := f.header()
		if err != nil {
			return whole, err
		}
		if done && f.left == 0 {
			whole = i
		}
	}
	return len(p), nil
}

// header reports whether the frame's header is complete, and begins its payload.
func (f *Frames) header() (bool, error) {
	if f.n == 1 {
		return false, f.first(f.head[0])
	}
	length := f.head[1]
	size := 2
	switch {
	case length&bitMask != 0:
		return false, ErrMasked
	case f.control && length > maxControl:
		return false, ErrLength
	case length == lengthShort:
		size = 4
	case length == lengthLong:
		size = longest
	}
	if f.n < size {
		return false, nil
	}
	f.left = uint64(length)
	switch size {
	case 4:
		if f.left = uint64(binary.BigEndian.Uint16(f.head[2:])); f.left < lengthShort {
			return false, ErrLength
		}
	case longest:
		if f.left = binary.BigEndian.Uint64(f.head[2:]); f.left>>63 != 0 || f.left <= 0xffff {
			return false, ErrLength
		}
	}
	f.n = 0
	return true, nil
}

// first judges a frame's first byte.
func (f *Frames) first(b byte) error {
	op, fin := b&0x0f, b&bitFin != 0
	f.control = op >= opClose
	switch {
	case b&bitsRSV != 0 || op > opPong || op > opBinary && op < opClose:
		return ErrReserved
	case f.control && !fin:
		return ErrSequence
	case f.control:
		return nil
	case (op == opContinuation) != f.message:
		return ErrSequence
	}
	f.message = !fin
	return nil
}
