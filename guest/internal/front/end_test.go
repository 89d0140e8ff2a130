package front

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// Content that is malformed is the client's fault, and says so while it can.
func TestAttack18Content(t *testing.T) {
	h := newHouse(t)
	h.broker = func(_ *protocol.Request, r *bhttp.Reader, _ *bhttp.Writer, _ net.Conn) error {
		if _, err := io.Copy(io.Discard, r); err == nil {
			t.Error("malformed content came out whole")
		}
		return errors.New("done")
	}
	for _, content := range []string{
		"5;x=y\r\nhello\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "5\r\nhelloworld\r\n0\r\n\r\n",
		"ffffffffffffffff\r\nhello", "\r\nhello", "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", "5\r\nhello\r\n0\r\nHost: b.example\r\n\r\n",
	} {
		conn := h.raw(h.addr, "a.example")
		if got := status(conn, "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"+content); got != "400 bad_request" {
			t.Errorf("%q: %q", content, got)
		}
		if b, _ := io.ReadAll(conn); len(b) > 0 {
			t.Errorf("%q: and then %q", content, b)
		}
	}
}

// A refusal of HEAD has no content, so the next answer is read where it begins.
func TestRefusedHEAD(t *testing.T) {
	h := newHouse(t)
	conn := h.raw(h.addr, "a.example")
	fmt.Fprint(conn, "HEAD / HTTP/1.1\r\nHost: b.example\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
	r := bufio.NewReader(conn)
	for _, c := range []struct {
		method string
		want   int
	}{{"HEAD", 421}, {"GET", 200}} {
		resp, err := http.ReadResponse(r, &http.Request{Method: c.method})
		if err != nil || resp.StatusCode != c.want {
			t.Fatalf("%s: %v, %v", c.method, resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// To HTTP/1.0 the end of the connection is the end of the response: orderly if it is whole, and an error
// if it was cut short.
func TestEndOfConnection(t *testing.T) {
	h := newHouse(t)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		if req.Path == "/whole" {
			return echo(req, r, w, c)
		}
		_, _ = io.Copy(io.Discard, r)
		_ = w.WriteResponse(&protocol.Response{Status: 200})
		_, _ = io.WriteString(w, "half")
		_ = w.Flush()
		time.Sleep(20 * time.Millisecond)
		return errors.New("abort")
	}
	for _, sni := range []string{"", "a.example"} {
		for _, path := range []string{"/whole", "/cut"} {
			conn := h.raw(h.addr, sni)
			fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: a.example\r\n\r\n", path)
			begun := time.Now()
			b, err := io.ReadAll(conn)
			if (err == nil) != (path == "/whole") {
				t.Errorf("SNI %q, %s: %q, %v", sni, path, b, err)
			}
			if time.Since(begun) > lingerTimeout/2 {
				t.Errorf("SNI %q, %s: the end came after %v", sni, path, time.Since(begun))
			}
		}
	}
}

// CONNECT to one host and TLS for another: the client is told by an answer, and nothing is forwarded.
func TestAttack11ConnectAndSNI(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct{ connect, host, sni, want string }{
		{"a.example:443", "a.example:443", "a.example", "200"},
		{"a.example:443", "a.example", "a.example", "200"},
		{"A.example.:443", "a.example:443", "a.example", "200"},
		{"a.example:443", "a.example:443", "b.example", "421 misdirected"},
	} {
		for _, host := range []string{c.connect[:9], c.sni} {
			conn := h.raw(h.proxy, "")
			fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", c.connect, c.host)
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != 200 {
				t.Fatal(resp, err)
			}
			resp.Body.Close()
			before := h.asked.Load()
			tlsConn := h.overTLS(conn, c.sni)
			if got := status(tlsConn, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); got != c.want {
				t.Errorf("CONNECT %s, SNI %s, Host %s: %q, want %q", c.connect, c.sni, host, got, c.want)
			}
			if reached := h.asked.Load() != before; reached != (c.want == "200") {
				t.Errorf("CONNECT %s, SNI %s, Host %s: reached the broker: %v", c.connect, c.sni, host, reached)
			}
		}
	}
}

// HTTP/1.0 clients of a proxy need no Host.
func TestProxyHTTP10(t *testing.T) {
	h := newHouse(t)
	if got := status(h.raw(h.proxy, ""), "GET http://a.example/ HTTP/1.0\r\n\r\n"); got != "200" {
		t.Errorf("absolute form: %q", got)
	}
	conn := h.raw(h.proxy, "")
	fmt.Fprint(conn, "CONNECT a.example:443 HTTP/1.0\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: "CONNECT"}); err != nil || resp.StatusCode != 200 {
		t.Errorf("CONNECT: %v, %v", resp, err)
	}
}

// A workload can't speak for us in trailers either.
func TestOwnTrailer(t *testing.T) {
	h := newHouse(t)
	resp := h.raw(h.addr, "a.example")
	fmt.Fprint(resp, "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\nTorno-Dialled: evil\r\nX-Sum: 1\r\n\r\n")
	if b, err := io.ReadAll(resp); err != nil || !strings.Contains(string(b), "[{x-sum 1}]") {
		t.Errorf("%q, %v", b, err)
	}
}

// Handshakes wait for a broker that signs no more leaves for the moment.
func TestLeafRate(t *testing.T) {
	h := newHouse(t)
	h.limit.Store(3)
	begun := time.Now()
	if _, _, err := get(t, h.client(), "https://a.example/"); err != nil {
		t.Error(err)
	}
	if n := h.leaves.Load(); n != 4 || time.Since(begun) < 3*leafPause {
		t.Errorf("%d leaves were asked for in %v", n, time.Since(begun))
	}
}

// Connections that have been idle longest make room for new ones.
func TestIdleMakesRoom(t *testing.T) {
	h := newHouse(t)
	const text = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
	const more = 20
	var conns []net.Conn
	for range maxConns + more {
		conn := h.raw(h.addr, "")
		conns = append(conns, conn)
		if got := status(conn, text); got != "200" {
			t.Fatalf("connection %d: %q", len(conns), got)
		}
	}
	closed := 0
	for i, conn := range conns {
		if status(conn, text) == "200" {
			continue
		}
		if closed++; i > maxConns/2 {
			t.Errorf("connection %d of %d was closed", i, len(conns))
		}
	}
	if closed < more || closed > 2*more {
		t.Errorf("%d connections were closed for %d", closed, more)
	}
}

// A connection serves on after it has been idle for a while, in the middle of a head too.
func TestIdleGoesOn(t *testing.T) {
	h := newHouse(t)
	for _, sni := range []string{"", "a.example"} {
		t.Run(sni, func(t *testing.T) {
			t.Parallel()
			conn := h.raw(h.addr, sni)
			for _, text := range []string{"GET / HTTP/1.1\r\n", "Host: a.example\r\n\r\nGET / HTTP/1.1\r\nHo", "st: a.example\r\n\r\n", "\r\n", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"} {
				fmt.Fprint(conn, text)
				time.Sleep(shrinkAfter + 50*time.Millisecond)
			}
			r := bufio.NewReader(conn)
			for i := range 3 {
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != 200 {
					t.Fatalf("answer %d: %v, %v", i, resp, err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
