package front

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// dial opens a connection that believes to go to port, and is served. It may be reset before it is returned.
func (h *house) dial(port uint16) (*net.TCPConn, error) {
	h.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	var served sync.WaitGroup
	h.t.Cleanup(func() { ln.Close(); served.Wait() })
	to := netip.AddrPortFrom(dialled.Addr(), port)
	served.Go(func() { _ = h.front.Serve(h.t.Context(), toward{captured{ln}, to}) })
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(20 * time.Second))
}

// A toward listener's connections believe to go to to.
type toward struct {
	captured
	to netip.AddrPort
}

func (l toward) Accept() (net.Conn, error) {
	c, err := l.captured.Accept()
	if err != nil {
		return nil, err
	}
	return towardConn{c.(capturedConn), l.to}, nil
}

type towardConn struct {
	capturedConn
	to netip.AddrPort
}

func (c towardConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.to) }

// speaksFirst opens tunnels, greets, and answers with what it hears.
func speaksFirst(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
	if req.Method != "CONNECT" || req.Scheme != "" || req.Path != "" {
		return reply(w, 400, nil, "", nil)
	}
	if err := w.WriteResponse(&protocol.Response{Status: 200}); err != nil {
		return err
	}
	greeting := "hello " + req.Authority + " " + req.Fields.Get(protocol.FieldDialled) + "\n"
	if _, err := io.WriteString(w, greeting); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	heard, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if _, err := w.Write(heard); err != nil {
		return err
	}
	return errors.Join(w.Close(nil), io.EOF)
}

// What is neither TLS nor HTTP goes through a tunnel to what was dialled, by its name: at once on ports whose clients
// wait for a greeting, and with all that the client has said on others.
func TestTunnels(t *testing.T) {
	h := newHouse(t)
	h.broker = speaksFirst
	for _, c := range []struct {
		port  uint16
		first string // what the client says first; empty: it waits
	}{{22, ""}, {25, ""}, {2222, "SSH-2.0-x\r\n"}, {6379, "*1\r\n$4\r\nPING\r\n"}, {5432, "\x00\x00\x00\x08\x04\xd2\x16\x2f"}, {443, "\xff"}} {
		conn, err := h.dial(c.port)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, c.first)
		r := bufio.NewReader(conn)
		to := netip.AddrPortFrom(dialled.Addr(), c.port).String()
		want := "hello named.example:" + strings.TrimPrefix(to, dialled.Addr().String()+":") + " " + to + "\n"
		if got, err := r.ReadString('\n'); got != want {
			t.Errorf("port %d: %q, %v, want %q", c.port, got, err, want)
		}
		_, _ = io.WriteString(conn, "more")
		_ = conn.CloseWrite()
		if got, err := io.ReadAll(r); string(got) != c.first+"more" || err != nil {
			t.Errorf("port %d: %q, %v came back", c.port, got, err)
		}
	}
}

// Who may not have a tunnel is reset, at once.
func TestTunnelRefused(t *testing.T) {
	h := newHouse(t)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
		resp, content := protocol.Refusal(protocol.ReasonDenied)
		return errors.Join(reply(w, resp.Status, resp.Fields, string(content), nil), io.EOF)
	}
	for _, c := range []struct {
		port  uint16
		first string
	}{{22, ""}, {2222, "SSH-2.0-x\r\n"}, {6379, "*1\r\n"}} {
		conn, err := h.dial(c.port)
		n := 0
		if err == nil {
			if c.first != "" { // a write that comes after the reset, even of nothing, would take the error from the read
				_, _ = io.WriteString(conn, c.first)
			}
			n, err = conn.Read(make([]byte, 1))
		}
		if n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("port %d: %d bytes, %v, want a reset", c.port, n, err)
		}
	}
	before := h.asked.Load()
	proxy := h.raw(h.proxy, "") // where nothing was dialled
	_, _ = io.WriteString(proxy, "SSH-2.0-x\r\n")
	if n, err := proxy.Read(make([]byte, 1)); n != 0 || err == nil || h.asked.Load() != before {
		t.Errorf("the explicit proxy: %d bytes, %v, %d exchanges", n, err, h.asked.Load()-before)
	}
}

// A tunnel that breaks is reset: its end must not be taken for the server's.
func TestTunnelBreaks(t *testing.T) {
	h := newHouse(t)
	h.broker = func(_ *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		if err := errors.Join(w.WriteResponse(&protocol.Response{Status: 200}), w.Flush()); err != nil {
			return err
		}
		_, err := io.CopyN(w, r, 1)
		return errors.Join(err, w.Flush(), c.Close())
	}
	conn, err := h.dial(22)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "x")
	if got, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q, %v, want a reset", got, err)
	}
}

// HTTP on the way to a port of its own is HTTP still, whatever its method begins with.
func TestMethodsLikeSSH(t *testing.T) {
	h := newHouse(t)
	for _, method := range []string{"SEARCH", "S", "SSH", "PRI", "P"} {
		if got := status(h.raw(h.addr, ""), method+" / HTTP/1.1\r\nHost: x.example\r\n\r\n"); !strings.HasPrefix(got, "200") {
			t.Errorf("%s: %s", method, got)
		}
	}
}
