package front

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/postgres"
)

func startup(code uint32, body string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(postgres.StartupHead+len(body)))
	return string(binary.BigEndian.AppendUint32(b, code)) + body
}

// database is a broker that knows a password: it says back what it hears.
func database(_ *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
	head := protocol.Response{Status: 200, Fields: protocol.Fields{{Name: protocol.FieldProtocol, Value: protocol.ProtocolPostgres}}}
	if err := errors.Join(w.WriteResponse(&head), w.Flush()); err != nil {
		return err
	}
	if _, err := bhttp.Copy(w, r, func(int64) error { return w.Flush() }); err != nil {
		return err
	}
	return errors.Join(w.Close(nil), io.EOF)
}

// ask sends one question about encryption and returns the answer.
func ask(t *testing.T, c net.Conn, question string) string {
	t.Helper()
	if _, err := io.WriteString(c, question); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// hears reports whether what is said on c comes back, and then its end.
func hears(c interface {
	io.ReadWriter
	CloseWrite() error
}, said string) bool {
	_, _ = io.WriteString(c, said)
	_ = c.CloseWrite()
	heard, err := io.ReadAll(c)
	return err == nil && string(heard) == said
}

// Where the broker speaks PostgreSQL the client's TLS ends in the guest, whether it asks for it or begins with it, and
// clients without any are served as well.
func TestPostgresTLS(t *testing.T) {
	h := newHouse(t)
	h.broker = database
	ssl, gss, begin := startup(postgres.CodeSSL, ""), startup(postgres.CodeGSS, ""), startup(3<<16, "user\x00app\x00\x00")
	open := func() *net.TCPConn {
		c, err := h.dial(5432)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := open(); !hears(c, begin+"more") {
		t.Error("without TLS")
	}
	c := open()
	if ask(t, c, gss) != "N" || ask(t, c, ssl) != "S" {
		t.Error("the questions about encryption are answered wrongly")
	}
	config := h.tlsConfig("named.example")
	inside := tls.Client(c, config)
	if err := inside.Handshake(); err != nil || !hears(inside, begin+"more") {
		t.Errorf("after asking for TLS: %v", err)
	}
	config = h.tlsConfig("named.example")
	config.NextProtos = []string{protoPostgres}
	c = open()
	if inside = tls.Client(c, config); inside.Handshake() != nil || inside.ConnectionState().NegotiatedProtocol != protoPostgres || !hears(inside, begin+"more") {
		t.Errorf("TLS at once: %+v", inside.ConnectionState().NegotiatedProtocol)
	}
	c = open()
	for range maxOffers {
		if _, err := io.WriteString(c, gss); err != nil {
			break
		}
	}
	if answers, err := io.ReadAll(c); err == nil || len(answers) > maxOffers {
		t.Errorf("questions without end: %q, %v", answers, err)
	}
}

// Where nobody speaks PostgreSQL for the client, and a rule lets it through, its TLS is its own.
func TestPostgresUnseen(t *testing.T) {
	h := newHouse(t)
	h.broker = speaksFirst
	c, err := h.dial(5432)
	if err != nil {
		t.Fatal(err)
	}
	ssl := startup(postgres.CodeSSL, "")
	_, _ = io.WriteString(c, ssl)
	_ = c.CloseWrite()
	if all, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(all), ssl) {
		t.Errorf("%q, %v", all, err)
	}
}

// A client that is refused is told why, over TLS if it asks for that.
func TestPostgresRefused(t *testing.T) {
	h := newHouse(t)
	h.broker = func(_ *protocol.Request, _ *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
		resp, content := protocol.Refusal(protocol.ReasonDenied)
		return errors.Join(reply(w, resp.Status, resp.Fields, string(content), nil), io.EOF)
	}
	begin := startup(3<<16, "user\x00app\x00\x00")
	for _, overTLS := range []bool{false, true} {
		tcp, err := h.dial(5432)
		if err != nil {
			t.Fatal(err)
		}
		c := net.Conn(tcp)
		if overTLS {
			if ask(t, tcp, startup(postgres.CodeSSL, "")) != "S" {
				t.Fatal("no TLS")
			}
			c = tls.Client(tcp, h.tlsConfig("named.example"))
		}
		_, _ = io.WriteString(c, begin)
		if said, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(said), "E") || !strings.Contains(string(said), "Mtorno: denied\x00") {
			t.Errorf("over TLS %v: %q, %v", overTLS, said, err)
		}
	}
}
