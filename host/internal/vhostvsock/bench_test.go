package vhostvsock

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// The device is measured beside a Unix socket without it, in the same run. The driver is the fake one, so that there is
// no machine whose own speed would count.

// echo answers each byte with itself until its end.
func echo(c net.Conn) {
	b := make([]byte, 1)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

func BenchmarkConnect(b *testing.B) {
	b.Run("unix", func(b *testing.B) {
		l := listen(b)
		for b.Loop() {
			c, err := net.Dial("unix", l.Addr().String())
			must(b, err)
			other, err := l.Accept()
			must(b, err)
			c.Close()
			other.Close()
		}
	})
	b.Run("vsock", func(b *testing.B) {
		l := listen(b)
		d := newDriver(b, func(ctx context.Context, _ uint32) (*net.UnixConn, error) { return DialUnix(ctx, l.Addr().String()) })
		for b.Loop() {
			d.put(from(700, 5, opRequest), nil, false)
			d.want(opResponse)
			other, err := l.Accept()
			must(b, err)
			d.put(from(700, 5, opReset), nil, false)
			other.Close()
		}
	})
}

func listen(b *testing.B) net.Listener {
	b.Helper()
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	must(b, err)
	b.Cleanup(func() { l.Close() })
	return l
}

// BenchmarkRoundTrip sends one byte, and waits for one.
func BenchmarkRoundTrip(b *testing.B) {
	b.Run("unix", func(b *testing.B) {
		c, other, err := unixPair()
		must(b, err)
		defer c.Close()
		go echo(other)
		buf := []byte{1}
		for b.Loop() {
			_, err := c.Write(buf)
			must(b, err)
			_, err = io.ReadFull(c, buf)
			must(b, err)
		}
	})
	b.Run("vsock", func(b *testing.B) {
		dial, others := pair(b)
		d := newDriver(b, dial)
		go echo(d.open(700, 5, others))
		h := contentFrom(700, 5, 1)
		for b.Loop() {
			d.put(h, []byte{1}, false)
			d.want(opContent)
			h.forwarded++
		}
	})
}

// benchPiece is how much is written at a time, in bytes.
const benchPiece = 16 << 10

func BenchmarkToHost(b *testing.B) {
	b.Run("unix", func(b *testing.B) {
		c, other, err := unixPair()
		must(b, err)
		go func() {
			_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{other}, make([]byte, maxPacket))
		}()
		piece := make([]byte, benchPiece)
		b.SetBytes(benchPiece)
		for b.Loop() {
			_, err := c.Write(piece)
			must(b, err)
		}
		c.Close()
	})
	b.Run("vsock", func(b *testing.B) {
		dial, others := pair(b)
		d := newDriver(b, dial)
		other := d.open(700, 5, others)
		go func() {
			_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{other}, make([]byte, maxPacket))
		}()
		sent, taken := uint32(0), uint32(0)
		piece := make([]byte, benchPiece)
		b.SetBytes(benchPiece)
		for b.Loop() {
			for wait := time.Duration(0); sent+benchPiece-taken > bufferSize; wait = patience {
				p, ok := d.get(wait)
				if !ok && wait > 0 {
					b.Fatal("no credit")
				}
				if ok && p.op == opCreditUpdate {
					taken = p.forwarded
				}
			}
			d.put(contentFrom(700, 5, benchPiece), piece, true)
			sent += benchPiece
		}
	})
}

func BenchmarkToGuest(b *testing.B) {
	write := func(c net.Conn) {
		piece := make([]byte, maxPacket)
		for {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	}
	b.Run("unix", func(b *testing.B) {
		c, other, err := unixPair()
		must(b, err)
		go write(other)
		piece := make([]byte, benchPiece)
		b.SetBytes(benchPiece)
		for b.Loop() {
			_, err := io.ReadFull(c, piece)
			must(b, err)
		}
		c.Close()
	})
	b.Run("vsock", func(b *testing.B) {
		dial, others := pair(b)
		d := newDriver(b, dial)
		go write(d.open(700, 5, others))
		taken, told, left := uint32(0), uint32(0), 0
		b.SetBytes(benchPiece)
		for b.Loop() {
			for left < benchPiece {
				p := d.want(opContent)
				left += len(p.content)
				if taken += uint32(len(p.content)); taken-told > 64<<10 {
					h := from(700, 5, opCreditUpdate)
					h.forwarded, told = taken, taken
					d.put(h, nil, false)
				}
			}
			left -= benchPiece
		}
	})
}
