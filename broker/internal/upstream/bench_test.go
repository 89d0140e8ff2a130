package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"golang.org/x/net/http2"

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
	benchExchange(b, s)
}

// BenchmarkH2Exchange is the same over HTTP/2.
func BenchmarkH2Exchange(b *testing.B) {
	s := newH2Fake(b, func(f *h2Fake) {
		_ = f.WriteSettings()
		f.enc.SetMaxDynamicTableSize(0) // the same block every time
		block := f.section(":status", "200", "content-type", "application/json", "date", "Mon, 23 Nov 2026 21:00:00 GMT",
			"server", "nginx", "content-length", "13")
		var answer []byte
		for {
			fr, err := f.ReadFrame()
			if err != nil {
				return
			}
			if _, ok := fr.(*http2.HeadersFrame); !ok {
				continue
			}
			answer = appendFrameHeader(answer[:0], len(block), http2.FrameHeaders, http2.FlagHeadersEndHeaders, fr.Header().StreamID)
			answer = append(answer, block...)
			answer = appendFrameHeader(answer, 13, http2.FrameData, http2.FlagDataEndStream, fr.Header().StreamID)
			answer = append(answer, "{\"ok\": true}\r"...)
			if _, err := f.conn.Write(answer); err != nil {
				return
			}
		}
	})
	benchExchange(b, s)
}

// benchExchange makes exchanges, one after another.
func benchExchange(b *testing.B, s *upstreamServer) {
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

// BenchmarkBulk receives 64 MiB in one exchange.
func BenchmarkBulk(b *testing.B) {
	const size = 64 << 20
	s := newServer(b, "https", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for p, n := make([]byte, 64<<10), 0; n < size; n += len(p) {
			_, _ = w.Write(p)
		}
	}))
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		b.Run(name, func(b *testing.B) {
			s.key.HTTP2 = http2
			b.SetBytes(size)
			p := make([]byte, protocol.MaxChunk)
			for b.Loop() {
				x := s.begin(b, b.Context())
				if err := x.ReadResponse(new(protocol.Response)); err != nil {
					b.Fatal(err)
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{x}, p)
				if n != size || err != nil {
					b.Fatal(n, err)
				}
				x.Release(true)
			}
		})
	}
}
