package signing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"torno.internal/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves clients at a socket, whose path it returns, until the test ends.
func serve(t *testing.T, ask Asker) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = Carry(ctx, c, ask)
		}
	}()
	t.Cleanup(func() { cancel(); ln.Close(); <-done })
	return path
}

// raw sends bytes and reads to the end.
func raw(t *testing.T, path, text string) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.UnixConn).CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func echo(_ context.Context, body []byte) ([]byte, error) {
	switch {
	case strings.Contains(string(body), "denied"):
		return nil, protocol.Refuse(protocol.ReasonDenied, errors.New("the broker's own words"))
	case strings.Contains(string(body), "gone"):
		return nil, errors.New("the broker's own words")
	}
	return body, nil
}

// What is asked and answered goes by as it is, several times on one connection; refusals are reasons, and nothing else is said.
func TestCarry(t *testing.T) {
	path := serve(t, echo)
	post := func(body string) string {
		return fmt.Sprintf("POST /v1/sign HTTP/1.1\r\nHost: torno\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	got := raw(t, path, post(`{"a":1}`)+post(`{"denied":1}`)+post(`not JSON`)+post(`{"a":2}`))
	for _, want := range []string{"200 OK", `{"a":1}` + "\n", "403 Forbidden", "torno-reason: denied", "400 Bad Request", "torno-reason: bad_request", `{"a":2}` + "\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if got := raw(t, path, post(`{"gone":1}`)); !strings.Contains(got, "503") || !strings.Contains(got, "torno-reason: broker_unavailable") || strings.Contains(got, "own words") {
		t.Errorf("%q", got)
	}
	for name, c := range map[string]struct{ text, want string }{
		"another path":    {"POST /v1/leaf HTTP/1.1\r\nHost: torno\r\nContent-Length: 2\r\n\r\n{}", "404"},
		"a query":         {"POST /v1/sign?x HTTP/1.1\r\nHost: torno\r\nContent-Length: 2\r\n\r\n{}", "404"},
		"another method":  {"GET /v1/sign HTTP/1.1\r\nHost: torno\r\n\r\n", "404"},
		"HEAD":            {"HEAD /v1/sign HTTP/1.1\r\nHost: torno\r\n\r\n", "404"},
		"two lengths":     {"POST /v1/sign HTTP/1.1\r\nHost: torno\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "400"},
		"length, chunked": {"POST /v1/sign HTTP/1.1\r\nHost: torno\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "400"},
		"bare line feed":  {"POST /v1/sign HTTP/1.1\nHost: torno\n\n", "400"},
		"too long":        {post(`"` + strings.Repeat("a", protocol.MaxChannelBody) + `"`), "413"},
		"no HTTP":         {"hello\r\n\r\n", "400"},
		"chunked":         {"POST /v1/sign HTTP/1.1\r\nHost: torno\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "200"},
		"waits for 100":   {"POST /v1/sign HTTP/1.1\r\nHost: torno\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", "100 Continue\r\n\r\nHTTP/1.1 200"},
	} {
		if got := raw(t, path, c.text); !strings.HasPrefix(got, "HTTP/1.1 "+c.want) {
			t.Errorf("%s: %q, want %s", name, got, c.want)
		}
	}
	if got := raw(t, path, "POST /v1/sign HTTP/1.1\r\nHost: torno\r\nContent-Length: 9\r\n\r\n{}"); got != "" {
		t.Errorf("content that ends early: %q", got)
	}
}

// curl asks.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is missing (try: apt-get install curl)")
	}
	path := serve(t, echo)
	out, err := exec.CommandContext(t.Context(), curl, "-sS", "--fail-with-body", "--unix-socket", path, "-d", `{"method":"GET"}`, "http://torno/v1/sign").CombinedOutput()
	if err != nil || string(out) != `{"method":"GET"}`+"\n" {
		t.Errorf("%s, %v", out, err)
	}
	out, err = exec.CommandContext(t.Context(), curl, "-sS", "--fail-with-body", "--unix-socket", path, "-d", `{"method":"denied"}`, "http://torno/v1/sign").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "No rule allows") {
		t.Errorf("%s, %v", out, err)
	}
}

// A client that waits is let go when the guest ends.
func TestCarryEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Carry(ctx, there, func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
	}()
	if _, err := io.WriteString(here, "POST /v1/sign HTTP/1.1\r\nHost: torno\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("it waits on")
	}
	here.Close()
}
