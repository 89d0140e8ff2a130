package vhostvsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Requests of vhost-user that we know.
const (
	getFeatures         = 1
	setFeatures         = 2
	setOwner            = 3
	resetOwner          = 4
	setMemTable         = 5
	setVringNum         = 8
	setVringAddr        = 9
	setVringBase        = 10
	getVringBase        = 11
	setVringKick        = 12
	setVringCall        = 13
	setVringErr         = 14
	getProtocolFeatures = 15
	setProtocolFeatures = 16
	setVringEnable      = 18
	getConfig           = 24
)

// Flags of a message, beside its version.
const (
	messageVersion = 1
	versionMask    = 3
	flagReply      = 1 << 2
	flagNeedReply  = 1 << 3
)

// Features that we offer: virtio's version 1, and vhost-user's own.
const (
	featureVersion1 = 1 << 32
	featureProtocol = 1 << 30
	features        = featureVersion1 | featureProtocol

	protocolReplyAck = 1 << 3
	protocolConfig   = 1 << 9
	protocolFeatures = protocolReplyAck | protocolConfig
)

// Sizes in bytes.
const (
	messageHeader  = 12
	maxMessage     = 8 + 32*maxRegions // the largest that we know: a memory table
	regionSize     = 32
	configHeader   = 12
	deviceConfig   = 8 // the guest's CID
	vringIndexMask = 0xff
	vringNoFD      = 1 << 8
)

// A message is one of vhost-user:
//
//	u32 request, u32 flags, u32 size, then size bytes; descriptors beside them
type message struct {
	request, flags uint32
	body           []byte
	files          []*os.File
}

var errMessage = errors.New("malformed vhost-user message")

// readMessage reads a message. Its files are the caller's to close. The error is io.EOF at the end.
func readMessage(c *net.UnixConn) (message, error) {
	var head [messageHeader]byte
	oob := make([]byte, unix.CmsgSpace(4*maxRegions))
	n, oobn, flags, _, err := c.ReadMsgUnix(head[:], oob)
	if err != nil {
		return message{}, err
	}
	if n == 0 {
		return message{}, io.EOF
	}
	files, err := parseFiles(oob[:oobn])
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = fmt.Errorf("%w: more than %d descriptors", errMessage, maxRegions)
	}
	if err == nil && n < len(head) {
		_, err = io.ReadFull(c, head[n:])
	}
	m, err2 := decodeMessage(&head)
	if err = errors.Join(err, err2); err == nil {
		_, err = io.ReadFull(c, m.body)
	}
	if err != nil {
		closeAll(files)
		return message{}, err
	}
	m.files = files
	return m, nil
}

// decodeMessage reads a message's head and makes room for its body.
func decodeMessage(head *[messageHeader]byte) (message, error) {
	le := binary.LittleEndian
	m := message{request: le.Uint32(head[0:]), flags: le.Uint32(head[4:])}
	size := le.Uint32(head[8:])
	if m.flags&versionMask != messageVersion || m.flags&flagReply != 0 || size > maxMessage {
		return message{}, fmt.Errorf("%w: request %d, flags %#x, %d bytes", errMessage, m.request, m.flags, size)
	}
	m.body = make([]byte, size)
	return m, nil
}

// parseFiles returns the descriptors that came with a message.
func parseFiles(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			closeAll(files)
			return nil, err
		}
		for _, fd := range fds {
			_ = unix.SetNonblock(fd, true) // or waiting for an eventfd would take a thread
			files = append(files, os.NewFile(uintptr(fd), "vhost-user"))
		}
	}
	return files, nil
}

// reply answers m.
func (m *message) reply(c *net.UnixConn, body []byte) error {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, m.request)
	b = le.AppendUint32(b, messageVersion|flagReply)
	b = le.AppendUint32(b, uint32(len(body)))
	_, err := c.Write(append(b, body...))
	return err
}

// decodeRegions reads a memory table: u32 count, u32 padding, then for each region u64 guest-physical
// address, u64 size, u64 address in QEMU, u64 offset in its file.
func decodeRegions(b []byte) ([]region, error) {
	le := binary.LittleEndian
	if len(b) < 8 {
		return nil, fmt.Errorf("%w: memory table of %d bytes", errMessage, len(b))
	}
	n := le.Uint32(b)
	if n == 0 || n > maxRegions || len(b) != 8+int(n)*regionSize {
		return nil, fmt.Errorf("%w: memory table of %d regions in %d bytes", errMessage, n, len(b))
	}
	regions := make([]region, n)
	for i := range regions {
		r := b[8+i*regionSize:]
		regions[i] = region{guest: le.Uint64(r), size: le.Uint64(r[8:]), user: le.Uint64(r[16:]), offset: le.Uint64(r[24:])}
	}
	return regions, nil
}

// decodeVring reads u32 index, u32 number: a state of a ring.
func decodeVring(b []byte) (index int, number uint32, err error) {
	if len(b) != 8 {
		return 0, 0, fmt.Errorf("%w: ring state of %d bytes", errMessage, len(b))
	}
	i := binary.LittleEndian.Uint32(b)
	if i > tx {
		return 0, 0, fmt.Errorf("%w: ring %d", errMessage, i)
	}
	return int(i), binary.LittleEndian.Uint32(b[4:]), nil
}

// decodeVringAddr reads u32 index, u32 flags, u64 descriptors, u64 used, u64 available, u64 log.
func decodeVringAddr(b []byte) (index int, addr ringAddr, err error) {
	le := binary.LittleEndian
	if len(b) != 40 || le.Uint32(b) > tx || le.Uint32(b[4:]) != 0 { // flags: logging, for migration
		return 0, ringAddr{}, fmt.Errorf("%w: ring addresses", errMessage)
	}
	return int(le.Uint32(b)), ringAddr{desc: le.Uint64(b[8:]), used: le.Uint64(b[16:]), avail: le.Uint64(b[24:])}, nil
}

// decodeVringFile reads u64: the ring's index, and whether there is no descriptor.
func decodeVringFile(b []byte, files int) (index int, err error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: ring descriptor of %d bytes", errMessage, len(b))
	}
	v := binary.LittleEndian.Uint64(b)
	want := 1
	if v&vringNoFD != 0 {
		want = 0
	}
	if v&^(vringIndexMask|vringNoFD) != 0 || v&vringIndexMask > tx || files != want {
		return 0, fmt.Errorf("%w: ring descriptor %#x with %d files", errMessage, v, files)
	}
	return int(v & vringIndexMask), nil
}
