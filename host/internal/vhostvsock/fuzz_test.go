package vhostvsock

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

func writeTemp(t *testing.T) (*os.File, error) {
	f, err := os.CreateTemp(t.TempDir(), "memory")
	if err != nil {
		return nil, err
	}
	return f, f.Truncate(memorySize)
}

// FuzzRing gives the ring's areas and the order of things to the fuzzer: no chain may reach outside of memory,
// be longer than a packet, or keep us for longer than the ring is.
func FuzzRing(f *testing.F) {
	f.Add([]byte{0, 0x10, 0, 0, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0}, uint16(1), false)
	f.Add([]byte{0, 0x10, 0, 0, 0, 0, 0, 0, 44, 0, 0, 0, 1, 0, 0, 0}, uint16(2), false)
	f.Add([]byte{0, 0x10, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 2, 0, 0, 0}, uint16(3), true)
	f.Fuzz(func(t *testing.T, area []byte, index uint16, writable bool) {
		const n = 8
		data := make([]byte, 1<<17)
		m := &memory{data: data, regions: []region{{guest: 0, size: uint64(len(data)), user: userBase}}}
		copy(data[:16*n+2*n], area) // descriptors
		avail := 0x1000
		if len(area) > 16*n {
			copy(data[avail+4:avail+4+2*n], area[16*n:])
		}
		binary.LittleEndian.PutUint16(data[avail+2:], index)
		r := ring{num: n, addr: ringAddr{userBase, userBase + 0x1000, userBase + 0x2000}}
		if err := r.start(m); err != nil {
			t.Fatal(err)
		}
		var c chain
		for range n + 1 {
			some, err := r.available()
			if err != nil || some == 0 {
				return
			}
			if err := r.take(m, writable, &c); err != nil {
				return
			}
			total := 0
			for _, p := range c.parts {
				total += len(p)
			}
			if total != c.size || total > maxPacket+headerSize || total < headerSize || c.head >= n || len(c.parts) > n {
				t.Fatalf("chain of %d parts, %d bytes, says %d", len(c.parts), total, c.size)
			}
			r.give(c.head, 0)
		}
		t.Fatal("more chains than descriptors")
	})
}

// FuzzPacket gives the device a sequence of packets, each as 44 bytes of header with so much content as that says,
// up to 255: it may end connections and break, but must stay within its limits.
func FuzzPacket(f *testing.F) {
	add := func(headers ...header) {
		var b []byte
		for _, h := range headers {
			var raw [headerSize]byte
			h.encode(&raw)
			b = append(b, raw[:]...)
		}
		f.Add(b)
	}
	add(from(7, 5, opRequest), contentFrom(7, 5, 100), from(7, 5, opShutdown), from(7, 5, opReset))
	add(from(7, 5, opRequest), from(7, 5, opCreditRequest), from(7, 5, opCreditUpdate))
	add(from(7, 5, opContent), from(1024, 5, opRequest), from(7, 5, opResponse))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := New(Config{CID: testCID, Log: slog.New(slog.DiscardHandler), Dial: func(context.Context, uint32) (*net.UnixConn, error) {
			return nil, errors.New("nobody")
		}})
		mine, other, err := unixPair()
		if err != nil {
			t.Skip(err)
		}
		defer other.Close()
		// One connection that is open, so that all that can be said of one is tried.
		c := &conn{device: d, key: key{7, 5}, isOpen: true, buffer: 1000}
		if err := c.use(mine); err != nil {
			t.Fatal(err)
		}
		d.conns[c.key] = c
		for len(b) >= headerSize {
			content := make([]byte, int(b[24]))
			d.mu.Lock()
			if len(d.control) < maxControl {
				d.handle(&chain{size: headerSize + len(content), parts: append([][]byte{b[:headerSize:headerSize]}, nonEmpty(content)...)})
			}
			if held := int(c.held); held > bufferSize || len(c.backlog) > bufferSize || len(d.conns) > maxConns {
				t.Fatalf("%d bytes held, %d in the backlog, %d connections", held, len(c.backlog), len(d.conns))
			}
			for k := range d.conns {
				if k.guest >= reservedPort {
					t.Fatalf("a connection from port %d", k.guest)
				}
			}
			d.mu.Unlock()
			b = b[headerSize:]
		}
		d.close()
		if len(d.conns) > 0 {
			t.Fatalf("%d connections are left", len(d.conns))
		}
	})
}

func nonEmpty(b []byte) [][]byte {
	if len(b) == 0 {
		return nil
	}
	return [][]byte{b}
}

// FuzzMessage gives QEMU's messages to all that read them.
func FuzzMessage(f *testing.F) {
	f.Add(append(u32s(setMemTable, messageVersion, 40), append(u32s(1, 0), u64s(0, memorySize, userBase, 0)...)...))
	f.Add(append(u32s(getConfig, messageVersion, 20), make([]byte, 20)...))
	f.Add(append(u32s(setVringAddr, messageVersion, 40), make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < messageHeader {
			return
		}
		m, err := decodeMessage((*[messageHeader]byte)(b))
		if err != nil {
			return
		}
		if len(m.body) > maxMessage {
			t.Fatalf("a body of %d bytes", len(m.body))
		}
		copy(m.body, b[messageHeader:])
		if regions, err := decodeRegions(m.body); err == nil && (len(regions) == 0 || len(regions) > maxRegions) {
			t.Fatalf("%d regions", len(regions))
		}
		if i, _, err := decodeVring(m.body); err == nil && i > tx {
			t.Fatalf("ring %d", i)
		}
		if i, _, err := decodeVringAddr(m.body); err == nil && i > tx {
			t.Fatalf("ring %d", i)
		}
		if i, err := decodeVringFile(m.body, 1); err == nil && i > tx {
			t.Fatalf("ring %d", i)
		}
		fe := &frontend{device: New(Config{CID: testCID, Log: slog.New(slog.DiscardHandler)})}
		if reply, err := fe.getConfig(&m); err == nil && len(reply) != len(m.body) {
			t.Fatalf("%d bytes of configuration", len(reply))
		}
	})
}

// FuzzAsk gives the reader of "CONNECT P\n" anything: it accepts that line alone, and reads nothing after it.
func FuzzAsk(f *testing.F) {
	for _, s := range []string{"CONNECT 52\n", "CONNECT 52\nGET /", "CONNECT 4294967295\n", "CONNECT 4294967296\n", "CONNECT -1\n", "CONNECT +1\n", "connect 1\n", "CONNECT 52", "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := strings.NewReader(s)
		port, err := readAsk(r)
		if read := len(s) - r.Len(); read > maxAsk {
			t.Fatalf("%q: %d bytes were read", s, read)
		}
		if err != nil {
			if port != 0 {
				t.Errorf("%q: an error and port %d", s, port)
			}
			return
		}
		line, rest, _ := strings.Cut(s, "\n")
		digits := strings.TrimPrefix(line, "CONNECT ")
		if n, err := strconv.ParseUint(digits, 10, 32); len(digits) == len(line) || err != nil || uint32(n) != port || r.Len() != len(rest) {
			t.Errorf("%q: port %d, %d bytes left, want %d", s, port, r.Len(), len(rest))
		}
	})
}
