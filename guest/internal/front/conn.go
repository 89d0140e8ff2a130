package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
	"torno.internal/protocol/transport"
)

// A conn is one connection of the workload. One goroutine owns it.
type conn struct {
	front       *Front
	dialled     netip.AddrPort // what the client connected to; zero on the explicit proxy
	dialledText string
	proxy       bool // an explicit proxy's connection, before any CONNECT
	http2       bool // one stream of a connection that speaks HTTP/2

	scheme  string // "https" once TLS ended here, else "http": written by us alone
	name    string // the host that TLS or CONNECT named; empty: the request's word counts
	connect string // the host that CONNECT named, if any
	port    uint16 // the port that was dialled; 0 on the explicit proxy

	tcp     net.Conn // below TLS
	sniffed *sniffed // between the two; nil without TLS
	nc      net.Conn
	readBy  time.Time // the read deadline that is set; zero: none
	r       *http1.Reader
	w       *http1.Writer

	req     protocol.Request // of the exchange under way
	resp    protocol.Response
	trailer protocol.Fields
	scratch [1]byte

	last     protocol.Authority // of the request before
	lastText string

	activity
}

func newConn(f *Front, nc net.Conn) *conn {
	return &conn{front: f, tcp: nc, activity: activity{raw: rawConn(nc)}}
}

// serve looks at the first byte and serves TLS or plain HTTP. Anything else goes through a tunnel, if the broker
// lets it, or is reset: no answer in another protocol could carry a reason.
func (c *conn) serve(ctx context.Context) {
	if err := c.begin(ctx, c.tcp); err != nil && ctx.Err() == nil {
		c.front.Log.Debug("connection ended", "dialled", c.dialled, "error", err)
	}
}

// serverSpeaksFirst are ports whose clients wait for a greeting: FTP, SSH, Telnet, SMTP, POP3, NNTP, IMAP,
// submission, MySQL. Waiting for the client's first byte would only hang it, so the broker decides at once.
var serverSpeaksFirst = map[uint16]bool{21: true, 22: true, 23: true, 25: true, 110: true, 119: true, 143: true, 587: true, 3306: true}

// begin begins HTTP on nc, after TLS if the client speaks that, or else asks for a tunnel.
func (c *conn) begin(ctx context.Context, nc net.Conn) error {
	s := &sniffed{Corked: transport.Corked{Conn: nc}, c: c}
	if serverSpeaksFirst[c.port] && !c.proxy {
		return c.tunnel(ctx, s)
	}
	_ = nc.SetDeadline(time.Now().Add(protocol.HeadTimeout))
	if err := s.sniff(); err != nil {
		return err
	}
	switch b := s.first[0]; {
	case b == 0x16: // a TLS handshake record (RFC 8446 §5.1)
		return c.beginTLS(ctx, s)
	case strings.HasPrefix(string(s.first[:s.have]), sshPreface):
	case 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z':
		c.scheme = "http"
		_ = nc.SetDeadline(time.Time{})
		if string(s.first[:s.have]) == h2Preface {
			return newH2Conn(c, s).serve(ctx)
		}
		return c.requests(ctx, s)
	}
	if c.proxy {
		return errors.New("neither TLS nor HTTP, to the explicit proxy")
	}
	return c.tunnel(ctx, s)
}

func (c *conn) beginTLS(ctx context.Context, s *sniffed) error {
	s.keeps = c.front.passing.ports[c.port]
	return c.endTLS(ctx, s)
}

// endTLS ends TLS here, unless the client hello says that it passes through a tunnel.
func (c *conn) endTLS(ctx context.Context, s *sniffed) error {
	t := tls.Server(s, c.front.tls)
	if err := t.HandshakeContext(ctx); errors.Is(err, errPasses) {
		return c.passTLS(ctx, s)
	} else if err != nil {
		return fmt.Errorf("TLS with the client: %w", err)
	}
	_ = s.SetDeadline(time.Time{})
	state := t.ConnectionState()
	name, err := c.nameFor(state.ServerName)
	if err != nil {
		return err
	}
	if state.NegotiatedProtocol == protoPostgres {
		return c.tunnelFor(ctx, s, t, true)
	}
	c.scheme, c.name, c.proxy, c.sniffed = "https", name, false, s
	if state.NegotiatedProtocol == "h2" {
		return newH2Conn(c, t).serve(ctx)
	}
	return c.requests(ctx, t)
}

// certificateName returns the name that a client hello asks a certificate for.
func (f *Front) certificateName(hello *tls.ClientHelloInfo) (string, error) {
	s, ok := hello.Conn.(*sniffed)
	if !ok {
		return "", fmt.Errorf("TLS on a %T", hello.Conn)
	}
	return s.c.nameFor(hello.ServerName)
}

// nameFor returns the host that a TLS connection names: the server name, or without one the host of a
// CONNECT before it, the name that the dialled address stands for, or that address.
func (c *conn) nameFor(sni string) (string, error) {
	switch {
	case sni != "":
		return protocol.ParseHost(sni)
	case c.connect != "":
		return c.connect, nil
	case !c.dialled.IsValid():
		return "", errors.New("TLS that names no host, to the explicit proxy")
	}
	if name, ok := c.front.NameOf(c.dialled.Addr()); ok {
		return name, nil
	}
	return c.dialled.Addr().String(), nil
}

// forStream returns a conn for one exchange of a connection that carries many at once.
func (c *conn) forStream() *conn {
	return &conn{
		front: c.front, dialled: c.dialled, dialledText: c.dialledText, http2: true,
		scheme: c.scheme, name: c.name, connect: c.connect, port: c.port,
	}
}

// requests serves one request after another.
func (c *conn) requests(ctx context.Context, nc net.Conn) error {
	c.nc, c.readBy = nc, time.Time{}
	c.renew()
	var head http1.RequestHead
	for {
		if err := c.nextHead(&head); err != nil {
			var malformed *http1.Error
			if errors.As(err, &malformed) {
				c.refuseMalformed(malformed)
				c.linger()
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		if c.proxy && head.Method == "CONNECT" {
			return c.connectTo(ctx, &head)
		}
		keep, err := c.exchange(ctx, &head)
		if err != nil {
			return err
		}
		if !keep {
			c.linger()
			return nil
		}
	}
}

// nextHead reads the next request's head: idle for keepAliveIdle at most, then within HeadTimeout.
func (c *conn) nextHead(head *http1.RequestHead) error {
	*head = http1.RequestHead{Fields: emptied(head.Fields)}
	c.req, c.resp = protocol.Request{}, protocol.Response{Fields: emptied(c.resp.Fields)}
	now := time.Now()
	c.setIdle(now)
	if c.readBy.Sub(now) < shrinkAfter/2 || c.readBy.Sub(now) > shrinkAfter {
		_ = c.readUntil(now.Add(shrinkAfter))
	}
	err := c.r.Await()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.renew() // their buffers may have grown
		_ = c.readUntil(now.Add(keepAliveIdle))
		err = c.r.Await()
	}
	c.setIdle(time.Time{})
	if err != nil {
		return err
	}
	if c.r.HeadBuffered() {
		if err := c.r.ReadRequest(head); err != nil {
			return err
		}
		if c.arrived(head) && head.Upgrade == "" {
			return nil // nothing is read before the next head, which moves the deadline
		}
		return c.readUntil(time.Time{})
	}
	_ = c.readUntil(time.Now().Add(protocol.HeadTimeout))
	if err := c.r.ReadRequest(head); err != nil {
		return err
	}
	return c.readUntil(time.Time{})
}

// readUntil moves the connection's read deadline.
func (c *conn) readUntil(t time.Time) error {
	c.readBy = t
	return c.nc.SetReadDeadline(t)
}

// renew makes reader and writer anew.
func (c *conn) renew() {
	rw := io.ReadWriter(c.nc)
	if t, ok := c.nc.(*tls.Conn); ok && c.sniffed != nil {
		rw = &records{Conn: t, below: c.sniffed}
	}
	c.r, c.w = http1.NewReader(rw), http1.NewWriter(rw)
}

// emptied returns the memory of f without what it held, so that an idle connection keeps no head alive.
func emptied(f protocol.Fields) protocol.Fields {
	const enough = 64
	if cap(f) > enough {
		return nil
	}
	clear(f[:cap(f)])
	return f[:0]
}

// connectTo serves CONNECT on the explicit proxy: the connection goes on as if the client had dialled that
// authority itself.
func (c *conn) connectTo(ctx context.Context, head *http1.RequestHead) error {
	a, err := protocol.ParseAuthority(head.Authority, 0)
	if err == nil && head.Host != "" {
		var host protocol.Authority
		if host, err = protocol.ParseAuthority(head.Host, a.Port); err == nil && host != a {
			err = fmt.Errorf("CONNECT to %v with Host %v", a, host)
		}
	}
	reason := protocol.ReasonBadAuthority
	if err == nil && len(c.r.TakeBuffered()) > 0 { // it may not speak before it is answered
		reason, err = protocol.ReasonBadRequest, errors.New("bytes behind CONNECT")
	}
	if err != nil {
		c.refuse(head.Method, reason, false)
		c.linger()
		return err
	}
	if _, err := io.WriteString(c.nc, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return err
	}
	c.proxy, c.name, c.connect, c.port = false, a.Host, a.Host, a.Port
	return c.begin(ctx, c.nc)
}

// A sniffed connection gives back the first bytes, which were read to see what the client speaks.
type sniffed struct {
	transport.Corked
	c     *conn
	first [len(h2Preface)]byte
	have  int  // bytes of first that were read
	given int  // and given back
	hasty bool // Read returns errNothing instead of waiting

	keeps bool   // what is read is kept, until the client hello is whole
	kept  []byte // so far
	again []byte // what was kept, to be read once more
	muted bool   // what is written goes nowhere
}

// sshPreface is how SSH's clients begin, on whatever port (RFC 4253 §4.2).
const sshPreface = "SSH-"

// sniff reads until it is clear whether the client begins as HTTP/2 or SSH does, which most do not with their
// first bytes.
func (s *sniffed) sniff() error {
	for s.begins(h2Preface) || s.begins(sshPreface) {
		n, err := s.Conn.Read(s.first[s.have:])
		if s.have += n; err != nil && s.have == 0 {
			return err
		}
		if err != nil {
			return nil // and who reads on meets it again
		}
	}
	return nil
}

// begins reports whether what was read is the beginning of preface, and not yet all of it.
func (s *sniffed) begins(preface string) bool {
	return s.have < len(preface) && string(s.first[:s.have]) == preface[:s.have]
}

func (s *sniffed) Read(p []byte) (int, error) {
	if len(s.again) > 0 {
		n := copy(p, s.again)
		s.again = s.again[n:]
		return n, nil
	}
	n, err := s.read(p)
	if s.keeps {
		s.kept = append(s.kept, p[:n]...)
	}
	return n, err
}

func (s *sniffed) Write(p []byte) (int, error) {
	if s.muted {
		return len(p), nil
	}
	return s.Corked.Write(p)
}

func (s *sniffed) read(p []byte) (int, error) {
	if s.given == s.have {
		if s.hasty {
			return s.readNow(p)
		}
		return s.Conn.Read(p)
	}
	n := copy(p, s.first[s.given:s.have])
	s.given += n
	return n, nil
}

// CloseWrite sends our end of the connection.
func (s *sniffed) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
