package control

import (
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"
)

// A client that goes away with an answer unread resets the connection: that is an error to the server, and not a
// negative count, at which net/http panics.
func TestReadAfterReset(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "s")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := server.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	client.Close()
	n, err := server.Read(make([]byte, 8))
	if n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d, %v", n, err)
	}
}
