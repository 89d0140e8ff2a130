package main_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"crypto/x509"

	"github.com/coder/websocket"
)

// responses is a socket as coding agents open one first: the key in the handshake, then messages both ways. It
// repeats the key, as debug output of real services does.
func responses(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+openaiKey || len(r.Header.Values("Authorization")) != 1 {
		http.Error(w, "wrong key", http.StatusUnauthorized)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, b, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if c.Write(r.Context(), kind, fmt.Appendf(nil, "%s for %s", b, r.Header.Get("Authorization"))) != nil {
			return
		}
	}
}

// The ws package: a key in the handshake, a hundred messages each way, close codes.
func TestClientWebSocket(t *testing.T) {
	h := newHouse(t, "[limits]\nreflections_per_response = 1000\nreflections_per_session = 1000\n")
	h.secrets()
	h.write("torno.toml", placeholders)
	dir := clients(t)
	h.write("ws.cjs", `const WebSocket = require("`+dir+`/node/node_modules/ws");
const c = new WebSocket("wss://api.openai.com/v1/responses", {headers: {Authorization: "Bearer " + process.env.OPENAI_API_KEY}});
let n = 0;
c.on("open", () => c.send("0"));
c.on("message", m => {
  if (n == 0) console.log(m.toString());
  if (++n == 100) c.close(1000, "done"); else c.send(String(n));
});
c.on("close", code => console.log(n, code, c.extensions));
c.on("error", e => console.log("error", e.message));
`)
	r := h.withClients(dir, "node", "ws.cjs")
	want := "0 for Bearer sk-proj-" + strings.Repeat("*", len(openaiKey)-len("sk-proj-")) + "\n100 1000 \n"
	if r.stdout != want {
		t.Errorf("stdout %q, want %q, exit %d, stderr %q", r.stdout, want, r.code, r.stderr)
	}
	if r := h.sh(`curl -sS -o /dev/null -w '%{http_code}' --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
-H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' http://api.openai.com/v1/responses`); r.stdout != "403" {
		t.Errorf("ws: instead of wss: %q", r.stdout)
	}
}

// gRPC's own interoperability tests, client in the guest and server outside, over a host that a secret is bound to.
func TestClientGRPC(t *testing.T) {
	client, err := filepath.Abs("../.cache/grpc/client")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(client); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("gRPC's tests are not built (make client-deps)")
		}
		t.Skip("gRPC's tests are not built (try: make client-deps)")
	}
	h := newHouse(t, grpcServer(t))
	h.must("secrets", "set", "my-agent", "GRPC_TOKEN=grpc-5f0e1d2c3b4a59687f6e5d4c3b2a1908", "--host", "grpc.example.org")
	tests := []string{
		"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
		"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
		"unimplemented_method", "unimplemented_service",
	}
	script := ""
	for _, test := range tests {
		script += fmt.Sprintf("%s --use_tls --server_host=grpc.example.org --server_port=443 --test_case=%s >out 2>&1 && echo ok || { echo %s; tail -3 out; }\n", client, test, test)
	}
	h.write("all.sh", script)
	r := h.torno("run", "--agent", "my-agent", "--isolation", "namespace", "--mount-ro", filepath.Dir(client), "--", "/bin/sh", "-c", `cp all.sh "$HOME" && cd "$HOME" && . ./all.sh`)
	if want := strings.Repeat("ok\n", len(tests)); r.stdout != want {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
}

// grpcServer starts the interoperability server and returns what broker.toml says of it.
func grpcServer(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cert, ca := issue(t, []string{"grpc.example.org"})
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	for name, b := range map[string][]byte{"ca.pem": ca, "cert.pem": chain, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "../.cache/grpc/server", "--use_tls", "--tls_cert_file="+filepath.Join(dir, "cert.pem"),
		"--tls_key_file="+filepath.Join(dir, "key.pem"), "--port="+strconv.Itoa(port))
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the gRPC server does not listen: %s", &log)
		}
	}
	return fmt.Sprintf("[[upstream]]\nhost = \"grpc.example.org\"\ndial = %q\nca = %q\n", addr, filepath.Join(dir, "ca.pem"))
}
