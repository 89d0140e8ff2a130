package vhostvsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// A frontend is QEMU's end of the vhost-user connection: it tells us of the guest's memory and rings. It
// is less hostile than the guest, but nearer to it than we are: what it says is checked all the same.
type frontend struct {
	device *Device
	conn   *net.UnixConn
	acked  uint64 // protocol features that QEMU took
}

// A handler does what a request asks for. It returns the reply's body where there is one, and may take
// files from m.
type handler func(f *frontend, m *message) (reply []byte, err error)

// handlers are the requests that we know. The others are errors: QEMU asks only for what was offered.
var handlers = map[uint32]handler{
	getFeatures:         func(*frontend, *message) ([]byte, error) { return u64(features), nil },
	getProtocolFeatures: func(*frontend, *message) ([]byte, error) { return u64(protocolFeatures), nil },
	setFeatures:         (*frontend).setFeatures,
	setProtocolFeatures: (*frontend).setProtocolFeatures,
	setOwner:            nothing,
	resetOwner:          nothing,
	setMemTable:         (*frontend).setMemTable,
	setVringNum:         (*frontend).setVringNum,
	setVringAddr:        (*frontend).setVringAddr,
	setVringBase:        (*frontend).setVringBase,
	getVringBase:        (*frontend).getVringBase,
	setVringKick:        (*frontend).setVringKick,
	setVringCall:        (*frontend).setVringCall,
	setVringErr:         (*frontend).setVringErr,
	setVringEnable:      (*frontend).setVringEnable,
	getConfig:           (*frontend).getConfig,
}

func nothing(*frontend, *message) ([]byte, error) { return nil, nil }

func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// serve handles requests until QEMU ends.
func (f *frontend) serve() error {
	for {
		m, err := readMessage(f.conn)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("vhost-user: %w", err)
		}
		err = f.handle(&m)
		closeAll(m.files)
		if err != nil {
			return fmt.Errorf("vhost-user request %d: %w", m.request, err)
		}
	}
}

func (f *frontend) handle(m *message) error {
	h, ok := handlers[m.request]
	if !ok {
		return fmt.Errorf("%w: unknown request", errMessage)
	}
	reply, err := h(f, m)
	switch {
	case err != nil && m.flags&flagNeedReply != 0:
		return errors.Join(err, m.reply(f.conn, u64(1)))
	case err != nil:
		return err
	case reply != nil:
		return m.reply(f.conn, reply)
	case m.flags&flagNeedReply != 0 && f.acked&protocolReplyAck != 0:
		return m.reply(f.conn, u64(0))
	}
	return nil
}

func decodeU64(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: %d bytes, want 8", errMessage, len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (f *frontend) setFeatures(m *message) ([]byte, error) {
	v, err := decodeU64(m.body)
	if err == nil && v&^features != 0 {
		err = fmt.Errorf("features %#x, of which only %#x were offered", v, uint64(features))
	}
	return nil, err
}

func (f *frontend) setProtocolFeatures(m *message) ([]byte, error) {
	v, err := decodeU64(m.body)
	if err == nil && v&^protocolFeatures != 0 {
		err = fmt.Errorf("protocol features %#x, of which only %#x were offered", v, uint64(protocolFeatures))
	}
	f.acked = v
	return nil, err
}

// setMemTable takes the guest's memory. QEMU changes it only while the rings stand still.
func (f *frontend) setMemTable(m *message) ([]byte, error) {
	regions, err := decodeRegions(m.body)
	if err != nil {
		return nil, err
	}
	files := m.files
	m.files = nil
	mem, err := mapMemory(regions, files)
	if err != nil {
		return nil, err
	}
	d := f.device
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rings[rx].running || d.rings[tx].running {
		mem.close()
		return nil, errors.New("memory changed under running rings")
	}
	d.memory.close()
	d.memory = mem
	return nil, nil
}

// withRing calls f with a ring that stands still.
func (f *frontend) withRing(index int, do func(r *ring) error) ([]byte, error) {
	d := f.device
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return nil, d.broken
	}
	r := &d.rings[index]
	if r.running {
		return nil, errors.New("ring changed while it runs")
	}
	return nil, do(r)
}

func (f *frontend) setVringNum(m *message) ([]byte, error) {
	index, n, err := decodeVring(m.body)
	if err != nil {
		return nil, err
	}
	return f.withRing(index, func(r *ring) error { r.num = n; return nil })
}

func (f *frontend) setVringAddr(m *message) ([]byte, error) {
	index, addr, err := decodeVringAddr(m.body)
	if err != nil {
		return nil, err
	}
	return f.withRing(index, func(r *ring) error { r.addr = addr; return nil })
}

// setVringBase says where a ring begins. Where that is not where it was stopped, the driver has begun
// anew and knows no connection any more; where it is, the machine was paused.
func (f *frontend) setVringBase(m *message) ([]byte, error) {
	index, n, err := decodeVring(m.body)
	if err == nil && n >= 1<<16 {
		err = fmt.Errorf("%w: ring base %d", errMessage, n)
	}
	if err != nil {
		return nil, err
	}
	return f.withRing(index, func(r *ring) error {
		if !r.paused || r.next != uint16(n) {
			f.device.reset()
		}
		r.next = uint16(n)
		return nil
	})
}

// getVringBase stops a ring.
func (f *frontend) getVringBase(m *message) ([]byte, error) {
	index, _, err := decodeVring(m.body)
	if err != nil {
		return nil, err
	}
	d := f.device
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &d.rings[index]
	r.signal()
	r.stop()
	r.paused = true
	r.closeFiles()
	b := binary.LittleEndian.AppendUint32(nil, uint32(index))
	return binary.LittleEndian.AppendUint32(b, uint32(r.next)), nil
}

// setVringKick starts a ring: SET_VRING_ENABLE, which comes later, is not sent by every QEMU.
func (f *frontend) setVringKick(m *message) ([]byte, error) {
	index, err := decodeVringFile(m.body, len(m.files))
	if err == nil && len(m.files) == 0 {
		err = errors.New("a ring without a kick would have to be polled")
	}
	if err != nil {
		return nil, err
	}
	return f.withRing(index, func(r *ring) error {
		bell, err := newDoorbell(takeFile(m))
		if err != nil {
			return err
		}
		r.kick.close()
		r.kick = bell
		return f.device.startRing(index)
	})
}

func (f *frontend) setVringCall(m *message) ([]byte, error) {
	index, err := decodeVringFile(m.body, len(m.files))
	if err != nil {
		return nil, err
	}
	bell, err := newDoorbell(takeFile(m))
	if err != nil {
		return nil, err
	}
	d := f.device
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &d.rings[index]
	r.call.close()
	r.call, r.unsignalled = bell, r.running // the old one may have been lost
	r.signal()
	return nil, nil
}

// takeFile takes the one file of a message, or nil.
func takeFile(m *message) *os.File {
	if len(m.files) == 0 {
		return nil
	}
	f := m.files[0]
	m.files = nil
	return f
}

func (f *frontend) setVringErr(m *message) ([]byte, error) {
	_, err := decodeVringFile(m.body, len(m.files))
	return nil, err
}

func (f *frontend) setVringEnable(m *message) ([]byte, error) {
	_, _, err := decodeVring(m.body)
	return nil, err
}

// getConfig reads from the device's configuration space, which is the guest's CID, le64.
func (f *frontend) getConfig(m *message) ([]byte, error) {
	le := binary.LittleEndian
	if len(m.body) < configHeader {
		return nil, fmt.Errorf("%w: configuration request of %d bytes", errMessage, len(m.body))
	}
	offset, size := le.Uint32(m.body), le.Uint32(m.body[4:])
	if offset > deviceConfig || size > deviceConfig-offset || len(m.body) != configHeader+int(size) {
		return nil, fmt.Errorf("%w: %d bytes of configuration at %d", errMessage, size, offset)
	}
	copy(m.body[configHeader:], u64(uint64(f.device.config.CID))[offset:][:size])
	return m.body, nil
}
