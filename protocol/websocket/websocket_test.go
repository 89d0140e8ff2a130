package websocket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestAccept is the example of RFC 6455 §1.3.
func TestAccept(t *testing.T) {
	if got := Accept("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("got %s", got)
	}
	if k := NewKey(); !ValidKey(k) || k == NewKey() {
		t.Errorf("key %q", k)
	}
	for _, k := range []string{"", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==\n", "AAAA", "dGhlIHNhbXBsZSBub25jZR=="} {
		if ValidKey(k) {
			t.Errorf("%q is valid", k)
		}
	}
}

func frame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < lengthShort:
		b = append(b, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, lengthShort), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, lengthLong), uint64(n))
	}
	return append(b, payload...)
}

// TestFrames cuts a sequence of frames everywhere and wants the same payloads.
func TestFrames(t *testing.T) {
	long := strings.Repeat("x", 70000)
	all := bytes.Join([][]byte{
		frame(0x01, "Hel"), frame(0x89, "ping"), frame(0x00, ""), frame(0x80, "lo"),
		frame(0x82, strings.Repeat("b", 200)), frame(0x81, long), frame(0x88, "\x03\xe8bye"),
	}, nil)
	const control = "ping\x03\xe8bye"
	data := "Hello" + strings.Repeat("b", 200) + long
	for cut := range 300 {
		var f Frames
		var got [2]string
		for _, p := range [][]byte{all[:cut], all[cut:]} {
			whole, err := f.Next(p, func(b []byte, control bool) error {
				if control {
					got[1] += string(b)
				} else {
					got[0] += string(b)
				}
				return nil
			})
			if err != nil || whole != len(p) {
				t.Fatalf("cut at %d: %d, %v", cut, whole, err)
			}
		}
		if got[0] != data || got[1] != control {
			t.Fatalf("cut at %d: %d and %q", cut, len(got[0]), got[1])
		}
	}
}

func TestAttackFrames(t *testing.T) {
	good := frame(0x81, "hello")
	tests := []struct {
		name string
		bad  []byte
		want error
	}{
		{"compressed", []byte{0xc1, 0}, ErrReserved},
		{"rsv2", []byte{0xa1, 0}, ErrReserved},
		{"rsv3", []byte{0x91, 0}, ErrReserved},
		{"opcode 3", []byte{0x83, 0}, ErrReserved},
		{"opcode 11", []byte{0x8b, 0}, ErrReserved},
		{"masked", []byte{0x81, 0x85, 1, 2, 3, 4, 5, 6, 7, 8, 9}, ErrMasked},
		{"length 125 in 16 bits", []byte{0x81, 126, 0, 125}, ErrLength},
		{"length 65535 in 64 bits", []byte{0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, ErrLength},
		{"negative length", []byte{0x81, 127, 0x80, 0, 0, 0, 0, 1, 0, 0}, ErrLength},
		{"long ping", []byte{0x89, 126, 0, 126}, ErrLength},
		{"ping in pieces", []byte{0x09, 0}, ErrSequence},
		{"continuation of nothing", []byte{0x80, 0}, ErrSequence},
		{"message in a message", append(frame(0x01, "a"), 0x81, 0), ErrSequence},
	}
	for _, tt := range tests {
		var f Frames
		whole, err := f.Next(append(bytes.Clone(good), tt.bad...), func([]byte, bool) error { return nil })
		if !errors.Is(err, tt.want) || whole < len(good) {
			t.Errorf("%s: %d, %v, want %v", tt.name, whole, err, tt.want)
		}
		var byByte Frames
		err = nil
		for i := 0; i < len(tt.bad) && err == nil; i++ {
			_, err = byByte.Next(tt.bad[i:i+1], func([]byte, bool) error { return nil })
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s, byte by byte: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// FuzzFrames wants the same judgement however the bytes are cut.
func FuzzFrames(f *testing.F) {
	f.Add(frame(0x81, "hello"), uint8(3))
	f.Add([]byte{0xc1, 0}, uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		run := func(pieces ...[]byte) string {
			var f Frames
			var text strings.Builder
			for _, p := range pieces {
				_, err := f.Next(p, func(b []byte, control bool) error { fmt.Fprintf(&text, "%v%x", control, b); return nil })
				if err != nil {
					return err.Error()
				}
			}
			return fmt.Sprint(f.left, f.n, f.message)
		}
		at := min(int(cut), len(b))
		if whole, split := run(b), run(b[:at], b[at:]); whole != split {
			t.Errorf("%q, cut at %d %q", whole, at, split)
		}
	})
}
