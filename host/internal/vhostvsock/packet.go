package vhostvsock

import "encoding/binary"

// headerSize is the length of a packet's header in bytes.
const headerSize = 44

// Operations (virtio 1.2, section 5.10.6).
const (
	opRequest       = 1
	opResponse      = 2
	opReset         = 3
	opShutdown      = 4
	opContent       = 5
	opCreditUpdate  = 6
	opCreditRequest = 7
)

// Flags of opShutdown.
const (
	shutReceive = 1 // the sender receives no more
	shutSend    = 2 // the sender sends no more
)

// typeStream is the only type of socket that we offer.
const typeStream = 1

// A header is the header of a packet (virtio 1.2, section 5.10.6):
//
//	le64 source CID, le64 destination CID, le32 source port, le32 destination port, le32 length of the
//	content, le16 type, le16 operation, le32 flags, le32 buffer, le32 forwarded
//
// Buffer is how many bytes of this connection the sender holds at most, forwarded how many it has let
// go of so far, modulo 2³²: together they are its credit (section 5.10.6.3).
type header struct {
	srcCID, dstCID    uint64
	srcPort, dstPort  uint32
	length            uint32
	kind, op          uint16
	flags             uint32
	buffer, forwarded uint32
}

func decodeHeader(b *[headerSize]byte) header {
	le := binary.LittleEndian
	return header{
		srcCID: le.Uint64(b[0:]), dstCID: le.Uint64(b[8:]), srcPort: le.Uint32(b[16:]), dstPort: le.Uint32(b[20:]),
		length: le.Uint32(b[24:]), kind: le.Uint16(b[28:]), op: le.Uint16(b[30:]), flags: le.Uint32(b[32:]),
		buffer: le.Uint32(b[36:]), forwarded: le.Uint32(b[40:]),
	}
}

func (h *header) encode(b *[headerSize]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.length)
	le.PutUint16(b[28:], h.kind)
	le.PutUint16(b[30:], h.op)
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.buffer)
	le.PutUint32(b[40:], h.forwarded)
}

// reset returns the answer to h that ends what it is about.
func (h *header) reset() header {
	return header{
		srcCID: h.dstCID, dstCID: h.srcCID, srcPort: h.dstPort, dstPort: h.srcPort, kind: h.kind, op: opReset,
	}
}

// read copies the chain's first bytes to b and drops them from it.
func (c *chain) read(b []byte) {
	for len(b) > 0 {
		n := copy(b, c.parts[0])
		b = b[n:]
		c.skip(n)
	}
}

// write copies b to the chain's first bytes and drops them from it.
func (c *chain) write(b []byte) {
	for len(b) > 0 {
		n := copy(c.parts[0], b)
		b = b[n:]
		c.skip(n)
	}
}

// skip drops n bytes of the first part.
func (c *chain) skip(n int) {
	c.size -= n
	if c.parts[0] = c.parts[0][n:]; len(c.parts[0]) == 0 {
		c.parts = c.parts[1:]
	}
}
