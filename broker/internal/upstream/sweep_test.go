package upstream

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"torno.internal/protocol"
)

// TestSweep lets idle connections grow old: each goes after idleTimeout, or sooner if the other side
// says so, and nothing is left running when none is idle.
func TestSweep(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{})
		p := &c.pool
		park := func(keep time.Duration) *origin {
			o, err := p.reserve(PoolKey{Session: "s", Scheme: "http", Authority: protocol.Authority{Host: "example.com", Port: 80}})
			if err != nil {
				t.Fatal(err)
			}
			tcp, err := net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
			if err != nil {
				t.Fatal(err)
			}
			cn, err := newConn(context.Background(), o, tcp, h2Window)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.attach(o, cn); err != nil {
				t.Fatal(err)
			}
			p.put(cn, keep)
			return o
		}
		start := time.Now()
		park(5 * time.Second)
		o := park(idleTimeout)
		for _, want := range []struct {
			after time.Duration
			idle  int
		}{{idleTimeout/2 - 1, 2}, {idleTimeout/2 + 1, 1}, {idleTimeout + idleTimeout/2 + 1, 0}} {
			time.Sleep(want.after - time.Since(start))
			synctest.Wait()
			p.mu.Lock()
			if len(o.idle) != want.idle || o.places != want.idle {
				t.Errorf("after %v %d idle, %d places, want %d", want.after, len(o.idle), o.places, want.idle)
			}
			if armed := p.sweeper != nil; armed != (want.idle > 0) {
				t.Errorf("after %v the sweeper is armed: %v", want.after, armed)
			}
			p.mu.Unlock()
		}
	})
}
