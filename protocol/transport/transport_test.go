package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"
)

func TestParseAddr(t *testing.T) {
	long := "/" + strings.Repeat("p", maxPath-1)
	tests := []struct {
		text string
		want Addr
	}{
		{"vsock://2:618", Addr{Network: VSOCK, CID: 2, Port: 618}},
		{"vsock://4294967294:4294967294", Addr{Network: VSOCK, CID: 1<<32 - 2, Port: 1<<32 - 2}},
		{"hybrid:///run/torno/v", Addr{Network: Hybrid, Path: "/run/torno/v"}},
		{"unix:///run/torno/b_618", Addr{Network: Unix, Path: "/run/torno/b_618"}},
		{"unix:///a b%20?#", Addr{Network: Unix, Path: "/a b%20?#"}},
		{"unix://" + long, Addr{Network: Unix, Path: long}},
	}
	for _, tt := range tests {
		got, err := ParseAddr(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("ParseAddr(%q) = %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
		if got.String() != tt.text {
			t.Errorf("String() = %q, want %q", got, tt.text)
		}
	}
	bad := []string{
		"", "vsock", "vsock:", "vsock://", "vsock://2", "vsock://2:", "vsock://:618", "vsock://2:0", "vsock://2:+618",
		"vsock://2:0618", "vsock://02:618", "vsock://2:618/", "vsock://2:4294967295", "vsock://4294967295:618",
		"vsock://2:4294967296", "vsock://-1:618", "vsock://0x2:618", "vsock://1:618", "vsock://0:618", "VSOCK://2:618",
		"tcp://127.0.0.1:1", "unix://", "unix://p", "unix:///", "unix:/p", "unix:////p", "unix:///a/../b", "unix:///a/",
		"unix:///a\x00b", "unix:///a\nb", "unix://" + long + "p", "hybrid://" + long, "hybrid://h/p",
	}
	for _, text := range bad {
		if got, err := ParseAddr(text); err == nil || got != (Addr{}) {
			t.Errorf("ParseAddr(%q) = %+v, %v; want an error", text, got, err)
		}
	}
}

func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{"vsock://2:618", "hybrid:///p", "unix:///p", "unix:///a//b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddr(s)
		if err != nil && a != (Addr{}) {
			t.Errorf("an error and %+v", a)
		}
		if err == nil && a.String() != s {
			t.Errorf("%q reads as %q", s, a)
		}
	})
}

func TestUnixConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		dir, err := os.MkdirTemp("", "")
		if err != nil {
			return nil, nil, nil, err
		}
		a := Addr{Network: Unix, Path: filepath.Join(dir, "s")}
		c1, c2, err = pipe(a, a, 0)
		return c1, c2, func() {
			_ = c1.Close()
			_ = c2.Close()
			_ = os.RemoveAll(dir)
		}, err
	})
}

// TestHybrid plays the VMM: it brings what the VM dials to p_PORT and what the host asks for at p.
func TestHybrid(t *testing.T) {
	p := filepath.Join(t.TempDir(), "v")
	fromVM, onHost, err := pipe(Addr{Network: Unix, Path: p + "_618"}, Addr{Network: Hybrid, Path: p}, 618)
	if err != nil {
		t.Fatal(err)
	}
	defer fromVM.Close()
	defer onHost.Close()
	if uid, ok := PeerUID(onHost); !ok || int(uid) != os.Getuid() {
		t.Errorf("PeerUID = %d, %v", uid, ok)
	}

	tests := []struct{ answer, wantErr string }{
		{"OK 1073741824\nhello", ""},
		{"", "nobody listens"},
		{"OK", "nobody listens"},
		{"NO 1\n", `answer "NO 1\n"`},
		{"OK x\n", `answer "OK x\n"`},
		{"OK 11111111111111111\n", "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.answer, func(t *testing.T) {
			p := filepath.Join(t.TempDir(), "v") // the one before may still be closing its own
			asked := vmm(t, p, tt.answer)
			c, err := Dial(t.Context(), Addr{Network: Hybrid, Path: p, Port: 7})
			if got := <-asked; got != "CONNECT 7\n" {
				t.Errorf("the VMM was asked %q", got)
			}
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
				t.Errorf("after the handshake %q, %v", b, err)
			}
		})
	}
}

func TestHybridCancelled(t *testing.T) {
	p := filepath.Join(t.TempDir(), "v")
	l, err := listenUnix(p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, Addr{Network: Hybrid, Path: p, Port: 7}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent VMM: %v", err)
	}
}

// vmm answers one connection to p and returns what it was asked.
func vmm(t *testing.T, p, answer string) <-chan string {
	l, err := listenUnix(p)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	go func() {
		defer l.Close()
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		line, _ := bufio.NewReader(c).ReadString('\n')
		asked <- line
		_, _ = io.WriteString(c, answer)
	}()
	return asked
}

func TestListenUnix(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "s")
	l, err := Listen(Addr{Network: Unix, Path: p}, 618)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(p)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := listenUnix(p); !errors.Is(err, ErrInUse) {
		t.Errorf("a second listener: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	l, err = listenUnix(p)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	_ = l.Close()

	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{victim, link} {
		if _, err := listenUnix(p); err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("listening on %s: %v", p, err)
		}
	}
}

func TestBindReserved(t *testing.T) {
	var tried []uint32
	port, err := bindReserved(func(sa unix.Sockaddr) error {
		tried = append(tried, sa.(*unix.SockaddrVM).Port)
		if len(tried) < 3 {
			return unix.EADDRINUSE
		}
		return nil
	}, reservedPort-1)
	if d := cmp.Diff([]uint32{1023, 1, 2}, tried); d != "" || port != 2 || err != nil {
		t.Errorf("port %d, %v, tried %v", port, err, tried)
	}
	if _, err := bindReserved(func(unix.Sockaddr) error { return unix.EADDRINUSE }, 0); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("all in use: %v", err)
	}
	if _, err := bindReserved(func(unix.Sockaddr) error { return unix.EACCES }, 0); !errors.Is(err, unix.EACCES) {
		t.Errorf("no privilege: %v", err)
	}
}

// TestWriteBuffers runs on a Unix socket whose buffer is small, so that writes are partial and block.
func TestWriteBuffers(t *testing.T) {
	a := Addr{Network: Unix, Path: filepath.Join(t.TempDir(), "s")}
	c1, c2, err := pipe(a, a, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c1.Close()
	defer c2.Close()
	from := c1.(*net.UnixConn)
	if err := from.SetWriteBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	var want string
	var bufs net.Buffers
	for i, n := range []int{3, 0, 100 << 10, 1, 200 << 10, 0} {
		part := strings.Repeat(string(rune('a'+i)), n)
		want += part
		bufs = append(bufs, []byte(part))
	}
	got := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(c2)
		got <- string(b)
	}()
	if n, err := writeBuffers(from, &bufs); err != nil || n != int64(len(want)) {
		t.Errorf("%d bytes, %v; want %d", n, err, len(want))
	}
	_ = c1.Close()
	if s := <-got; s != want {
		t.Errorf("%d bytes arrived and differ from the %d sent", len(s), len(want))
	}
	bufs = net.Buffers{[]byte("x")}
	if _, err := writeBuffers(from, &bufs); err == nil {
		t.Error("a closed connection was written to")
	}
}

func TestWriteBuffersDeadline(t *testing.T) {
	a := Addr{Network: Unix, Path: filepath.Join(t.TempDir(), "s")}
	c1, c2, err := pipe(a, a, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c1.Close()
	defer c2.Close()
	_ = c1.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	bufs := net.Buffers{make([]byte, 8<<20)}
	if _, err := writeBuffers(c1.(*net.UnixConn), &bufs); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nobody reads: %v", err)
	}
}

// pipe dials one address and accepts at the other.
func pipe(dial, listen Addr, port uint32) (c1, c2 net.Conn, err error) {
	l, err := Listen(listen, port)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if c1, err = Dial(context.Background(), dial); err != nil {
		return nil, nil, err
	}
	c2, err = l.Accept()
	return c1, c2, err
}
