package upstream

import (
	"errors"
	"net"
	"strings"
	"testing"
)

// A panicking connection panics when it is read.
type panicking struct{ net.Conn }

func (panicking) Read([]byte) (int, error) { panic("a frame that nobody thought of") }

// TestH2Panic ends the connection whose frames make the reader panic, and nothing else.
func TestH2Panic(t *testing.T) {
	addr, accepted := listen(t)
	tcp, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	<-accepted
	c, err := newConn(t.Context(), &origin{host: "example.com"}, tcp.(*net.TCPConn), h2Window)
	if err != nil {
		t.Fatal(err)
	}
	c.h2, c.rw = newH2(c, h2Window), panicking{c.rw}
	c.h2.run()
	if err := c.h2.usable(); err == nil || !strings.Contains(err.Error(), "string while reading frames") || strings.Contains(err.Error(), "nobody thought of") {
		t.Errorf("the connection's end is %v", err)
	}
	if _, err := tcp.Write([]byte{0}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection is open: %v", err)
	}
}
