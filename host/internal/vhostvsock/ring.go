package vhostvsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"
)

// maxRing is the largest ring that virtio allows, in descriptors.
const maxRing = 1 << 15

// Flags of descriptors and rings (virtio 1.2, section 2.7).
const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4

	availNoInterrupt = 1 // the driver wants no interrupt
	usedNoNotify     = 1 // we want no kick
)

// A ring is one split virtqueue (virtio 1.2, section 2.7). Its zero value is stopped.
//
//	desc:   num × { le64 address, le32 length, le16 flags, le16 next }
//	avail:  le16 flags, le16 index, num × le16 head
//	used:   le16 flags, le16 index, num × { le32 head, le32 length }
//
// The guest writes desc and avail at any time. Each value is read once and checked where it is used. The
// two words of flags and index are read and written as one of 32 bits, atomically: that orders them
// against what they announce.
type ring struct {
	num               uint32
	desc, avail, used []byte
	addr              ringAddr
	next              uint16 // index in avail of the next chain to take
	filled            uint16 // index in used of the next entry to write
	flags             uint16 // of used
	running           bool
	paused            bool // stopped by GET_VRING_BASE, which reported next
	generation        int  // counts starts
	unsignalled       bool // used has grown since the last interrupt
	kick, call        *doorbell
}

// A ringAddr says where a ring lies, in addresses of QEMU's.
type ringAddr struct{ desc, avail, used uint64 }

// Errors of a ring, all the guest's.
var (
	errIndex    = errors.New("more chains than the ring has descriptors")
	errHead     = errors.New("descriptor index out of the ring")
	errLoop     = errors.New("endless chain of descriptors")
	errIndirect = errors.New("indirect descriptor, which was not negotiated")
	errAddress  = errors.New("descriptor outside of the guest's memory")
	errOrder    = errors.New("descriptor of the wrong direction")
	errShort    = errors.New("chain too short for a packet's header")
	errLong     = errors.New("chain longer than any packet")
)

// locate finds the ring in memory. Alignments are virtio's, but avail's, which we need for its atomic
// word and which Linux gives.
func (r *ring) locate(m *memory) error {
	n := uint64(r.num)
	if n == 0 || n > maxRing || n&(n-1) != 0 {
		return fmt.Errorf("ring of %d descriptors", n)
	}
	r.desc, r.avail, r.used = m.user(r.addr.desc, 16*n), m.user(r.addr.avail, 6+2*n), m.user(r.addr.used, 6+8*n)
	if r.desc == nil || r.avail == nil || r.used == nil {
		return errors.New("ring outside of the guest's memory")
	}
	for _, b := range [][]byte{r.desc, r.avail, r.used} {
		if uintptr(unsafe.Pointer(&b[0]))%4 != 0 {
			return errors.New("ring at an odd address")
		}
	}
	return nil
}

func word(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(&b[0])) }

// start takes the ring up at next.
func (r *ring) start(m *memory) error {
	if err := r.locate(m); err != nil {
		return err
	}
	r.filled = uint16(atomic.LoadUint32(word(r.used)) >> 16)
	r.running, r.paused, r.unsignalled = true, false, true // an interrupt too many tells it what a stop may have lost
	r.generation++
	r.setFlags(0)
	return nil
}

func (r *ring) stop() { r.running = false }

func (r *ring) closeFiles() {
	r.kick.close()
	r.call.close()
	r.kick, r.call = nil, nil
}

// setFlags writes the flags of used, which say whether we want to be kicked.
func (r *ring) setFlags(flags uint16) {
	r.flags = flags
	atomic.StoreUint32(word(r.used), uint32(flags)|uint32(r.filled)<<16)
}

// available returns how many chains there are to take.
func (r *ring) available() (uint16, error) {
	if !r.running {
		return 0, nil
	}
	n := uint16(atomic.LoadUint32(word(r.avail))>>16) - r.next
	if uint32(n) > r.num {
		return 0, errIndex
	}
	return n, nil
}

// A chain is what one chain of descriptors describes.
type chain struct {
	head  uint16
	size  int
	parts [][]byte // none is empty
	array [][]byte // that parts began as, for the next one
}

// take takes the next chain, whose descriptors must all be writable for us, or none. The caller knows
// that there is one.
func (r *ring) take(m *memory, writable bool, c *chain) error {
	slot := int(uint32(r.next) & (r.num - 1))
	head := binary.LittleEndian.Uint16(r.avail[4+2*slot:])
	c.head, c.size, c.parts = head, 0, c.array[:0]
	index := head
	for range r.num {
		if uint32(index) >= r.num {
			return errHead
		}
		d := [16]byte(r.desc[16*int(index):]) // a copy, which stays as it is
		addr, length := binary.LittleEndian.Uint64(d[:]), binary.LittleEndian.Uint32(d[8:])
		flags, next := binary.LittleEndian.Uint16(d[12:]), binary.LittleEndian.Uint16(d[14:])
		switch {
		case flags&descIndirect != 0:
			return errIndirect
		case flags&descWrite != 0 != writable:
			return errOrder
		}
		part := m.guest(addr, uint64(length))
		if part == nil {
			return errAddress
		}
		c.size += len(part)
		if c.size > maxPacket+headerSize {
			if !writable {
				return errLong
			}
			part = part[:len(part)-(c.size-maxPacket-headerSize)] // we fill no more than that
			c.size = maxPacket + headerSize
		}
		if len(part) > 0 {
			c.parts = append(c.parts, part)
		}
		if flags&descNext == 0 {
			if c.size < headerSize {
				return errShort
			}
			r.next++
			c.array = c.parts
			return nil
		}
		index = next
	}
	return errLoop
}

// give returns a chain to the guest, with n bytes written to it.
func (r *ring) give(head uint16, n int) {
	slot := r.used[4+8*int(uint32(r.filled)&(r.num-1)):]
	binary.LittleEndian.PutUint32(slot, uint32(head))
	binary.LittleEndian.PutUint32(slot[4:], uint32(n))
	r.filled++
	atomic.StoreUint32(word(r.used), uint32(r.flags)|uint32(r.filled)<<16)
	r.unsignalled = true
}

// signal interrupts the guest if there is something new for it and it wants to be.
func (r *ring) signal() {
	if !r.unsignalled || !r.running {
		return
	}
	r.unsignalled = false
	if atomic.LoadUint32(word(r.avail))&availNoInterrupt == 0 {
		r.call.ring()
	}
}
