package vhostvsock

import "errors"

// Errors of packets and of the order of things.
var (
	errContent    = errors.New("a packet's content is longer than its descriptors, or belongs to none")
	errHungUp     = errors.New("the host program is gone")
	errUnprepared = errors.New("ring started before memory and kick are there")
)

// burst is how many packets of the guest are handled before others get their turn.
const burst = 64

// startRing lets a ring run and whoever waits for its kicks. The caller holds mu.
func (d *Device) startRing(index int) error {
	r := &d.rings[index]
	if d.memory == nil || r.kick == nil {
		return errUnprepared
	}
	if err := r.start(d.memory); err != nil {
		return err
	}
	kick, generation := r.kick, r.generation
	d.work.Go(func() {
		serve := d.receive
		if index == rx {
			serve = d.transmit
		}
		for serve(generation) && kick.wait() == nil {
			// until it is closed, when the ring stops
		}
	})
	d.changed.Broadcast()
	return nil
}

// transmit uses new buffers of the guest. It reports whether the ring still runs.
func (d *Device) transmit(generation int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := &d.rings[rx]; !r.running || r.generation != generation {
		return false
	}
	d.flush()
	d.signal()
	d.changed.Broadcast()
	return true
}

// receive handles what the guest has sent. It reports whether the ring still runs.
func (d *Device) receive(generation int) bool {
	var c chain
	for {
		more, running := d.receiveSome(generation, &c)
		if !more {
			return running
		}
	}
}

func (d *Device) receiveSome(generation int, c *chain) (more, running bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &d.rings[tx]
	if !r.running || r.generation != generation {
		return false, false
	}
	defer d.signal()
	r.setFlags(usedNoNotify)
	for range burst {
		if d.stalled = len(d.control) >= maxControl; d.stalled {
			return false, true // flush wakes us
		}
		n, err := r.available()
		if err == nil && n == 0 {
			r.setFlags(0)
			if n, err = r.available(); err == nil && n == 0 {
				return false, true
			}
			r.setFlags(usedNoNotify)
		}
		if err == nil {
			err = r.take(d.memory, false, c)
		}
		if err != nil {
			d.fail(err)
			return false, false
		}
		head := c.head
		d.handle(c)
		if !r.running { // the packet broke the device
			return false, false
		}
		r.give(head, 0)
	}
	return true, true
}

// signal interrupts the guest for what it has not heard of. The caller holds mu.
func (d *Device) signal() {
	for i := range d.rings {
		d.rings[i].signal()
	}
}

// handle handles one packet. The caller holds mu.
func (d *Device) handle(c *chain) {
	var raw [headerSize]byte
	c.read(raw[:])
	h := decodeHeader(&raw)
	switch {
	case h.srcCID != uint64(d.config.CID):
		return // who lies about that gets no answer
	case int(h.length) > c.size || h.op != opContent && h.length > 0:
		d.fail(errContent)
		return
	case h.dstCID != hostCID || h.kind != typeStream:
		d.refuse(&h)
		return
	}
	k := key{guest: h.srcPort, host: h.dstPort}
	conn := d.conns[k]
	switch {
	case conn != nil:
		conn.handle(&h, c)
	case h.op == opRequest:
		d.accept(k, &h)
	default:
		d.refuse(&h)
	}
}

// refuse answers a packet that belongs to no connection. Credit for one that is forgotten is no reason to
// end it: the guest may still be reading.
func (d *Device) refuse(h *header) {
	if h.op != opReset && h.op != opCreditUpdate {
		d.queue(h.reset())
	}
}

// accept begins a connection that the guest asks for.
func (d *Device) accept(k key, h *header) {
	if k.guest >= reservedPort || len(d.conns) >= maxConns || d.dials >= maxConns || d.closed {
		d.refuse(h)
		return
	}
	c := &conn{device: d, key: k}
	if !c.take(h) {
		d.refuse(h)
		return
	}
	d.conns[k] = c
	d.dials++
	d.work.Go(c.dial)
}

// queue sends a packet without content, now or when the guest has a buffer for it. The caller holds mu.
func (d *Device) queue(h header) {
	d.control = append(d.control, h)
	d.flush()
	d.signal()
}

// flush sends the packets that wait, as far as there are buffers. Where there are not, the guest will
// kick us. It reports whether none waits any more. The caller holds mu.
func (d *Device) flush() bool {
	var c chain
	sent := 0
	for sent < len(d.control) && d.buffer(&c) {
		d.send(&c, &d.control[sent], nil)
		sent++
	}
	d.control = append(d.control[:0], d.control[sent:]...)
	if d.stalled && len(d.control) < maxControl/2 {
		d.stalled = false
		d.rings[tx].kick.ring()
	}
	return len(d.control) == 0
}

// buffer takes an empty buffer of the guest, if there is one. If not, the guest will kick us when there
// is. The caller holds mu.
func (d *Device) buffer(c *chain) bool {
	r := &d.rings[rx]
	if !r.running {
		return false
	}
	n, err := r.available()
	if err == nil && n == 0 {
		r.setFlags(0)
		n, err = r.available()
	}
	if err == nil && n == 0 {
		return false
	}
	if r.flags == 0 {
		r.setFlags(usedNoNotify)
		d.changed.Broadcast() // the guest may not kick for what the others wait for
	}
	if err == nil {
		err = r.take(d.memory, true, c)
	}
	if err != nil {
		d.fail(err)
		return false
	}
	return true
}

// send fills a buffer with a packet, and returns how much of the content it took. The caller holds mu.
func (d *Device) send(c *chain, h *header, content []byte) int {
	n := min(len(content), c.size-headerSize)
	h.length = uint32(n)
	var raw [headerSize]byte
	h.encode(&raw)
	c.write(raw[:])
	c.write(content[:n])
	d.rings[rx].give(c.head, headerSize+n)
	return n
}
