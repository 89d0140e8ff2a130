package run

import (
	"io"
	"testing"
	"testing/iotest"
)

func TestEscape(t *testing.T) {
	for _, c := range []struct {
		in, out string
		stops   bool
	}{
		{"", "", false},
		{"ls\r", "ls\r", false},
		{"~.", "", true},
		{"ls\r~.rest", "ls\r", true},
		{"ls\n~.", "ls\n", true},
		{"a~.", "a~.", false},
		{"~~.", "~.", false},
		{"~~~.", "~~.", false},
		{"~a", "~a", false},
		{"~\r~.", "~\r", true},
		{"~", "~", false},
		{"cd ~\r~/bin\r", "cd ~\r~/bin\r", false},
		{"\x00\xff~\r\x80", "\x00\xff~\r\x80", false},
	} {
		for _, split := range []bool{false, true} {
			stops := false
			e := &escape{from: io.Reader(&once{data: []byte(c.in)}), stop: func() { stops = true }}
			if split {
				e.from = iotest.OneByteReader(e.from)
			}
			got, err := io.ReadAll(e)
			if (err != nil) != c.stops || string(got) != c.out || stops != c.stops {
				t.Errorf("%q (split %v): %q, %v, stops %v; want %q, stops %v", c.in, split, got, err, stops, c.out, c.stops)
			}
		}
	}
}

// once is a reader that ends at every further call too.
type once struct{ data []byte }

func (o *once) Read(p []byte) (int, error) {
	if len(o.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, o.data)
	o.data = o.data[n:]
	return n, nil
}

// A short buffer gets the held byte and the next in two reads.
func TestEscapeShortReads(t *testing.T) {
	e := &escape{from: &once{data: []byte("~x")}, stop: func() {}}
	got := ""
	for {
		var p [1]byte
		n, err := e.Read(p[:])
		got += string(p[:n])
		if err != nil {
			break
		}
	}
	if got != "~x" {
		t.Errorf("got %q", got)
	}
}
