package front

import (
	"bufio"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// A pooled stream that the broker closes as the request arrives: what is safe is sent again, once.
func TestStaleStream(t *testing.T) {
	for _, c := range []struct {
		name, text string
		stale      int64 // exchanges that find their stream closed
		want       string
	}{
		{"GET", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 1, "200"},
		{"GET with content", "GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi", 1, "200"},
		{"GET twice", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 2, "503 broker_unavailable"},
		{"POST", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi", 1, "503 broker_unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			var stale atomic.Int64
			h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, nc net.Conn) error {
				if stale.Add(-1) >= 0 {
					return errors.New("closed")
				}
				return echo(req, r, w, nc)
			}
			conn := h.raw(h.addr, "a.example")
			if got := status(conn, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"); got != "200" {
				t.Fatal(got) // its stream is pooled now
			}
			stale.Store(c.stale)
			if got := status(conn, c.text); got != c.want {
				t.Errorf("answer %q, want %q", got, c.want)
			}
			if c.want == "200" {
				return
			}
			stale.Store(0)
			if got := status(conn, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"); got != "200" {
				t.Errorf("after it: %q", got)
			}
		})
	}
}

// A new stream is no stale one: the broker that fails on it may have acted, so nothing is sent again.
func TestBrokerFails(t *testing.T) {
	h := newHouse(t)
	h.broker = func(*protocol.Request, *bhttp.Reader, *bhttp.Writer, net.Conn) error { return errors.New("failed") }
	conn := h.raw(h.addr, "a.example")
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || resp.Header.Get(protocol.FieldReason) != "broker_unavailable" || h.asked.Load() != 1 {
		t.Errorf("%d %v after %d exchanges", resp.StatusCode, resp.Header, h.asked.Load())
	}
}

// What the preface is answered with becomes the answer to the request; too many streams may pass.
func TestStreamRefused(t *testing.T) {
	for _, c := range []struct {
		status protocol.Status
		times  int64
		want   string
	}{
		{protocol.StatusBusy, 3, "200"},
		{protocol.StatusBusy, 1000, "503 streams_exhausted"},
		{protocol.StatusToken, 1, "403 session_ended"},
		{protocol.StatusNoSession, 1, "403 session_ended"},
		{protocol.StatusVersion, 1, "403 session_ended"},
	} {
		for _, text := range []string{
			"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		} {
			t.Run(fmt.Sprint(c.status, c.times, text[:4]), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t)
				h.refusal.Store(int64(c.status))
				h.refusals.Store(c.times)
				begun := time.Now()
				if got := status(h.raw(h.addr, "a.example"), text); got != c.want {
					t.Errorf("answer %q, want %q", got, c.want)
				}
				if c.times == 1000 && time.Since(begun) < protocol.StreamWait {
					t.Errorf("gave up after %v", time.Since(begun))
				}
			})
		}
	}
}

// A broker that refuses a long upload and closes the stream is heard, though the upload fails.
func TestRefusedUpload(t *testing.T) {
	h := newHouse(t)
	h.broker = func(_ *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		resp, content := protocol.Refusal(protocol.ReasonDenied)
		_ = w.WriteResponse(&resp)
		_, _ = w.Write(content)
		_ = w.Close(nil)
		_, _ = io.CopyN(io.Discard, r, 64<<10)
		return errors.New("closed with content unread")
	}
	for i := range 20 {
		conn := h.raw(h.addr, "a.example")
		go func() {
			fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000000\r\n\r\n")
			_, _ = conn.Write(make([]byte, 1<<20)) // fails once the front has closed
		}()
		if got := status(conn, ""); got != "403 denied" {
			t.Fatalf("upload %d: %q", i, got)
		}
		conn.Close()
	}
}

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

// curl, with its own ideas of Expect, HTTP/2 upgrades and proxies.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed (try: apt-get install curl)")
	}
	h := newHouse(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.ca.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(h.addr)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"https":        {[]string{"https://a.example/x"}, "GET https://a.example:443/x 0 [] 200"},
		"http upgrade": {[]string{"--http2", "http://a.example:443/x"}, "GET http://a.example:443/x 0 [] 200"},
		"prior":        {[]string{"--http2-prior-knowledge", "-f", "http://a.example:443/"}, "000"},
		"post":         {[]string{"-d", "content", "https://a.example/"}, "POST https://a.example:443/ 7 [] 200"},
		"chunked":      {[]string{"-H", "Transfer-Encoding: chunked", "-d", "content", "https://a.example/"}, "POST https://a.example:443/ 7 [] 200"},
		"expect":       {[]string{"-H", "Expect: 100-continue", "--expect100-timeout", "0.1", "-d", "content", "https://a.example/"}, "POST https://a.example:443/ 7 [] 200"},
		"head":         {[]string{"-I", "-o", "/dev/null", "https://a.example/"}, "200"},
		"http 1.0":     {[]string{"-0", "https://a.example/x"}, "GET https://a.example:443/x 0 [] 200"},
		"TLS 1.2":      {[]string{"--tls-max", "1.2", "https://a.example/x"}, "GET https://a.example:443/x 0 [] 200"},
		"TLS 1.1":      {[]string{"--tls-max", "1.1", "--tlsv1.1", "https://a.example/x"}, "000"},
		"proxy":        {[]string{"-x", "http://" + h.proxy, "https://a.example/x"}, "GET https://a.example:443/x 0 [] 200"},
		"proxy http":   {[]string{"-x", "http://" + h.proxy, "http://a.example/x"}, "GET http://a.example:80/x 0 [] 200"},
		"websocket": {[]string{"-o", "/dev/null", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
			"-H", "Sec-WebSocket-Key: x", "https://a.example/"}, "501"},
		"trace": {[]string{"-o", "/dev/null", "-X", "TRACE", "https://a.example/"}, "501"},
	} {
		args := append([]string{"-sS", "-m", "10", "--cacert", ca, "-w", " %{http_code}"}, c.args...)
		if !slices.Contains(c.args, "-x") {
			args = append(args, "--connect-to", "a.example::127.0.0.1:"+port)
		}
		out, _ := exec.Command(curl, args...).Output()
		if got := strings.TrimSpace(string(out)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
