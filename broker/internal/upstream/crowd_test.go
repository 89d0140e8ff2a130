package upstream

import (
	"io"
	"testing"
	"time"

	"torno.internal/protocol"
)

// TestAttack10Crowd opens as many HTTP/2 connections as a session may have to a server that sends more than anybody
// reads. What all of them hold together is bounded, and all of it arrives in the end.
func TestAttack10Crowd(t *testing.T) {
	const size = 1 << 20
	const conns = 3 * h2Crowd
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		id, _, _, err := f.request()
		if err != nil {
			return
		}
		f.headers(id, false, ":status", "200")
		f.flood(id, size)
	})
	var all []*Exchange
	for range conns {
		x := s.begin(t, t.Context())
		defer x.Release(false)
		if err := x.ReadResponse(new(protocol.Response)); err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	held := func() (n int) {
		for _, x := range all {
			n += x.Buffered()
		}
		return n
	}
	for last := -1; held() != last; time.Sleep(100 * time.Millisecond) {
		last = held()
	}
	const most = h2Crowd*h2Window + (conns-h2Crowd)*h2DefaultWindow
	if n := held(); n > most || n < most/2 { // less would mean that nobody sent enough
		t.Errorf("%d connections hold %d bytes, at most %d", conns, n, most)
	}
	if n, err := io.Copy(io.Discard, all[conns-1]); err != nil || n != size {
		t.Errorf("%d bytes, %v, want %d", n, err, size)
	}
}
