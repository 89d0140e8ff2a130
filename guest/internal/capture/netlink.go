package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A netlink socket speaks one protocol of netlink(7). Messages are built by hand: the two families
// that the capture needs would otherwise cost the guest 700 KB of libraries.
type netlink struct {
	fd  int
	seq uint32
}

// A message is one netlink message before its header: the type, the flags beside NLM_F_REQUEST and the
// family's own header with its attributes.
type message struct {
	typ, flags uint16
	body       []byte
	what       string // for errors
}

const maxReply = 8 << 10 // bytes; an acknowledgement repeats at most the message that it answers

func dialNetlink(protocol int) (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return &netlink{fd: fd, seq: 1}, nil
}

func (n *netlink) Close() error { return unix.Close(n.fd) }

// do sends the messages one after another in one datagram, as a batch of nfnetlink must be, and waits
// for the acknowledgement of each that asks for one. It returns the first refusal.
func (n *netlink) do(messages []message) error {
	var buf []byte
	waiting := map[uint32]string{}
	for _, m := range messages {
		n.seq++
		buf = binary.NativeEndian.AppendUint32(buf, uint32(unix.SizeofNlMsghdr+len(m.body)))
		buf = binary.NativeEndian.AppendUint16(buf, m.typ)
		buf = binary.NativeEndian.AppendUint16(buf, m.flags|unix.NLM_F_REQUEST)
		buf = binary.NativeEndian.AppendUint32(buf, n.seq)
		buf = binary.NativeEndian.AppendUint32(buf, 0)
		buf = append(buf, m.body...)
		buf = pad(buf)
		if m.flags&unix.NLM_F_ACK != 0 {
			waiting[n.seq] = m.what
		}
	}
	if err := unix.Sendto(n.fd, buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	for len(waiting) > 0 {
		if err := n.readAcks(waiting); err != nil {
			return err
		}
	}
	return nil
}

// readAcks reads one datagram of answers and strikes what they acknowledge from waiting.
func (n *netlink) readAcks(waiting map[uint32]string) error {
	reply := make([]byte, maxReply)
	size, _, err := unix.Recvfrom(n.fd, reply, 0)
	if err != nil {
		return os.NewSyscallError("recvfrom", err)
	}
	for reply = reply[:size]; len(reply) >= unix.SizeofNlMsghdr; {
		length := int(binary.NativeEndian.Uint32(reply))
		if length < unix.SizeofNlMsghdr+4 || length > len(reply) {
			return errors.New("netlink answer is cut short")
		}
		typ, seq := binary.NativeEndian.Uint16(reply[4:]), binary.NativeEndian.Uint32(reply[8:])
		if typ == unix.NLMSG_ERROR {
			code := int32(binary.NativeEndian.Uint32(reply[unix.SizeofNlMsghdr:]))
			if code != 0 {
				what, ok := waiting[seq]
				if !ok {
					what = "batch"
				}
				return fmt.Errorf("%s: %w", what, unix.Errno(-code))
			}
			delete(waiting, seq)
		}
		reply = reply[min((length+3)&^3, len(reply)):]
	}
	return nil
}

// attr appends one attribute: length, type, value, padding to four bytes.
func attr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return pad(append(b, value...))
}

// nested is attr for a value that is attributes itself.
func nested(b []byte, typ uint16, value []byte) []byte {
	return attr(b, typ|unix.NLA_F_NESTED, value)
}

// text is attr for a string with its closing NUL.
func text(b []byte, typ uint16, s string) []byte { return attr(b, typ, append([]byte(s), 0)) }

// be32 is attr for an integer in network order, as nf_tables wants them.
func be32(b []byte, typ uint16, v uint32) []byte {
	return attr(b, typ, binary.BigEndian.AppendUint32(nil, v))
}

// host32 is attr for an integer in the machine's order, as rtnetlink wants them.
func host32(b []byte, typ uint16, v uint32) []byte {
	return attr(b, typ, binary.NativeEndian.AppendUint32(nil, v))
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
