package front

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

func get(t *testing.T, c *http.Client, url string) (*http.Response, string, error) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func TestRequests(t *testing.T) {
	h := newHouse(t)
	c := h.client()
	for i := range 3 { // on one connection
		if _, body, err := get(t, c, "https://a.example/x?q=%2F"); err != nil || body != "GET https://a.example:443/x?q=%2F 0 []" {
			t.Errorf("GET %d: %q, %v", i, body, err)
		}
	}
	for _, length := range []int{0, 1, 5000, 1 << 20} {
		for _, chunked := range []bool{false, true} {
			req, _ := http.NewRequest("POST", "https://a.example/", bytes.NewReader(make([]byte, length)))
			if chunked {
				req.Body, req.ContentLength = io.NopCloser(req.Body), -1
				req.Trailer = http.Header{"X-Sum": {"1"}}
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			want := fmt.Sprintf("POST https://a.example:443/ %d []", length)
			if chunked {
				want = fmt.Sprintf("POST https://a.example:443/ %d [{x-sum 1}]", length)
			}
			if string(b) != want {
				t.Errorf("%d bytes, chunked %v: %q", length, chunked, b)
			}
		}
	}
	if n := h.leaves.Load(); n != 1 {
		t.Errorf("%d leaves for one name", n)
	}
}

func TestResponses(t *testing.T) {
	h := newHouse(t)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
		var trailer protocol.Fields
		if err := r.ReadTrailer(&trailer); err != nil {
			return err
		}
		switch req.Path {
		case "/204":
			return reply(w, 204, nil, "", nil)
		case "/304":
			return reply(w, 304, protocol.Fields{{Name: "content-length", Value: "7"}}, "", nil)
		case "/trailer":
			return reply(w, 200, nil, "content", protocol.Fields{{Name: "x-sum", Value: "9"}})
		case "/hints":
			_ = w.WriteResponse(&protocol.Response{Status: 103, Fields: protocol.Fields{{Name: "link", Value: "x"}}})
		}
		content := "content"
		if req.Method == "HEAD" {
			content = ""
		}
		return reply(w, 200, protocol.Fields{{Name: "content-length", Value: "7"}}, content, nil)
	}
	c := h.client()
	for path, want := range map[string]string{"/": "200 content", "/204": "204 ", "/304": "304 ", "/trailer": "200 content", "/hints": "200 content"} {
		resp, body, err := get(t, c, "https://a.example"+path)
		if err != nil || fmt.Sprint(resp.StatusCode, " ", body) != want {
			t.Errorf("%s: %v %q, %v", path, resp, body, err)
		}
		if path == "/trailer" && resp != nil && resp.Trailer.Get("X-Sum") != "9" {
			t.Errorf("trailer %v", resp.Trailer)
		}
	}
	if resp, err := c.Head("https://a.example/"); err != nil || resp.ContentLength != 7 {
		t.Errorf("HEAD: %+v, %v", resp, err)
	}
	conn := h.raw(h.addr, "a.example")
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\nHost: a.example\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(b), "\r\n\r\ncontent") || strings.Contains(string(b), "chunked") {
		t.Errorf("HTTP/1.0: %q, %v", b, err)
	}
	conn = h.raw(h.addr, "a.example")
	if _, err := io.WriteString(conn, strings.Repeat("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 5)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for i := range 5 {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("pipelined %d: %v", i, err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != "content" {
			t.Errorf("pipelined %d: %q", i, b)
		}
	}
}

// A response that the broker aborts never ends as if it were whole, however it is framed.
func TestAbortedResponse(t *testing.T) {
	h := newHouse(t)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		_, _ = io.Copy(io.Discard, r)
		var f protocol.Fields
		if req.Path == "/length" {
			f = protocol.Fields{{Name: "content-length", Value: "100"}}
		}
		_ = w.WriteResponse(&protocol.Response{Status: 200, Fields: f})
		_, _ = io.WriteString(w, "half")
		_ = w.Flush()
		return errors.New("abort")
	}
	for _, path := range []string{"/length", "/chunked"} {
		if _, body, err := get(t, h.client(), "https://a.example"+path); err == nil {
			t.Errorf("%s: %q came back as whole", path, body)
		}
	}
}

// A client that goes away aborts its exchange, whether it was sending or waiting.
func TestClientGone(t *testing.T) {
	h := newHouse(t)
	ended := make(chan error, 1)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		_, err := io.Copy(io.Discard, r)
		if err == nil && req.Path == "/wait" { // the request is whole: only the stream's end can tell
			var trailer protocol.Fields
			_ = r.ReadTrailer(&trailer)
			err = r.Await()
		}
		ended <- err
		return errors.New("done")
	}
	for path, text := range map[string]string{
		"/send": "POST /send HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100\r\n\r\nhalf",
		"/wait": "GET /wait HTTP/1.1\r\nHost: a.example\r\n\r\n",
	} {
		conn := h.raw(h.addr, "a.example")
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		conn.Close()
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("%s: the broker saw a clean end", path)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: the broker was not told", path)
		}
	}
}

// The answer that comes before the request has ended reaches the client.
func TestEarlyResponse(t *testing.T) {
	h := newHouse(t)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		_ = reply(w, 413, protocol.Fields{{Name: "content-length", Value: "3"}}, "big", nil)
		_, _ = io.Copy(io.Discard, r) // until the guest aborts
		return errors.New("done")
	}
	conn := h.raw(h.addr, "a.example")
	if got := status(conn, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\nsome"); got != "413" {
		t.Errorf("answer %q, want 413", got)
	}
	if b, err := io.ReadAll(conn); len(b) > 0 || err != nil {
		t.Errorf("after it: %q, %v; want the connection's end", b, err)
	}
}

// 100 (Continue) is the broker's to give.
func TestExpect(t *testing.T) {
	h := newHouse(t)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		if req.Fields.Get("expect") != "100-continue" {
			return reply(w, 500, nil, "no expect", nil)
		}
		_ = w.WriteResponse(&protocol.Response{Status: 100})
		_ = w.Flush()
		return echo(req, r, w, c)
	}
	req, _ := http.NewRequest("POST", "https://a.example/", strings.NewReader("content"))
	req.Header.Set("Expect", "100-continue")
	c := h.client()
	c.Transport.(*http.Transport).ExpectContinueTimeout = 5 * time.Minute
	begun := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), " 7 ") || time.Since(begun) > time.Minute {
		t.Errorf("%q after %v", b, time.Since(begun))
	}
}

// One leaf is asked for at a time; one that failed is tried again.
func TestLeaves(t *testing.T) {
	h := newHouse(t)
	h.fail.Store(1)
	if _, _, err := get(t, h.client(), "https://a.example/"); err == nil {
		t.Error("TLS without a leaf")
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, _, err := get(t, h.client(), "https://a.example/"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := h.leaves.Load(); n != 2 {
		t.Errorf("%d leaves were asked for, want 2", n)
	}
}

// Without a server name the dialled address's name counts.
func TestNoServerName(t *testing.T) {
	h := newHouse(t)
	config := h.tlsConfig("")
	config.InsecureSkipVerify = true // the client names nobody, so it can verify nobody
	c := h.client()
	c.Transport.(*http.Transport).DialTLSContext = func(context.Context, string, string) (net.Conn, error) {
		return tlsDial(h.addr, config)
	}
	if _, body, err := get(t, c, "https://named.example/"); err != nil || !strings.HasPrefix(body, "GET https://named.example:443/") {
		t.Errorf("%q, %v", body, err)
	}
	if resp, _, err := get(t, c, "https://other.example/"); err != nil || resp.StatusCode != 421 {
		t.Errorf("another name: %v, %v", resp, err)
	}
}

// Fields of ours are never the workload's to set.
func TestOwnFields(t *testing.T) {
	h := newHouse(t)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		_, _ = io.Copy(io.Discard, r)
		var trailer protocol.Fields
		_ = r.ReadTrailer(&trailer)
		return reply(w, 200, nil, fmt.Sprint(req.Fields), nil)
	}
	conn := h.raw(h.addr, "a.example")
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a.example\r\nTorno-Dialled: evil\r\ntorno-x: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nConnection: upgrade, http2-settings\r\nX: y\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "[{x y} {torno-dialled 100.64.0.1:443}]" {
		t.Errorf("fields %s", b)
	}
}

// A head, or a first byte, that never comes ends the connection; idle connections hold little memory.
func TestNeitherTLSNorHTTP(t *testing.T) {
	h := newHouse(t)
	for _, text := range []string{"\x00\x01", "\x80\x2e\x01", "\x05\x01\x00", "\n"} {
		conn := h.raw(h.addr, "")
		_, _ = io.WriteString(conn, text)
		if b, err := io.ReadAll(conn); len(b) > 0 {
			t.Errorf("%q was answered with %q, %v", text, b, err)
		}
	}
}
