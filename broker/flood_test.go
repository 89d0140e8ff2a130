package broker

import (
	"net"
	"strings"
	"testing"
	"time"
)

// TestAttack10SilentFlood opens streams that say nothing, far more than a session may have: the broker takes up a bounded
// number of them, and another session does not notice.
func TestAttack10SilentFlood(t *testing.T) {
	const flood = 1500
	d := newDesk(t, nil)
	bad, good := d.session("a"), d.session("b")
	before := openFiles(t)
	for range flood {
		c, err := net.Dial("unix", strings.TrimPrefix(bad.Broker, "unix://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	taken := func() int { return openFiles(t) - before - flood }
	for last := -1; taken() != last; time.Sleep(50 * time.Millisecond) {
		last = taken()
	}
	if n := taken(); n <= 0 || n > maxConns {
		t.Errorf("%d streams were taken up of %d, at most %d may be", n, flood, maxConns)
	}
	if _, err := d.hello(good.Broker, 1); err != nil {
		t.Errorf("another session: %v", err)
	}
}
