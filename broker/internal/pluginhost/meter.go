package pluginhost

import (
	"io"
	"net"
	"sync"
	"time"
)

// How much a plugin may write: at once, and each second, in bytes. Whoever writes more is killed.
const (
	outputBurst = 4 << 20 // on standard output and error
	outputRate  = 64 << 10
	answerBurst = 16 << 20 // on its connection
	answerRate  = 4 << 20
)

// A meter holds what flows to a rate. It is safe for concurrent use.
type meter struct {
	rate, burst float64
	over        func() // called once, when it was too much

	mu   sync.Mutex
	left float64
	at   time.Time
}

func newMeter(rate, burst float64, over func()) *meter {
	return &meter{rate: rate, burst: burst, over: sync.OnceFunc(over), left: burst, at: time.Now()}
}

// count counts n bytes.
func (m *meter) count(n int) {
	m.mu.Lock()
	now := time.Now()
	if passed := now.Sub(m.at).Seconds(); passed > 0 {
		m.left = min(m.left+passed*m.rate, m.burst)
	}
	m.at = now
	m.left -= float64(n)
	over := m.left < 0
	m.mu.Unlock()
	if over {
		m.over()
	}
}

// A meteredConn counts what is read.
type meteredConn struct {
	net.Conn
	meter *meter
}

func (c meteredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.meter.count(n)
	return n, err
}

// tailSize is how much is kept of what a plugin writes on standard error, in bytes.
const tailSize = 8 << 10

// A tail keeps the end of what is written. It is safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	text []byte
	all  int64
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all += int64(len(b))
	t.text = append(t.text, b[max(0, len(b)-tailSize):]...)
	if over := len(t.text) - tailSize; over > 0 {
		n := copy(t.text, t.text[over:])
		clear(t.text[n:])
		t.text = t.text[:n]
	}
	return len(b), nil
}

// take returns what is kept, whose owner the caller is from now on, and how much there was.
func (t *tail) take() (text []byte, all int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text, all = t.text, t.all
	t.text = nil
	return text, all
}

// wipe forgets what is kept.
func (t *tail) wipe() {
	text, _ := t.take()
	clear(text[:cap(text)])
}

// A metered reader counts what is read, and keeps the end of it.
type metered struct {
	io.ReadCloser
	meter *meter
	tail  *tail
}

func (m metered) Read(b []byte) (int, error) {
	n, err := m.ReadCloser.Read(b)
	m.meter.count(n)
	_, _ = m.tail.Write(b[:n])
	return n, err
}
