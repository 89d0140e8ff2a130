package capture

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"torno.internal/guest/internal/nstest"
	"torno.internal/protocol"
)

func listen(t *testing.T, method Method) *Listener {
	t.Helper()
	plan, err := NewPlan(protocol.Capture{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Up(); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(t.Context(), plan, method, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestCaptureKeepsDestination(t *testing.T) {
	forMethods(t, func(t *testing.T, method Method) { checkDestinations(t, listen(t, method)) })
}

// Attack 4: somebody inside listens where a host would be called. An impostor can bind to an address
// that is local by route alone, for no privilege is needed for that, but hears nothing.
func TestAttack04Impostor(t *testing.T) {
	forMethods(t, func(t *testing.T, method Method) {
		l := listen(t, method)
		if own, err := net.Listen("tcp", "93.184.216.34:9443"); err == nil {
			t.Errorf("bound to %v without more ado", own.Addr())
		}
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_FREEBIND, 1) })
		}}
		config.SetMultipathTCP(false)
		impostor, err := config.Listen(t.Context(), "tcp4", "93.184.216.34:9443")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := impostor.Accept(); err == nil {
				t.Errorf("the impostor got a connection from %v", c.RemoteAddr())
			}
		}()
		checkDestinations(t, l)
	})
}

// forMethods runs f for each way to catch connections.
func forMethods(t *testing.T, f func(t *testing.T, method Method)) {
	t.Run("redirect", func(t *testing.T) {
		nstest.Run(t, func(t *testing.T) { f(t, Redirect) })
	})
	t.Run("lookup", func(t *testing.T) {
		nstest.RunAsRoot(t, func(t *testing.T) { f(t, Lookup) })
	})
}

func checkDestinations(t *testing.T, l *Listener) {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	accept := func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}
	for _, dialled := range []string{
		"93.184.216.34:443", "93.184.216.34:9443", "93.184.216.34:1", "10.1.2.3:65535", "169.254.169.254:80", "192.0.2.2:8080",
		"100.64.0.1:22", "198.18.0.1:5432", "172.17.0.2:80", "255.255.255.254:9",
		"[2606:2800:220:1::1]:443", "[fd74:6f72:6e6f::1]:80", "[2001:db8::2]:1234", "[fe80::1%lo]:443",
	} {
		go accept()
		c, err := net.DialTimeout("tcp", dialled, time.Minute)
		if err != nil {
			t.Errorf("dial %s: %v", dialled, err)
			continue
		}
		select {
		case s := <-accepted:
			want, _ := net.ResolveTCPAddr("tcp", dialled)
			want.Zone = ""
			if got := s.LocalAddr().String(); got != want.String() {
				t.Errorf("dialled %s, LocalAddr is %s", dialled, got)
			}
			if from := c.LocalAddr().(*net.TCPAddr).IP.String(); from != "192.0.2.2" && from != "2001:db8::2" {
				t.Errorf("dialled %s, client's own address is %s", dialled, from)
			}
			s.Close()
		case <-time.After(time.Minute):
			t.Errorf("dialled %s, nothing arrived", dialled)
		}
		c.Close()
	}
}

func TestLoopbackIsNotCaptured(t *testing.T) {
	forMethods(t, func(t *testing.T, method Method) {
		listen(t, method)
		for _, address := range []string{"127.0.0.1:0", "127.0.0.53:0", "[::1]:0"} {
			own, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				if c, err := own.Accept(); err == nil {
					c.Write([]byte("own"))
					c.Close()
				}
			}()
			c, err := net.Dial("tcp", own.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 3)
			if _, err := c.Read(buf); err != nil || string(buf) != "own" {
				t.Errorf("%s: read %q, %v", address, buf, err)
			}
			own.Close()
		}
		if _, err := net.Dial("tcp", "127.0.0.1:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("closed loopback port: %v, want ECONNREFUSED", err)
		}
	})
}

// The listener's own port, dialled over loopback, has no original destination: reset.
func TestAttackCapturePortOverLoopback(t *testing.T) {
	forMethods(t, func(t *testing.T, method Method) {
		l := listen(t, method)
		go func() {
			if c, err := l.Accept(); err == nil {
				t.Errorf("accepted a connection to %v", c.LocalAddr())
			}
		}()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for _, host := range []string{"127.0.0.1", "127.1.2.3", "::1"} {
			c, err := net.Dial("tcp", net.JoinHostPort(host, port))
			if err != nil {
				continue
			}
			c.SetDeadline(time.Now().Add(time.Minute))
			if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: read %d bytes, %v", host, n, err)
			}
			c.Close()
		}
	})
}

// Attack 25 as far as the capture goes: other UDP fails at once, ping gets no answer, raw ICMP neither.
func TestAttackUDPAndPing(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		listen(t, Redirect)
		for _, address := range []string{"1.1.1.1:443", "8.8.8.8:123", "100.64.0.1:443", "192.0.2.2:443", "[2606:4700::1111]:443", "[fd74:6f72:6e6f::1]:853"} {
			c, err := net.Dial("udp", address)
			if errors.Is(err, syscall.ENETUNREACH) {
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", address, err)
				continue
			}
			c.SetDeadline(time.Now().Add(time.Minute))
			start := time.Now()
			c.Write([]byte("quic"))
			_, err = c.Read(make([]byte, 10))
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s after %v: %v, want ECONNREFUSED", address, time.Since(start), err)
			}
			c.Close()
		}
		for _, target := range []struct{ network, address, echo string }{
			{"ip4:icmp", "8.8.8.8", "\x08\x00\xf7\xfe\x00\x01\x00\x00"},
			{"ip6:ipv6-icmp", "2606:4700::1111", "\x80\x00\x00\x00\x00\x01\x00\x00"},
		} {
			c, err := net.Dial(target.network, target.address)
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte(target.echo))
			c.SetDeadline(time.Now().Add(200 * time.Millisecond))
			buf := make([]byte, 100)
			for {
				n, err := c.Read(buf)
				if err != nil {
					break
				}
				if typ := buf[0]; typ == 0 || typ == 0x81 {
					t.Errorf("%s answered ping with % x", target.address, buf[:n])
				}
			}
			c.Close()
		}
	})
}

func TestNFTablesRefusedHasHint(t *testing.T) {
	err := nftError(syscall.EOPNOTSUPP)
	var hint *HintError
	if !errors.As(err, &hint) || hint.Hint == "" || !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("got %v, want a HintError around EOPNOTSUPP", err)
	}
}

func TestNewPlanRefuses(t *testing.T) {
	for _, c := range []protocol.Capture{{Addr4: "::1"}, {Addr6: "1.2.3.4"}, {Addr4: "x"}, {Names4: "fd00::/8"}, {Names6: "10.0.0.0/8"}, {Names4: "10.0.0.0"}} {
		if p, err := NewPlan(c); err == nil {
			t.Errorf("NewPlan(%+v) = %+v", c, p)
		}
	}
}
