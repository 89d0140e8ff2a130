package vhostvsock

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Where the fake driver keeps what, in guest-physical addresses. QEMU's addresses are userBase higher.
const (
	memorySize = 8 << 20
	userBase   = 0x7f00_0000_0000
	ringSize   = 64
	ringArea   = 0x4000 // of one ring: descriptors, then avail, then used
	availAt    = 0x1000
	usedAt     = 0x2000
	rxBuffers  = 1 << 20
	txBuffers  = 4 << 20
	bufferStep = 32 << 10 // each buffer has so much room
	testCID    = 3
)

// patience is how long a test waits for what comes at once on a machine that is not busy.
const patience = time.Minute

// A driver plays QEMU and the guest's driver, over the socket and the memory that the real ones use.
type driver struct {
	t      testing.TB
	device *Device
	qemu   *net.UnixConn
	file   *os.File
	data   []byte
	rings  [2]driverRing
	served chan error
	rxSize int // bytes of a buffer for us
}

type driverRing struct {
	kick, call *os.File
	added      uint16 // index in avail
	taken      uint16 // index in used
}

// newDriver starts a device with Dial and brings up its rings.
func newDriver(t testing.TB, dial func(ctx context.Context, port uint32) (*net.UnixConn, error)) *driver {
	t.Helper()
	d := bareDriver(t, dial)
	d.bringUp(0, 0)
	for i := range ringSize {
		d.offer(uint16(i))
	}
	d.kick(rx)
	return d
}

// bareDriver starts a device and says nothing to it yet.
func bareDriver(t testing.TB, dial func(ctx context.Context, port uint32) (*net.UnixConn, error)) *driver {
	t.Helper()
	ours, theirs, err := Socketpair()
	must(t, err)
	c, err := net.FileConn(theirs)
	must(t, err)
	theirs.Close()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	must(t, err)
	d := &driver{t: t, qemu: c.(*net.UnixConn), file: os.NewFile(uintptr(fd), "guest"), served: make(chan error, 1), rxSize: 4096}
	must(t, d.file.Truncate(memorySize))
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	must(t, err)
	d.data, err = unix.Mmap(fd, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	d.device = New(Config{CID: testCID, Dial: dial, Log: slog.New(slog.DiscardHandler)})
	go func() { d.served <- d.device.Serve(context.Background(), ours) }()
	t.Cleanup(func() {
		d.qemu.Close()
		select {
		case <-d.device.ctx.Done():
		case <-time.After(patience):
			t.Error("the device outlives QEMU")
		}
		d.file.Close()
	})
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ask sends a request with descriptors, and returns the body of the reply that it waits for.
func (d *driver) ask(request uint32, body []byte, files ...*os.File) (reply []byte, err error) {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, request)
	flags := uint32(messageVersion)
	answers := request == getFeatures || request == getProtocolFeatures || request == getVringBase || request == getConfig
	if !answers {
		flags |= flagNeedReply
	}
	b = le.AppendUint32(b, flags)
	b = le.AppendUint32(b, uint32(len(body)))
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if _, _, err := d.qemu.WriteMsgUnix(append(b, body...), unix.UnixRights(fds...), nil); err != nil {
		return nil, err
	}
	_ = d.qemu.SetReadDeadline(time.Now().Add(patience))
	head := make([]byte, messageHeader)
	if _, err := readFull(d.qemu, head); err != nil {
		return nil, err
	}
	reply = make([]byte, le.Uint32(head[8:]))
	_, err = readFull(d.qemu, reply)
	return reply, err
}

func readFull(c net.Conn, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := c.Read(b[n:])
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

// tell sends a request that must be done.
func (d *driver) tell(request uint32, body []byte, files ...*os.File) {
	d.t.Helper()
	reply, err := d.ask(request, body, files...)
	if err != nil || len(reply) != 8 || binary.LittleEndian.Uint64(reply) != 0 {
		d.t.Fatalf("request %d: %x, %v", request, reply, err)
	}
}

func u32s(v ...uint32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}

func u64s(v ...uint64) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

// bringUp negotiates, shares the memory and starts the rings where they were.
func (d *driver) bringUp(rxBase, txBase uint16) {
	d.t.Helper()
	if _, err := d.ask(getFeatures, nil); err != nil {
		d.t.Fatal(err)
	}
	if _, err := d.ask(getProtocolFeatures, nil); err != nil {
		d.t.Fatal(err)
	}
	// Acknowledgements begin with this one.
	d.tell(setProtocolFeatures, u64s(protocolFeatures))
	d.tell(setOwner, nil)
	d.tell(setFeatures, u64s(features))
	d.tell(setMemTable, append(u32s(1, 0), u64s(0, memorySize, userBase, 0)...), d.file)
	for i, base := range []uint16{rxBase, txBase} {
		at := uint64(userBase + i*ringArea)
		d.tell(setVringNum, u32s(uint32(i), ringSize))
		d.tell(setVringBase, u32s(uint32(i), uint32(base)))
		d.tell(setVringAddr, append(u32s(uint32(i), 0), u64s(at, at+usedAt, at+availAt, 0)...))
		r := &d.rings[i]
		r.kick, r.call = eventfd(d.t), eventfd(d.t)
		d.tell(setVringCall, u64s(uint64(i)), r.call)
		d.tell(setVringKick, u64s(uint64(i)), r.kick)
	}
}

// tearDown stops the rings and returns where they were.
func (d *driver) tearDown() (bases [2]uint16) {
	d.t.Helper()
	for i := range bases {
		b, err := d.ask(getVringBase, u32s(uint32(i), 0))
		must(d.t, err)
		bases[i] = uint16(binary.LittleEndian.Uint32(b[4:]))
	}
	return bases
}

func eventfd(t testing.TB) *os.File {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	must(t, err)
	f := os.NewFile(uintptr(fd), "eventfd")
	t.Cleanup(func() { f.Close() })
	return f
}

func (d *driver) kick(ring int) { _, _ = d.rings[ring].kick.Write(one) }

// describe writes a descriptor.
func (d *driver) describe(ring int, index uint16, addr uint64, length uint32, flags, next uint16) {
	b := d.data[ring*ringArea+16*int(index):]
	binary.LittleEndian.PutUint64(b, addr)
	binary.LittleEndian.PutUint32(b[8:], length)
	binary.LittleEndian.PutUint16(b[12:], flags)
	binary.LittleEndian.PutUint16(b[14:], next)
}

// add makes a chain available, without a kick.
func (d *driver) add(ring int, head uint16) {
	r := &d.rings[ring]
	avail := d.data[ring*ringArea+availAt:]
	binary.LittleEndian.PutUint16(avail[4+2*int(r.added%ringSize):], head)
	r.added++
	d.announce(ring, r.added)
}

func (d *driver) announce(ring int, index uint16) {
	atomic.StoreUint32(word(d.data[ring*ringArea+availAt:]), uint32(index)<<16)
}

// offer makes the buffer of index available for what the device sends.
func (d *driver) offer(index uint16) {
	d.describe(rx, index, rxBuffers+uint64(index)*bufferStep, uint32(d.rxSize), descWrite, 0)
	d.add(rx, index)
}

// used returns the next chain that the device has given back, waiting for it.
func (d *driver) used(ring int, wait time.Duration) (head uint16, n int, ok bool) {
	r := &d.rings[ring]
	used := d.data[ring*ringArea+usedAt:]
	deadline := time.Now().Add(wait)
	_ = r.call.SetReadDeadline(deadline)
	for uint16(atomic.LoadUint32(word(used))>>16) == r.taken {
		var b [8]byte
		if _, err := r.call.Read(b[:]); err != nil {
			if uint16(atomic.LoadUint32(word(used))>>16) != r.taken {
				d.t.Error("no interrupt for a buffer that was used")
				break
			}
			return 0, 0, false
		}
	}
	e := used[4+8*int(r.taken%ringSize):]
	r.taken++
	return uint16(binary.LittleEndian.Uint32(e)), int(binary.LittleEndian.Uint32(e[4:])), true
}

// put sends a packet, whose header and content share one descriptor as Linux does it for small ones, or
// have one each.
func (d *driver) put(h header, content []byte, apart bool) {
	d.t.Helper()
	index := (d.rings[tx].added * 2) % ringSize
	at := txBuffers + uint64(index)*bufferStep
	b := d.data[at:]
	h.encode((*[headerSize]byte)(b))
	copy(b[headerSize:], content)
	if apart && len(content) > 0 {
		d.describe(tx, index, at, headerSize, descNext, index+1)
		d.describe(tx, index+1, at+headerSize, uint32(len(content)), 0, 0)
	} else {
		d.describe(tx, index, at, headerSize+uint32(len(content)), 0, 0)
	}
	d.add(tx, index)
	d.kick(tx)
	if _, _, ok := d.used(tx, patience); !ok && d.device.Broken() == nil {
		d.t.Fatal("the device does not take a packet")
	}
}

// A packet is what the device sent.
type packet struct {
	header
	content []byte
}

// get returns the next packet of the device, or none within wait. Its buffer is given back.
func (d *driver) get(wait time.Duration) (packet, bool) {
	head, n, ok := d.used(rx, wait)
	if !ok {
		return packet{}, false
	}
	b := d.data[rxBuffers+int(head)*bufferStep:][:n]
	p := packet{decodeHeader((*[headerSize]byte)(b)), append([]byte(nil), b[headerSize:]...)}
	if int(p.length) != len(p.content) {
		d.t.Errorf("a packet of %d bytes says %d", len(p.content), p.length)
	}
	d.offer(head)
	d.kick(rx)
	return p, true
}

// want returns the next packet of an operation, skipping credit updates unless that is wanted.
func (d *driver) want(op uint16) packet {
	d.t.Helper()
	for {
		p, ok := d.get(patience)
		if !ok {
			d.t.Fatalf("no packet, want operation %d (device: %v)", op, d.device.Broken())
		}
		if p.op == op {
			return p
		}
		if p.op != opCreditUpdate {
			d.t.Fatalf("operation %d, want %d: %+v", p.op, op, p.header)
		}
	}
}

// quiet wants no packet.
func (d *driver) quiet() {
	d.t.Helper()
	if p, ok := d.get(50 * time.Millisecond); ok {
		d.t.Errorf("a packet: %+v", p.header)
	}
}

// from returns a header from the guest.
func from(guest, host uint32, op uint16) header {
	return header{srcCID: testCID, dstCID: hostCID, srcPort: guest, dstPort: host, kind: typeStream, op: op, buffer: 256 << 10}
}

// content returns a header of content.
func contentFrom(guest, host uint32, n int) header {
	h := from(guest, host, opContent)
	h.length = uint32(n)
	return h
}

// pair returns a dialler that answers with one end of a socket pair, and the other ends.
func pair(t testing.TB) (func(context.Context, uint32) (*net.UnixConn, error), <-chan *net.UnixConn) {
	others := make(chan *net.UnixConn, maxConns)
	return func(context.Context, uint32) (*net.UnixConn, error) {
		mine, other, err := unixPair()
		if err == nil {
			t.Cleanup(func() { other.Close() })
			others <- other
		}
		return mine, err
	}, others
}

func unixPair() (a, b *net.UnixConn, err error) {
	a, file, err := Socketpair()
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, c.(*net.UnixConn), nil
}
