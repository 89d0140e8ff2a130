package vhostvsock

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A key tells a connection apart: the ports of both ends.
type key struct{ guest, host uint32 }

// A conn is one connection: a stream to a host program, and what the guest knows of it. The device's mu
// guards all of it; the socket itself is set once.
type conn struct {
	device *Device
	key    key
	host   *net.UnixConn // nil while it is dialled
	raw    syscall.RawConn
	isOpen bool
	over   bool          // out of the table; the guest does not know it any more
	asked  chan struct{} // where the guest was asked for it: closed when it is open or over
	hello  []byte        // and what the host program is told first, once it is

	// From the guest to the host.
	backlog  []byte // waits for the host program to take what was before it
	held     uint32 // bytes that the host program has not taken: backlog, and what is being written
	received uint32 // bytes in all, modulo 2³²
	told     uint32 // bytes taken, as the guest knows, modulo 2³²
	flushing bool   // a goroutine writes the backlog

	// From the host to the guest.
	sent     uint32 // bytes, modulo 2³²
	buffer   uint32 // of the guest's
	consumed uint32 // as the guest said last, modulo 2³²

	guest, mine ends // what the guest's end does no more, and ours
	said        ends // what of ours the guest knows
	shut        bool // the host program knows that the guest sends no more
	linger      *time.Timer
}

// An ends says in which directions one end of a connection has ended. Its bits are those of opShutdown.
type ends uint32

// has reports whether all of flags are among e.
func (e ends) has(flags ends) bool { return e&flags == flags }

// header returns a packet's header from our end, with our credit as it is now.
func (c *conn) header(op uint16, flags ends) header {
	c.told = c.received - c.held
	return header{
		srcCID: hostCID, dstCID: uint64(c.device.config.CID), srcPort: c.key.host, dstPort: c.key.guest,
		kind: typeStream, op: op, flags: uint32(flags), buffer: bufferSize, forwarded: c.told,
	}
}

// take takes the guest's credit from a packet. It is false if the guest takes back what it had consumed,
// or has consumed what was never sent.
func (c *conn) take(h *header) bool {
	if c.sent-h.forwarded > c.sent-c.consumed {
		return false
	}
	waits := c.credit() == 0
	c.buffer, c.consumed = h.buffer, h.forwarded
	if waits && c.credit() > 0 {
		c.device.changed.Broadcast()
	}
	return true
}

// credit returns how many bytes the guest can hold beyond those under way.
func (c *conn) credit() int {
	underWay := c.sent - c.consumed
	if underWay >= c.buffer {
		return 0
	}
	return int(c.buffer - underWay)
}

// handle handles a packet of the guest.
func (c *conn) handle(h *header, content *chain) {
	switch {
	case h.op == opReset:
		c.drop()
	case !c.take(h):
		c.reset()
	case h.op == opResponse && c.asked != nil && !c.isOpen:
		c.established()
	case !c.isOpen:
		c.reset()
	case h.op == opContent:
		c.receive(int(h.length), content)
	case h.op == opShutdown:
		c.shutdown(ends(h.flags))
	case h.op == opCreditRequest:
		c.device.queue(c.header(opCreditUpdate, 0))
	case h.op != opCreditUpdate:
		c.reset()
	}
}

// reset ends the connection and tells the guest.
func (c *conn) reset() {
	if !c.over {
		h := c.header(opReset, 0)
		c.drop()
		c.device.queue(h)
	}
}

// drop ends the connection at once, without a word to the guest.
func (c *conn) drop() {
	if c.over {
		return
	}
	c.over = true
	delete(c.device.conns, c.key)
	if c.linger != nil {
		c.linger.Stop()
	}
	if c.asked != nil && !c.isOpen {
		close(c.asked)
	}
	if c.host != nil {
		c.host.Close()
	}
	c.backlog = nil
	c.device.changed.Broadcast()
}

// shutdown notes in which directions the guest has ended.
func (c *conn) shutdown(flags ends) {
	if flags.has(shutReceive) && !c.guest.has(shutReceive) {
		_ = c.host.CloseRead() // who writes there learns of it
		c.device.changed.Broadcast()
	}
	c.guest |= flags & (shutReceive | shutSend)
	c.settle()
}

// settle does what follows from the ends of both, and from how much the host program has taken.
func (c *conn) settle() {
	if c.over {
		return
	}
	if c.mine.has(shutReceive) { // nobody will take it
		c.backlog = nil
		if !c.flushing {
			c.held = 0
		}
	}
	switch {
	case c.held > 0:
	case c.guest.has(shutSend | shutReceive):
		c.reset() // the answer to a connection that was closed and has been emptied
		return
	case c.guest.has(shutSend) && !c.shut:
		c.shut = true
		_ = c.host.CloseWrite()
	}
	if c.mine != c.said {
		c.said = c.mine
		c.device.queue(c.header(opShutdown, c.mine))
	}
	if c.mine.has(shutSend|shutReceive) && c.linger == nil {
		// The guest reads what it still has, and then says that it is over. One that does not is forgotten.
		c.linger = time.AfterFunc(lingerTime, func() {
			c.device.mu.Lock()
			defer c.device.mu.Unlock()
			c.drop()
		})
	}
}

// receive takes content from the guest to the host program, directly if that has taken all before it.
func (c *conn) receive(n int, content *chain) {
	if c.guest.has(shutSend) || n > bufferSize-int(c.held) {
		c.reset() // beyond its own end, or beyond our credit
		return
	}
	c.received += uint32(n)
	for n > 0 {
		part := content.parts[0][:min(n, len(content.parts[0]))]
		n -= len(part)
		c.forward(part)
		content.skip(len(part))
	}
	if len(c.backlog) > 0 && !c.flushing {
		c.flushing = true
		c.device.work.Go(c.flush)
	}
	c.settle()
	c.grant()
}

// forward writes b to the host program, or keeps it.
func (c *conn) forward(b []byte) {
	if c.held == 0 && !c.mine.has(shutReceive) {
		b = b[c.try(b):]
	}
	if !c.mine.has(shutReceive) {
		c.backlog = append(c.backlog, b...)
		c.held += uint32(len(b))
	}
}

// grant tells the guest of its credit when that has grown by much.
func (c *conn) grant() {
	if !c.over && c.received-c.held-c.told >= bufferSize/4 {
		c.device.queue(c.header(opCreditUpdate, 0))
	}
}

// try writes to the host program what it takes without waiting.
func (c *conn) try(b []byte) (n int) {
	err := c.raw.Write(func(fd uintptr) bool {
		var err error
		if n, err = unix.Write(int(fd), b); err != nil {
			n = 0
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				c.mine |= shutReceive
			}
		}
		return true
	})
	if err != nil {
		c.mine |= shutReceive
	}
	return n
}

// flush writes the backlog to the host program, waiting for it.
func (c *conn) flush() {
	d := c.device
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(c.backlog) > 0 && !c.over {
		b := c.backlog
		c.backlog = nil
		d.mu.Unlock()
		_, err := c.host.Write(b)
		d.mu.Lock()
		c.held -= uint32(len(b))
		if err != nil {
			c.mine |= shutReceive
		}
		c.grant()
	}
	c.flushing = false
	c.settle()
}
