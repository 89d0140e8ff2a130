package upstream

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestH2Nghttpd talks to another implementation.
func TestH2Nghttpd(t *testing.T) {
	if _, err := exec.LookPath("nghttpd"); err != nil {
		t.Skip("try: apt install nghttp2-server")
	}
	s, root := startNghttpd(t)
	for range 20 {
		res := s.mustDo(t, get("/file", field("te", "trailers")), "")
		if res.Status != 200 || res.Content != root {
			t.Fatalf("status %d, %d bytes", res.Status, len(res.Content))
		}
		if got, _ := res.Trailer.Lookup("x-sum"); got != "1" {
			t.Errorf("trailers %v", res.Trailer)
		}
		if res := s.mustDo(t, get("/missing"), ""); res.Status != 404 {
			t.Errorf("status %d", res.Status)
		}
	}
	const size = 64 << 20
	up, down, _ := h2Bulk(t, s, "/echo", size)
	if string(up.Sum(nil)) != string(down.Sum(nil)) {
		t.Error("what came back is not what was sent")
	}
	if n := s.client.pool.sessions["s1"].places; n != 1 {
		t.Errorf("%d connections for all of it", n)
	}
}

// startNghttpd starts nghttpd, with trailers and /echo, and returns what /file holds.
func startNghttpd(t *testing.T) (s *upstreamServer, file string) {
	t.Helper()
	dir := t.TempDir()
	file = strings.Repeat("nghttpd ", 40_000)
	donor := httptest.NewTLSServer(nil)
	donor.Close()
	key, err := x509.MarshalPKCS8PrivateKey(donor.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"file":     []byte(file),
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: donor.Certificate().Raw}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr)
	_ = ln.Close()
	cmd := exec.Command("nghttpd", "-a", "127.0.0.1", "-d", dir, "--trailer=x-sum: 1", "--echo-upload",
		fmt.Sprint(addr.Port), filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 500 {
		nc, err := net.Dial("tcp", addr.String())
		if err == nil {
			_ = nc.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	s = &upstreamServer{}
	s.connect(t, "https", addr.String(), donor.Certificate())
	s.key.HTTP2 = true
	t.Cleanup(func() { _ = s.client.Close() })
	return s, file
}
