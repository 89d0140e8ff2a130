package transport

import (
	"bytes"
	"errors"
	"net"
	"testing"
)

// A recorder keeps each write.
type recorder struct {
	net.Conn
	writes [][]byte
	err    error
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	r.writes = append(r.writes, bytes.Clone(p))
	return len(p), nil
}

func TestCorked(t *testing.T) {
	r := &recorder{}
	c := &Corked{Conn: r}
	write := func(n int) {
		t.Helper()
		if m, err := c.Write(bytes.Repeat([]byte{byte(n)}, n)); m != n || err != nil {
			t.Fatalf("%d, %v", m, err)
		}
	}
	sizes := func() (all []int) {
		for _, w := range r.writes {
			all = append(all, len(w))
		}
		r.writes = nil
		return all
	}
	for _, tt := range []struct {
		corked bool
		writes []int
		want   []int
	}{
		{false, []int{10, 20}, []int{10, 20}},
		{true, []int{10, 20, 30}, []int{60}},
		{true, nil, nil},
		{true, []int{60 << 10, 16 << 10}, []int{60 << 10, 16 << 10}},
		{true, []int{10, 100 << 10, 5}, []int{10, 100 << 10, 5}},
	} {
		if tt.corked {
			c.Cork()
		}
		for _, n := range tt.writes {
			write(n)
		}
		if err := c.Uncork(); err != nil {
			t.Fatal(err)
		}
		got := sizes()
		if len(got) != len(tt.want) {
			t.Errorf("%v: writes %v, want %v", tt.writes, got, tt.want)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%v: writes %v, want %v", tt.writes, got, tt.want)
			}
		}
	}
	r.err = errors.New("gone")
	c.Cork()
	write(10)
	if err := c.Uncork(); !errors.Is(err, r.err) {
		t.Errorf("the error of a late write got lost: %v", err)
	}
	r.err = nil
	if write(10); len(r.writes) != 1 {
		t.Error("an old error sticks")
	}
}
