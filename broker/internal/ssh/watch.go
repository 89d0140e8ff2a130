package ssh

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Limits on the clear part of a connection, in bytes. Who goes beyond them is no longer read: then nothing was seen,
// and nothing is signed.
const (
	maxClear  = 128 << 10 // in all
	maxPacket = 40 << 10  // one packet; RFC 4253 §6.1 wants 35000
)

// A Proof is what a server shows in a key exchange (RFC 4253 §8): its host key, and that key's signature over what
// both sides have said, which is the session id. Nobody else can make one for the same connection.
type Proof struct {
	HostKey   []byte // in wire format
	Signature []byte // the same
}

// Of reports whether the proof is that of the connection with this session id.
func (p Proof) Of(session []byte) bool { return verify(p.HostKey, session, p.Signature) == nil }

// A Watch reads what a server says, from its first byte until it is encrypted, and changes none of it. It is not safe
// for concurrent use.
type Watch struct {
	found func(Proof)
	buf   []byte // of what is not yet whole
	total int
	state watchState
}

type watchState uint8

const (
	watchLines   watchState = iota // what a server may say before its version, and the version (RFC 4253 §4.2)
	watchPackets                   // unencrypted ones (RFC 4253 §6)
	watchOver
)

// NewWatch returns a Watch that calls found, at most once, before Write returns the proof's last byte.
func NewWatch(found func(Proof)) *Watch { return &Watch{found: found} }

// Write takes the next bytes. It never fails: what can't be read ends the watch and not the connection.
func (w *Watch) Write(p []byte) (int, error) {
	n := len(p)
	if w.state == watchOver {
		return n, nil
	}
	if w.total += n; w.total > maxClear {
		w.end()
		return n, nil
	}
	w.buf = append(w.buf, p...)
	for {
		took, err := w.next()
		if err != nil {
			w.end()
		}
		if took == 0 || w.state == watchOver {
			return n, nil
		}
		w.buf = w.buf[took:]
	}
}

func (w *Watch) end() { w.state, w.buf = watchOver, nil }

// next reads one line or packet and returns its length: 0 where it is not whole.
func (w *Watch) next() (int, error) {
	if w.state == watchLines {
		i := bytes.IndexByte(w.buf, '\n')
		if i < 0 {
			return 0, nil
		}
		if line := w.buf[:i]; bytes.HasPrefix(line, []byte("SSH-")) {
			if !bytes.HasPrefix(line, []byte("SSH-2.0-")) && !bytes.HasPrefix(line, []byte("SSH-1.99-")) {
				return 0, errors.New("not version 2")
			}
			w.state = watchPackets
		}
		return i + 1, nil
	}
	payload, size, err := packet(w.buf)
	if err != nil || size == 0 {
		return 0, err
	}
	return size, w.message(payload)
}

// packet returns the payload of the unencrypted packet that b begins with and the packet's length, or 0 where it is not
// whole:
//
//	uint32 length  byte padding length  payload  padding
func packet(b []byte) (payload []byte, size int, err error) {
	if len(b) < 5 {
		return nil, 0, nil
	}
	length, padding := binary.BigEndian.Uint32(b), int(b[4])
	if length > maxPacket || (length+4)%8 != 0 || padding < 4 || int(length) < padding+2 {
		return nil, 0, errors.New("not an unencrypted packet")
	}
	size = 4 + int(length)
	if len(b) < size {
		return nil, 0, nil
	}
	return b[5 : size-padding], size, nil
}

// Numbers of messages (RFC 4253 §12, RFC 5656 §7.1, RFC 4419 §5).
const (
	msgDisconnect = 1
	msgIgnore     = 2
	msgDebug      = 4
	msgKexInit    = 20
	msgNewKeys    = 21
	msgKexReply   = 31 // of all methods but that of RFC 4419, where it is the group
	msgGexReply   = 33
)

// message looks at one message. From its NEWKEYS on the server is encrypted.
func (w *Watch) message(payload []byte) error {
	switch payload[0] {
	case msgIgnore, msgDebug, msgKexInit:
		return nil
	case msgKexReply, msgGexReply:
		if proof, ok := reply(payload[1:]); ok {
			w.found(proof)
			w.end()
		}
		return nil // the group of RFC 4419 has two numbers, and its reply follows
	case msgNewKeys, msgDisconnect:
		w.end()
		return nil
	}
	return errors.New("a message that has no place in a key exchange")
}

// reply reads the server's reply: its host key, its public value, and its signature.
func reply(b []byte) (Proof, bool) {
	r := reader{b: b}
	hostKey, _, signature := r.str(), r.str(), r.str()
	if !r.done() || len(hostKey) == 0 || len(signature) == 0 {
		return Proof{}, false
	}
	return Proof{bytes.Clone(hostKey), bytes.Clone(signature)}, true
}

// A reader reads the types of RFC 4251 §5 from the beginning of b. After the first mistake everything is empty.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// boolean reads one in the spelling that everybody writes.
func (r *reader) boolean() bool {
	b := r.byte()
	r.bad = r.bad || b > 1
	return b == 1
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// str reads a string; it shares b's memory.
func (r *reader) str() []byte {
	n := r.uint32()
	if uint64(n) > uint64(len(r.b)) {
		r.bad = true
	}
	return r.take(int(n))
}

// done reports whether all of b was read and no mistake was met.
func (r *reader) done() bool { return !r.bad && len(r.b) == 0 }

func appendString(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
