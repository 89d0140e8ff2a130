package vhostvsock

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// open opens a connection from a port of the guest and returns the host program's end.
func (d *driver) open(guest, host uint32, others <-chan *net.UnixConn) *net.UnixConn {
	d.t.Helper()
	d.put(from(guest, host, opRequest), nil, false)
	if p := d.want(opResponse); p.srcPort != host || p.dstPort != guest || p.srcCID != hostCID || p.dstCID != testCID || p.buffer != bufferSize {
		d.t.Fatalf("response %+v", p.header)
	}
	return <-others
}

func TestStream(t *testing.T) {
	dial, others := pair(t)
	d := newDriver(t, dial)
	host := d.open(1023, 5, others)
	for _, apart := range []bool{false, true} {
		d.put(contentFrom(1023, 5, 5), []byte("hello"), apart)
		got := make([]byte, 5)
		if _, err := io.ReadFull(host, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if _, err := host.Write([]byte("and back")); err != nil {
		t.Fatal(err)
	}
	if p := d.want(opContent); string(p.content) != "and back" {
		t.Errorf("%q", p.content)
	}
	// The guest sends no more; the host program sees the end, and can still answer.
	h := from(1023, 5, opShutdown)
	h.flags = shutSend
	d.put(h, nil, false)
	if b, err := io.ReadAll(host); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := host.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if p := d.want(opContent); string(p.content) != "late" {
		t.Errorf("%q", p.content)
	}
	// The host program closes: the guest hears of it, answers, and that is all.
	host.Close()
	d.awaitGone(1023, 5)
}

// awaitGone plays the guest's end of a close until the device has forgotten all connections.
func (d *driver) awaitGone(guest, host uint32) {
	d.t.Helper()
	for d.device.Connections() > 0 {
		p, ok := d.get(patience)
		if !ok {
			d.t.Fatal("the connection does not end")
		}
		switch {
		case p.op == opShutdown && ends(p.flags).has(shutSend|shutReceive):
			h := from(guest, host, opReset)
			d.put(h, nil, false)
		case p.op != opShutdown && p.op != opReset && p.op != opCreditUpdate:
			d.t.Fatalf("operation %d", p.op)
		}
	}
}

// What the guest may not ask for is answered by a reset, or by nothing; no host program hears of it.
func TestRefusals(t *testing.T) {
	change := func(f func(h *header)) header {
		h := from(700, 5, opRequest)
		f(&h)
		return h
	}
	for _, c := range []struct {
		name   string
		h      header
		silent bool
	}{
		{"port without privilege", change(func(h *header) { h.srcPort = 1024 }), false},
		{"last port", change(func(h *header) { h.srcPort = 1<<32 - 1 }), false},
		{"another CID to reach", change(func(h *header) { h.dstCID = 4 }), false},
		{"itself to reach", change(func(h *header) { h.dstCID = testCID }), false},
		{"the hypervisor to reach", change(func(h *header) { h.dstCID = 0 }), false},
		{"a CID beyond 32 bits", change(func(h *header) { h.dstCID = 1<<32 | hostCID }), false},
		{"packets in sequence", change(func(h *header) { h.kind = 2 }), false},
		{"somebody else's CID", change(func(h *header) { h.srcCID = 4 }), true},
		{"the host's CID", change(func(h *header) { h.srcCID = hostCID }), true},
		{"credit beyond what was sent", change(func(h *header) { h.forwarded = 1 }), false},
		{"content out of nothing", change(func(h *header) { h.op = opContent }), false},
		{"response to nothing", change(func(h *header) { h.op = opResponse }), false},
		{"shutdown of nothing", change(func(h *header) { h.op = opShutdown }), false},
		{"credit request of nothing", change(func(h *header) { h.op = opCreditRequest }), false},
		{"unknown operation", change(func(h *header) { h.op = 8 }), false},
		{"operation zero", change(func(h *header) { h.op = 0 }), false},
		{"reset of nothing", change(func(h *header) { h.op = opReset }), true},
		{"credit for nothing", change(func(h *header) { h.op = opCreditUpdate }), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dialled := make(chan uint32, 1)
			d := newDriver(t, func(_ context.Context, port uint32) (*net.UnixConn, error) {
				dialled <- port
				return nil, errors.New("nobody")
			})
			d.put(c.h, nil, false)
			if c.silent {
				d.quiet()
			} else if p := d.want(opReset); p.dstPort != c.h.srcPort || p.srcPort != c.h.dstPort || p.srcCID != c.h.dstCID {
				t.Errorf("reset %+v", p.header)
			}
			if n := d.device.Connections(); n != 0 || len(dialled) > 0 {
				t.Errorf("%d connections, %d dialled", n, len(dialled))
			}
			d.put(from(700, 5, opRequest), nil, false) // the control: it still serves, and dials
			d.want(opReset)
			if <-dialled != 5 {
				t.Error("another port")
			}
		})
	}
}

// What breaks a connection's rules ends that connection, and no other.
func TestBrokenConnection(t *testing.T) {
	for name, h := range map[string]header{
		"a second request":          from(700, 5, opRequest),
		"a response":                from(700, 5, opResponse),
		"an unknown operation":      from(700, 5, 99),
		"credit beyond what is due": {srcCID: testCID, dstCID: hostCID, srcPort: 700, dstPort: 5, kind: typeStream, op: opCreditUpdate, buffer: 1, forwarded: 1},
	} {
		t.Run(name, func(t *testing.T) {
			dial, others := pair(t)
			d := newDriver(t, dial)
			host := d.open(700, 5, others)
			other := d.open(701, 5, others)
			d.put(h, nil, false)
			d.want(opReset)
			if _, err := host.Read(make([]byte, 1)); err == nil {
				t.Error("the host program's end is open")
			}
			d.put(contentFrom(701, 5, 1), []byte("x"), false)
			if _, err := other.Read(make([]byte, 1)); err != nil {
				t.Errorf("another connection: %v", err)
			}
		})
	}
}

// A driver that breaks virtio's rules breaks its device, at once and for good: Serve says ErrGuest.
func TestBrokenDriver(t *testing.T) {
	good := func(d *driver) { // a packet at descriptor 0
		h := from(700, 5, opRequest)
		h.encode((*[headerSize]byte)(d.data[txBuffers:]))
		d.describe(tx, 0, txBuffers, headerSize, 0, 0)
	}
	for name, do := range map[string]func(d *driver){
		"head out of the ring":     func(d *driver) { d.add(tx, ringSize) },
		"next out of the ring":     func(d *driver) { d.describe(tx, 0, txBuffers, 4, descNext, 0xffff); d.add(tx, 0) },
		"endless chain":            func(d *driver) { d.describe(tx, 0, txBuffers, 0, descNext, 0); d.add(tx, 0) },
		"indirect":                 func(d *driver) { d.describe(tx, 0, txBuffers, 16, descIndirect, 0); d.add(tx, 0) },
		"writable where we read":   func(d *driver) { d.describe(tx, 0, txBuffers, headerSize, descWrite, 0); d.add(tx, 0) },
		"outside of memory":        func(d *driver) { d.describe(tx, 0, memorySize, headerSize, 0, 0); d.add(tx, 0) },
		"over the end of memory":   func(d *driver) { d.describe(tx, 0, memorySize-4, headerSize, 0, 0); d.add(tx, 0) },
		"over the end of numbers":  func(d *driver) { d.describe(tx, 0, 1<<64-4, headerSize, 0, 0); d.add(tx, 0) },
		"length over everything":   func(d *driver) { d.describe(tx, 0, 0, 1<<32-1, 0, 0); d.add(tx, 0) },
		"shorter than a header":    func(d *driver) { d.describe(tx, 0, txBuffers, headerSize-1, 0, 0); d.add(tx, 0) },
		"longer than any packet":   func(d *driver) { d.describe(tx, 0, txBuffers, maxPacket+headerSize+1, 0, 0); d.add(tx, 0) },
		"more chains than fit":     func(d *driver) { good(d); d.announce(tx, ringSize+1) },
		"index backwards":          func(d *driver) { good(d); d.announce(tx, 0xffff) },
		"buffers not writable":     func(d *driver) { d.describe(rx, 0, rxBuffers, 4096, 0, 0); good(d); d.add(tx, 0) },
		"buffers below a header":   func(d *driver) { d.describe(rx, 0, rxBuffers, 8, descWrite, 0); good(d); d.add(tx, 0) },
		"more buffers than fit":    func(d *driver) { d.announce(rx, 2*ringSize); good(d); d.add(tx, 0) },
		"content without a place":  func(d *driver) { d.lie(contentFrom(700, 5, 1)) },
		"content of a request":     func(d *driver) { h := from(700, 5, opRequest); h.length = 1; d.lie(h) },
		"content of four GiB":      func(d *driver) { d.lie(contentFrom(700, 5, 1<<32-1)) },
		"content of a credit line": func(d *driver) { h := from(700, 5, opCreditUpdate); h.length = 1 << 31; d.lie(h) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDriver(t, func(context.Context, uint32) (*net.UnixConn, error) { return nil, errors.New("nobody") })
			do(d)
			d.kick(tx)
			select {
			case err := <-d.served:
				if !errors.Is(err, ErrGuest) {
					t.Errorf("Serve: %v", err)
				}
			case <-time.After(patience):
				t.Fatal("the device goes on")
			}
		})
	}
}

// lie makes a header available as a packet of its length alone.
func (d *driver) lie(h header) {
	h.encode((*[headerSize]byte)(d.data[txBuffers:]))
	d.describe(tx, 0, txBuffers, headerSize, 0, 0)
	d.add(tx, 0)
}

// The guest sends no more than the credit that it has: what is beyond it ends the connection, and we hold
// no more than that of a host program that does not read.
func TestCreditOfGuest(t *testing.T) {
	dial, others := pair(t)
	d := newDriver(t, dial)
	host := d.open(700, 5, others)
	if err := host.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	const n = 16 << 10
	block := make([]byte, n)
	sent, allowed := 0, bufferSize
	for sent+n <= allowed {
		d.put(contentFrom(700, 5, n), block, true)
		sent += n
		for {
			p, ok := d.get(0)
			if !ok {
				break
			}
			if p.op != opCreditUpdate {
				t.Fatalf("operation %d after %d bytes", p.op, sent)
			}
			allowed = int(p.forwarded) + bufferSize
		}
		if sent > 64*bufferSize {
			t.Fatal("endless credit for a host program that does not read")
		}
	}
	t.Logf("%d bytes until the credit was used up", sent)
	// What the host program has taken since the last word on it is credit that the guest does not know of.
	for range bufferSize/4/n + 1 {
		d.put(contentFrom(700, 5, n), block, true)
		if p, ok := d.get(20 * time.Millisecond); ok && p.op == opReset {
			return
		}
	}
	t.Errorf("no reset for what is beyond the credit (device: %v)", d.device.Broken())
}

// We send no more than the guest has room for, whatever the host program sends.
func TestCreditOfHost(t *testing.T) {
	dial, others := pair(t)
	d := newDriver(t, dial)
	h := from(700, 5, opRequest)
	h.buffer = 1000
	d.put(h, nil, false)
	d.want(opResponse)
	host := <-others
	go func() { _, _ = host.Write(make([]byte, 10000)) }()
	read := func(want int) {
		t.Helper()
		got := 0
		for got < want {
			got += len(d.want(opContent).content)
		}
		if got != want {
			t.Errorf("%d bytes, credit for %d", got, want)
		}
		d.quiet()
	}
	read(1000)
	h = from(700, 5, opCreditUpdate)
	h.buffer, h.forwarded = 1500, 1000
	d.put(h, nil, false)
	read(1500)
	h.buffer, h.forwarded = 0, 2500 // room that was taken back
	d.put(h, nil, false)
	d.quiet()
	h.buffer, h.forwarded = 1<<32-1, 2500
	d.put(h, nil, false)
	read(7500)
	h = from(700, 5, opCreditRequest)
	h.buffer, h.forwarded = 1<<32-1, 10000
	d.put(h, nil, false)
	d.want(opCreditUpdate)
}

// A guest that offers no buffers and asks for ever more answers is not listened to any more; nothing grows.
func TestAnswersBounded(t *testing.T) {
	d := bareDriver(t, func(context.Context, uint32) (*net.UnixConn, error) { return nil, errors.New("nobody") })
	d.bringUp(0, 0)
	h := from(700, 5, opContent) // of no connection: a reset each
	h.length = 0
	taken := 0
	for range 4 * maxControl {
		index := d.rings[tx].added % ringSize
		h.encode((*[headerSize]byte)(d.data[txBuffers+int(index)*bufferStep:]))
		d.describe(tx, index, txBuffers+uint64(index)*bufferStep, headerSize, 0, 0)
		d.add(tx, index)
		d.kick(tx)
		if _, _, ok := d.used(tx, 200*time.Millisecond); !ok {
			break
		}
		taken++
	}
	if taken != maxControl {
		t.Errorf("%d packets were taken, want %d", taken, maxControl)
	}
	for i := range ringSize { // and is when it takes its answers
		d.offer(uint16(i))
	}
	d.kick(rx)
	for range maxControl + 1 {
		d.want(opReset)
	}
}

// As many connections as are allowed, and not one more.
func TestConnectionsBounded(t *testing.T) {
	d := newDriver(t, func(ctx context.Context, _ uint32) (*net.UnixConn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	for i := range uint32(maxConns) {
		d.put(from(i%reservedPort, 5+i/reservedPort, opRequest), nil, false)
	}
	d.quiet()
	if n := d.device.Connections(); n != maxConns {
		t.Errorf("%d connections, want %d", n, maxConns)
	}
	d.put(from(1, 1000, opRequest), nil, false)
	d.want(opReset)
}

// A driver that begins anew knows no connection; one that was only paused goes on where it was.
func TestPauseAndReset(t *testing.T) {
	dial, others := pair(t)
	d := newDriver(t, dial)
	host := d.open(700, 5, others)
	bases := d.tearDown()
	if _, err := host.Write([]byte("while it was paused")); err != nil {
		t.Fatal(err)
	}
	d.bringUp(bases[rx], bases[tx])
	if p := d.want(opContent); string(p.content) != "while it was paused" {
		t.Errorf("%q", p.content)
	}
	d.tearDown()
	for i := range d.rings { // as a driver does that starts again
		d.rings[i].added, d.rings[i].taken = 0, 0
		clear(d.data[i*ringArea : (i+1)*ringArea])
	}
	d.bringUp(0, 0)
	for i := range ringSize {
		d.offer(uint16(i))
	}
	d.kick(rx)
	if _, err := io.ReadAll(host); err != nil {
		t.Errorf("the host program's end: %v", err)
	}
	if n := d.device.Connections(); n != 0 {
		t.Errorf("%d connections after a reset", n)
	}
	d.open(700, 5, others).Close()
}

// What QEMU may not say.
func TestBadMessages(t *testing.T) {
	for name, do := range map[string]func(d *driver) error{
		"unknown request": func(d *driver) error { _, err := d.ask(99, nil); return err },
		"features":        func(d *driver) error { return d.refused(setFeatures, u64s(1<<63)) },
		"ring number":     func(d *driver) error { return d.refused(setVringNum, u32s(2, 64)) },
		"ring base":       func(d *driver) error { return d.refused(setVringBase, u32s(0, 1<<16)) },
		"memory of none":  func(d *driver) error { return d.refused(setMemTable, u32s(0, 0)) },
		"memory too large": func(d *driver) error {
			return d.refused(setMemTable, append(u32s(1, 0), u64s(0, memorySize+1, userBase, 0)...), d)
		},
		"memory beyond numbers": func(d *driver) error {
			return d.refused(setMemTable, append(u32s(1, 0), u64s(1<<64-4096, memorySize, userBase, 0)...), d)
		},
		"offset beyond the file": func(d *driver) error {
			return d.refused(setMemTable, append(u32s(1, 0), u64s(0, 4096, userBase, 1<<63)...), d)
		},
		"memory without a file": func(d *driver) error {
			return d.refused(setMemTable, append(u32s(1, 0), u64s(0, memorySize, userBase, 0)...))
		},
		"kick before memory": func(d *driver) error {
			reply, err := d.ask(setVringKick, u64s(0), eventfd(d.t))
			if err == nil && binary.LittleEndian.Uint64(reply) != 0 {
				err = errors.New("refused")
			}
			return err
		},
		"a message too long": func(d *driver) error {
			_, err := d.qemu.Write(u32s(setMemTable, messageVersion, 1<<30))
			if err == nil {
				_, err = d.qemu.Read(make([]byte, 1))
			}
			return err
		},
		"another version": func(d *driver) error {
			_, err := d.qemu.Write(u32s(getFeatures, 2, 0))
			if err == nil {
				_, err = d.qemu.Read(make([]byte, 1))
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := bareDriver(t, nil)
			if _, err := d.ask(getFeatures, nil); err != nil {
				t.Fatal(err)
			}
			if err := do(d); err == nil {
				t.Error("accepted")
			}
			select {
			case err := <-d.served:
				if err == nil {
					t.Error("Serve returned no error")
				}
			case <-time.After(patience):
				t.Fatal("still served")
			}
		})
	}
}

// refused sends a request and returns an error if that was refused.
func (d *driver) refused(request uint32, body []byte, memory ...*driver) error {
	var reply []byte
	var err error
	if len(memory) > 0 {
		reply, err = d.ask(request, body, memory[0].file)
	} else {
		reply, err = d.ask(request, body)
	}
	if err != nil {
		return err
	}
	if len(reply) == 8 && binary.LittleEndian.Uint64(reply) != 0 {
		return errors.New("refused")
	}
	return nil
}

// Memory that could shrink under us would crash us.
func TestUnsealedMemory(t *testing.T) {
	d := bareDriver(t, nil)
	file, err := writeTemp(t)
	must(t, err)
	defer file.Close()
	reply, err := d.ask(setMemTable, append(u32s(1, 0), u64s(0, memorySize, userBase, 0)...), file)
	if err == nil && binary.LittleEndian.Uint64(reply) == 0 {
		t.Error("a plain file was taken for memory")
	}
}

// From the host: the port that was asked for, "OK", and a stream both ways, in order.
func TestHybrid(t *testing.T) {
	d := newDriver(t, nil)
	base := t.TempDir() + "/v"
	l, err := net.Listen("unix", base)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- d.device.ServeHybrid(ctx, l) }()
	c, err := net.Dial("unix", base)
	must(t, err)
	_, err = c.Write([]byte("CONNECT 52\nearly"))
	must(t, err)
	p := d.want(opRequest)
	if p.dstPort != 52 || p.srcPort != firstHostPort || p.srcCID != hostCID {
		t.Fatalf("%+v", p.header)
	}
	d.put(from(52, p.srcPort, opResponse), nil, false)
	ok := make([]byte, len("OK 1073741824\n"))
	if _, err := io.ReadFull(c, ok); err != nil || string(ok) != "OK 1073741824\n" {
		t.Errorf("%q, %v", ok, err)
	}
	if p := d.want(opContent); string(p.content) != "early" {
		t.Errorf("%q", p.content)
	}
	for _, ask := range []string{"CONNECT\n", "CONNECT 4294967296\n", "CONNECT -1\n", "connect 5\n", "CONNECT 52 \n", "GET / HTTP/1.1\r\n", "CONNECT 00000000000000000000001\n", "\n"} {
		c, err := net.Dial("unix", base)
		must(t, err)
		_, _ = c.Write([]byte(ask))
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%q was answered %q", ask, b)
		}
	}
	// A port that nobody listens on.
	refused, err := net.Dial("unix", base)
	must(t, err)
	_, _ = refused.Write([]byte("CONNECT 53\n"))
	p = d.want(opRequest)
	d.put(from(53, p.srcPort, opReset), nil, false)
	if b, _ := io.ReadAll(refused); len(b) > 0 {
		t.Errorf("answered %q", b)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// Many bytes both ways at once arrive whole and in order.
func TestBulk(t *testing.T) {
	dial, others := pair(t)
	d := newDriver(t, dial)
	host := d.open(700, 5, others)
	const total = 4 << 20
	want := make([]byte, total)
	_, _ = rand.Read(want)
	got := make(chan []byte, 1)
	go func() {
		b := make([]byte, total)
		_, _ = io.ReadFull(host, b)
		got <- b
	}()
	go func() { _, _ = host.Write(want) }()
	var back []byte
	sent, allowed := 0, bufferSize
	for sent < total || len(back) < total {
		if n := min(16<<10, total-sent); n > 0 && sent+n <= allowed {
			h := contentFrom(700, 5, n)
			h.forwarded = uint32(len(back))
			d.put(h, want[sent:sent+n], sent%2 == 0)
			sent += n
		}
		p, ok := d.get(time.Millisecond)
		if !ok {
			h := from(700, 5, opCreditUpdate)
			h.forwarded = uint32(len(back))
			d.put(h, nil, false)
			continue
		}
		allowed = int(p.forwarded) + bufferSize
		back = append(back, p.content...)
		if p.op != opContent && p.op != opCreditUpdate {
			t.Fatalf("operation %d", p.op)
		}
	}
	if !bytes.Equal(<-got, want) || !bytes.Equal(back, want) {
		t.Error("bytes were changed")
	}
}
