package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
)

// BenchmarkExchange is one small exchange over a pooled TLS connection, as the broker makes it: with a
// credential, under a context that can be cancelled. The server, in the same process, reads nothing of
// the request but its bytes.
func BenchmarkExchange(b *testing.B) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 23 Nov 2026 21:00:00 GMT\r\n" +
		"Server: nginx\r\nConnection: keep-alive\r\nContent-Length: 13\r\n\r\n{\"ok\": true}\r\n"
	s := newScript(b, "https", func(c net.Conn, _ *bufio.Reader) {
		buf, reply := make([]byte, 4096), []byte(answer[:len(answer)-1])
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write(reply); err != nil {
				return
			}
		}
	})
	req := get("/v1/models", field("accept", "application/json"), field("user-agent", "bench/1"),
		field("accept-encoding", "gzip"), field("x-request-id", "1"))
	creds := []credential.Field{cred("authorization", "Bearer sk-ant-api03-0123456789")}
	var resp protocol.Response
	p := make([]byte, 4096)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for b.Loop() {
		x, err := s.client.Open(ctx, s.key)
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(x.WriteHead(req, creds, 0), x.CloseWrite(nil), x.ReadResponse(&resp)); err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = x.Read(p)
		}
		if !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
		x.Release(true)
	}
	s.wantConns(b, 1)
}
