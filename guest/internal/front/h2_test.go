package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// h2client returns a client that speaks HTTP/2 alone, without TLS for plain.
func (h *house) h2client(plain bool) *http.Client {
	tr := &http2.Transport{ //nolint:staticcheck // net/http's speaks HTTP/1.1 as well
		AllowHTTP:          plain,
		DisableCompression: true,
		TLSClientConfig:    h.tlsConfig(""),
		DialTLSContext: func(ctx context.Context, _, _ string, config *tls.Config) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", h.addr)
			if err != nil || plain {
				return c, err
			}
			t := tls.Client(c, config)
			return t, t.HandshakeContext(ctx)
		},
	}
	h.t.Cleanup(tr.CloseIdleConnections) //nolint:staticcheck // as above
	return &http.Client{Transport: tr, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// A summary of a response: status, reason, content, trailers, and the error of reading it.
func (h *house) h2do(client *http.Client, method, url string, body io.Reader) string {
	h.t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "error " + err.Error()
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	text := fmt.Sprint(resp.StatusCode, " ", resp.Header.Get(protocol.FieldReason), " ", string(content))
	for name, values := range resp.Trailer {
		text += fmt.Sprint(" ", name, "=", values)
	}
	if err != nil {
		text += " error " + err.Error()
	}
	return text
}

func TestH2(t *testing.T) {
	h := newHouse(t)
	for _, plain := range []bool{false, true} {
		origin := map[bool]string{true: "http", false: "https"}[plain] + "://a.example:443"
		client := h.h2client(plain)
		for _, c := range []struct {
			name, method, path string
			body               io.Reader
			want               string
		}{
			{"GET", "GET", "/x?y=%2f", nil, "200  GET " + origin + "/x?y=%2f 0 []"},
			{"path as sent", "GET", "/a/../b//c;d?e=%41+%zz", nil, "200  GET " + origin + "/a/../b//c;d?e=%41+%zz 0 []"},
			{"again", "GET", "/", nil, "200  GET " + origin + "/ 0 []"},
			{"HEAD", "HEAD", "/", nil, "200  "},
			{"short content", "POST", "/", strings.NewReader("content"), "200  POST " + origin + "/ 7 []"},
			{"no length", "POST", "/", io.MultiReader(strings.NewReader("content")), "200  POST " + origin + "/ 7 []"},
			{"long content", "PUT", "/", bytes.NewReader(make([]byte, 5<<20)), "200  PUT " + origin + "/ 5242880 []"},
			{"TRACE", "TRACE", "/", nil, "501 unsupported " + refusalText(protocol.ReasonUnsupported)},
		} {
			if got := h.h2do(client, c.method, origin+c.path, c.body); got != c.want {
				t.Errorf("%s: %.200q, want %q", c.name, got, c.want)
			}
		}
	}
}

func refusalText(r protocol.Reason) string {
	_, content := protocol.Refusal(r)
	return string(content)
}

// What the broker answers comes out as it is: interim responses, fields, content, trailers, and no clean end of
// what was cut short.
func TestH2Response(t *testing.T) {
	h := newHouse(t)
	large := strings.Repeat("0123456789abcdef", 20<<10) // more than any window
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
		var trailer protocol.Fields
		if err := r.ReadTrailer(&trailer); err != nil {
			return err
		}
		switch req.Path {
		case "/empty":
			return reply(w, 200, nil, "", nil)
		case "/204":
			return reply(w, 204, nil, "", nil)
		case "/304":
			return reply(w, 304, protocol.Fields{{Name: "etag", Value: "x"}}, "", nil)
		case "/trailers":
			return reply(w, 200, nil, "content", protocol.Fields{{Name: "x-sum", Value: "1"}})
		case "/trailers-only":
			return reply(w, 200, nil, "", protocol.Fields{{Name: "x-sum", Value: "1"}})
		case "/large":
			return reply(w, 200, nil, large, protocol.Fields{{Name: "x-sum", Value: "1"}})
		case "/length":
			return reply(w, 200, protocol.Fields{{Name: "content-length", Value: fmt.Sprint(len(large))}}, large, nil)
		case "/short":
			return reply(w, 200, protocol.Fields{{Name: "content-length", Value: "7"}}, "conten", nil)
		case "/long":
			return reply(w, 200, protocol.Fields{{Name: "content-length", Value: "7"}}, "content!", nil)
		case "/abort-at-once":
			return errors.New("abort")
		case "/abort-interim":
			_ = w.WriteResponse(&protocol.Response{Status: 103})
			_ = w.Flush()
			return errors.New("abort")
		case "/abort-head":
			_ = w.WriteResponse(&protocol.Response{Status: 200})
			_ = w.Flush()
			return errors.New("abort")
		case "/abort-within":
			_ = w.WriteResponse(&protocol.Response{Status: 200})
			_, _ = io.WriteString(w, "half")
			_ = w.Flush()
			return errors.New("abort")
		}
		return reply(w, 404, nil, "", nil)
	}
	client := h.h2client(false)
	reset := " error stream error: stream ID %d; INTERNAL_ERROR; received from peer"
	unavailable := "503 broker_unavailable " + refusalText(protocol.ReasonBrokerUnavailable)
	id := -1
	for _, c := range []struct{ path, want string }{
		{"/empty", "200  "},
		{"/204", "204  "},
		{"/304", "304  "},
		{"/trailers", "200  content X-Sum=[1]"},
		{"/trailers-only", "200   X-Sum=[1]"},
		{"/large", "200  " + large + " X-Sum=[1]"},
		{"/length", "200  " + large},
		{"/short", "error"},
		{"/long", "error"},
		{"/abort-at-once", unavailable},
		{"/abort-interim", unavailable},
		{"/abort-head", "200  " + reset},
		{"/abort-within", "200  half" + reset},
	} {
		id += 2
		want := c.want
		if strings.Contains(want, "%d") {
			want = fmt.Sprintf(want, id)
		}
		got := h.h2do(client, "GET", "https://a.example"+c.path, nil)
		if want == "error" && strings.Contains(got, "error") {
			continue
		}
		if got != want {
			t.Errorf("%s: %.200q, want %.200q", c.path, got, want)
		}
	}
}

// Fields reach the broker in their order, cookie crumbs joined, ours alone removed and added.
func TestH2Fields(t *testing.T) {
	h := newHouse(t)
	var got protocol.Fields
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		got = req.Fields.Clone()
		return echo(req, r, w, c)
	}
	c := h.h2raw("a.example")
	answer := c.ask(
		":method", "GET", ":scheme", "https", ":path", "/", ":authority", "A.Example:443",
		"zebra", "1", "cookie", "a=1", "authorization", "Bearer x", "cookie", "b=2", "te", "trailers", "expect", "100-continue",
		"torno-http", "1", "torno-dialled", "1.2.3.4:5", "alpha", "2", "alpha", "", "host", "a.example", "cookie", "c=3")
	if answer != "200" {
		t.Fatal(answer)
	}
	want := protocol.Fields{
		{Name: "zebra", Value: "1"}, {Name: "cookie", Value: "a=1; b=2; c=3"}, {Name: "authorization", Value: "Bearer x"}, {Name: "te", Value: "trailers"},
		{Name: "expect", Value: "100-continue"}, {Name: "alpha", Value: "2"}, {Name: "alpha", Value: ""},
		{Name: "torno-http", Value: "2"}, {Name: "torno-dialled", Value: dialled.String()},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

// Trailers and interim responses of a request that says Expect.
func TestH2Expect(t *testing.T) {
	h := newHouse(t)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		for _, status := range []int{103, 100} {
			if err := w.WriteResponse(&protocol.Response{Status: status, Fields: protocol.Fields{{Name: "x-early", Value: "1"}}}); err != nil {
				return err
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		return echo(req, r, w, c)
	}
	client := h.h2client(false)
	for _, expects := range []bool{false, true} {
		var interim []int
		var continued bool
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { interim = append(interim, code); return nil },
			Got100Continue: func() { continued = true },
		})
		req, err := http.NewRequestWithContext(ctx, "POST", "https://a.example/", io.MultiReader(strings.NewReader("content")))
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = http.Header{"X-Sum": {"1"}, "Torno-Sum": {"1"}}
		if expects {
			req.Header.Set("Expect", "100-continue")
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := "POST https://a.example:443/ 7 [{x-sum 1}]"; string(body) != want || err != nil {
			t.Errorf("%q, %v; want %q", body, err, want)
		}
		want := []int{103}
		if expects {
			want = []int{103, 100}
		}
		if !cmp.Equal(interim, want) || continued != expects {
			t.Errorf("interim responses %v, 100 %v", interim, continued)
		}
	}
}

// Content flows both ways at once, each piece as it comes, on many streams of one connection.
func TestH2Duplex(t *testing.T) {
	h := newHouse(t)
	h.broker = pingPong
	client := h.h2client(false)
	done := make(chan error)
	const streams, rounds = 50, 40
	for range streams {
		go func() {
			done <- func() error {
				pr, pw := io.Pipe()
				req, err := http.NewRequest("POST", "https://a.example/", pr)
				if err != nil {
					return err
				}
				resp, err := client.Do(req) // the head comes before any content goes
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				var b [5]byte
				for i := range rounds {
					fmt.Fprintf(pw, "%05d", i)
					if _, err := io.ReadFull(resp.Body, b[:]); err != nil || string(b[:]) != fmt.Sprintf("%05d", i) {
						return fmt.Errorf("round %d: %q, %w", i, b, err)
					}
				}
				pw.Close()
				_, err = resp.Body.Read(b[:])
				if err != io.EOF {
					return fmt.Errorf("at the end: %w", err)
				}
				return nil
			}()
		}()
	}
	for range streams {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// pingPong answers at once and then with each piece that comes.
func pingPong(_ *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
	if err := w.WriteResponse(&protocol.Response{Status: 200}); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if _, err := bhttp.Copy(w, r, func(int64) error { return w.Flush() }); err != nil {
		return err
	}
	var trailer protocol.Fields
	if err := r.ReadTrailer(&trailer); err != nil {
		return err
	}
	return w.Close(trailer)
}

// A client that cancels, and one that goes away, take their exchanges along at once.
func TestH2Cancel(t *testing.T) {
	for _, way := range []string{"cancel", "close"} {
		h := newHouse(t)
		started, aborted := make(chan struct{}), make(chan error, 1)
		h.broker = func(_ *protocol.Request, r *bhttp.Reader, _ *bhttp.Writer, c net.Conn) error {
			_, _ = io.Copy(io.Discard, r)
			started <- struct{}{}
			_, err := c.Read(make([]byte, 1))
			aborted <- err
			return errors.New("aborted")
		}
		c := h.h2raw("a.example")
		_ = c.headers(true, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.example")
		<-started
		if way == "cancel" {
			_ = c.framer.WriteRSTStream(c.id, http2.ErrCodeCancel)
		} else {
			c.conn.Close()
		}
		select {
		case <-aborted:
		case <-time.After(time.Minute):
			t.Errorf("%s: the broker hears nothing", way)
		}
	}
}

// HTTP/1.1 goes first where a client offers both; a client that offers HTTP/2 alone gets it.
func TestH2Negotiation(t *testing.T) {
	h := newHouse(t)
	for want, offers := range map[string][]string{
		"http/1.1": {"h2", "http/1.1"},
		"h2":       {"h2"},
		"":         nil,
		"http/1.0": {"h2", "http/1.0"},
	} {
		config := h.tlsConfig("a.example")
		config.NextProtos = offers
		c, err := tlsDial(h.addr, config)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != want {
			t.Errorf("offered %q: %q, want %q", offers, got, want)
		}
		c.Close()
	}
}

// A refused or early answered request does not hold its connection up.
func TestH2Early(t *testing.T) {
	h := newHouse(t)
	h.broker = func(_ *protocol.Request, _ *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
		_ = reply(w, 413, nil, "too large", nil)
		return errors.New("done early")
	}
	client := h.h2client(false)
	for range 3 {
		pr, pw := io.Pipe()
		if got, want := h.h2do(client, "POST", "https://a.example/", pr), "413  too large"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		pw.Close()
	}
}
