package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"torno.internal/protocol"
)

// A stream that has been idle for almost as long as the broker allows is not used again.
func TestIdleTooLong(t *testing.T) {
	b := newBroker(t)
	p := New(b.dial, protocol.Token{})
	defer p.Close()
	for i, idle := range []time.Duration{0, maxIdle - time.Second, maxIdle} {
		s, err := p.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Used() != (i > 0) {
			t.Errorf("exchange %d: used %v", i, s.Used())
		}
		if _, err := exchange(s, "/"); err != nil {
			t.Fatal(err)
		}
		s.Release()
		p.idle[0].since = time.Now().Add(-idle)
	}
	s, err := p.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Used() {
		t.Error("a stream that was idle too long was used again")
	}
	s.Abort()
	if n := len(p.slots); n != 0 {
		t.Errorf("%d slots are lost", n)
	}
}

// A broker that takes the connection and never answers the preface fails the exchange, not for ever.
func TestHungBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, theirs) }() // until ours is closed
			return ours, nil
		}, protocol.Token{})
		s, err := p.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, err := exchange(s, "/"); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != replyTimeout {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		s.Abort()
	})
}
