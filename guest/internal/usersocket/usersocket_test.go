package usersocket

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// most is how many clients are carried at once.
const most = 8

// Clients are carried, most of them at once, and all of them end with the context.
func TestServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent")
	for range 2 { // also where an earlier process has left its socket
		ln, err := Listen(path, os.Getuid())
		if err != nil {
			t.Fatal(err)
		}
		ln.(*net.UnixListener).SetUnlinkOnClose(false)
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 || int(info.Sys().(*syscall.Stat_t).Uid) != os.Getuid() {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		serve(t, ln, path)
	}
	if _, err := Listen(filepath.Join(path, "nowhere"), os.Getuid()); !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a file: %v", err)
	}
}

func serve(t *testing.T, ln net.Listener, path string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var now, peak atomic.Int64
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, ln, most, slog.New(slog.DiscardHandler), func(ctx context.Context, c net.Conn) error {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			defer now.Add(-1)
			n := now.Add(1)
			for m := peak.Load(); n > m && !peak.CompareAndSwap(m, n); m = peak.Load() {
			}
			_, err := io.Copy(c, c)
			return err
		})
	}()
	var clients []net.Conn
	for range most + 1 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	for i, c := range clients {
		if i == most {
			clients[0].Close() // makes room
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
	}
	if peak.Load() != most {
		t.Errorf("%d clients at once, want %d", peak.Load(), most)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
