package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// steer makes the kernel hand every TCP connection in the own network namespace to the listener, but
// those to 127.0.0.0/8, to ::1 and to port 53: a BPF program of type sk_lookup decides when the
// connection comes in, so the listener's connections keep the destination as their own address and no
// module is needed. It needs CAP_BPF and CAP_NET_ADMIN in the first user namespace. The link that holds
// the program lasts until the returned descriptor is closed.
func steer(l *net.TCPListener) (*os.File, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var link *os.File
	ctlErr := raw.Control(func(fd uintptr) { link, err = steerTo(uint64(fd)) })
	if err := errors.Join(ctlErr, err); err != nil {
		return nil, fmt.Errorf("steering connections by sk_lookup: %w", err)
	}
	return link, nil
}

func steerTo(listener uint64) (*os.File, error) {
	sockets, err := newSocketMap(listener)
	if err != nil {
		return nil, err
	}
	defer sockets.Close()
	program, err := loadProgram(lookupProgram(int32(sockets.Fd())))
	if err != nil {
		return nil, err
	}
	defer program.Close()
	namespace, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	defer namespace.Close()
	return bpf("attach", unix.BPF_LINK_CREATE, words(uint32(program.Fd()), uint32(namespace.Fd()), unix.BPF_SK_LOOKUP, 0))
}

// newSocketMap makes a map with the listener as its only element.
func newSocketMap(listener uint64) (*os.File, error) {
	const key, value, entries = 4, 8, 1 // sizes of key and value
	sockets, err := bpf("map", unix.BPF_MAP_CREATE, words(unix.BPF_MAP_TYPE_SOCKMAP, key, value, entries))
	if err != nil {
		return nil, err
	}
	var pinner runtime.Pinner
	defer pinner.Unpin()
	index, value64 := new(uint32), &listener
	pinner.Pin(index)
	pinner.Pin(value64)
	attr := words(uint32(sockets.Fd()), 0)
	attr = appendPointer(attr, unsafe.Pointer(index))
	attr = appendPointer(attr, unsafe.Pointer(value64))
	attr = binary.NativeEndian.AppendUint64(attr, unix.BPF_ANY)
	if _, err := bpfCall(unix.BPF_MAP_UPDATE_ELEM, attr); err != nil {
		sockets.Close()
		return nil, fmt.Errorf("map element: %w", err)
	}
	return sockets, nil
}

func loadProgram(instructions []byte) (*os.File, error) {
	license := []byte("Apache-2.0\x00")
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(&instructions[0])
	pinner.Pin(&license[0])
	attr := words(unix.BPF_PROG_TYPE_SK_LOOKUP, uint32(len(instructions)/8))
	attr = appendPointer(attr, unsafe.Pointer(&instructions[0]))
	attr = appendPointer(attr, unsafe.Pointer(&license[0]))
	attr = append(attr, words(0, 0, 0, 0, 0, 0)...) // no log, kernel version, flags
	attr = append(attr, make([]byte, 16)...)        // no name
	attr = append(attr, words(0, unix.BPF_SK_LOOKUP)...)
	return bpf("program", unix.BPF_PROG_LOAD, attr)
}

// Offsets into struct bpf_sk_lookup.
const (
	lookupFamily    = 8
	lookupProtocol  = 12
	lookupLocalIP4  = 40 // network order
	lookupLocalIP6  = 44
	lookupLocalPort = 60 // host order
)

// lookupProgram assembles the program. Its verdict is to pass what is none of ours, and to drop what
// cannot be handed over rather than let it reach an impostor.
func lookupProgram(sockets int32) []byte {
	const (
		pass, drop    = 1, 0
		mapLookup     = 1 // helpers
		skAssign      = 124
		skRelease     = 86
		loadWord      = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
		jumpNotEqual  = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
		jumpEqual     = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		moveRegister  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
		moveImmediate = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
		call          = unix.BPF_JMP | unix.BPF_CALL
		exit          = unix.BPF_JMP | unix.BPF_EXIT
	)
	loopback4, loopback6 := int32(127), int32(0x01000000) // as little-endian words of network order
	a := assembler{}
	a.op(moveRegister, 6, 1, 0, 0)
	a.op(loadWord, 2, 6, lookupProtocol, 0)
	a.jump(jumpNotEqual, 2, unix.IPPROTO_TCP, "pass")
	a.op(loadWord, 2, 6, lookupLocalPort, 0)
	a.jump(jumpEqual, 2, 53, "pass")
	a.op(loadWord, 2, 6, lookupFamily, 0)
	a.jump(jumpEqual, 2, unix.AF_INET6, "six")
	a.op(loadWord, 2, 6, lookupLocalIP4, 0)
	a.op(unix.BPF_ALU64|unix.BPF_AND|unix.BPF_K, 2, 0, 0, 0xff)
	a.jump(jumpEqual, 2, loopback4, "pass")
	a.jump(unix.BPF_JMP|unix.BPF_JA, 0, 0, "take")
	a.label("six")
	for i := range int16(3) {
		a.op(loadWord, 2, 6, lookupLocalIP6+4*i, 0)
		a.jump(jumpNotEqual, 2, 0, "take")
	}
	a.op(loadWord, 2, 6, lookupLocalIP6+12, 0)
	a.jump(jumpEqual, 2, loopback6, "pass")
	a.label("take")
	a.op(unix.BPF_ST|unix.BPF_MEM|unix.BPF_W, 10, 0, -4, 0)
	a.op(moveRegister, 2, 10, 0, 0)
	a.op(unix.BPF_ALU64|unix.BPF_ADD|unix.BPF_K, 2, 0, 0, -4)
	a.op(unix.BPF_LD|unix.BPF_IMM|unix.BPF_DW, 1, unix.BPF_PSEUDO_MAP_FD, 0, sockets)
	a.op(0, 0, 0, 0, 0)
	a.op(call, 0, 0, 0, mapLookup)
	a.jump(jumpEqual, 0, 0, "drop")
	a.op(moveRegister, 7, 0, 0, 0)
	a.op(moveRegister, 1, 6, 0, 0)
	a.op(moveRegister, 2, 7, 0, 0)
	a.op(moveImmediate, 3, 0, 0, 0)
	a.op(call, 0, 0, 0, skAssign)
	a.op(moveRegister, 8, 0, 0, 0)
	a.op(moveRegister, 1, 7, 0, 0)
	a.op(call, 0, 0, 0, skRelease)
	a.jump(jumpNotEqual, 8, 0, "drop")
	a.label("pass")
	a.op(moveImmediate, 0, 0, 0, pass)
	a.op(exit, 0, 0, 0, 0)
	a.label("drop")
	a.op(moveImmediate, 0, 0, 0, drop)
	a.op(exit, 0, 0, 0, 0)
	return a.assemble()
}

// An assembler collects eBPF instructions of eight bytes and patches jumps to labels.
type assembler struct {
	code   []byte
	labels map[string]int
	jumps  map[int]string // position of the jump's instruction to its label
}

func (a *assembler) op(code uint8, dst, src uint8, offset int16, immediate int32) {
	a.code = append(a.code, code, src<<4|dst)
	a.code = binary.NativeEndian.AppendUint16(a.code, uint16(offset))
	a.code = binary.NativeEndian.AppendUint32(a.code, uint32(immediate))
}

func (a *assembler) jump(code uint8, dst uint8, immediate int32, label string) {
	if a.jumps == nil {
		a.jumps = map[int]string{}
	}
	a.jumps[len(a.code)] = label
	a.op(code, dst, 0, 0, immediate)
}

func (a *assembler) label(name string) {
	if a.labels == nil {
		a.labels = map[string]int{}
	}
	a.labels[name] = len(a.code)
}

func (a *assembler) assemble() []byte {
	for at, label := range a.jumps {
		binary.NativeEndian.PutUint16(a.code[at+2:], uint16((a.labels[label]-at)/8-1))
	}
	return a.code
}

func words(values ...uint32) []byte { return append32(nil, values...) }

// appendPointer stores an address, whose target the caller has pinned, as union bpf_attr has it.
func appendPointer(b []byte, p unsafe.Pointer) []byte {
	return binary.NativeEndian.AppendUint64(b, uint64(uintptr(p)))
}

// bpf makes one bpf(2) call that returns a descriptor.
func bpf(what string, command uintptr, attr []byte) (*os.File, error) {
	fd, err := bpfCall(command, attr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return os.NewFile(fd, "bpf "+what), nil
}

func bpfCall(command uintptr, attr []byte) (uintptr, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	if errno != 0 {
		return 0, os.NewSyscallError("bpf", errno)
	}
	return fd, nil
}
