package boot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// selfTestTimeout bounds the self-test from the question for the name to the response's head.
const selfTestTimeout = 15 * time.Second

// selfTest asks for protocol.SelfTestAuthority as a workload would, and is content only with the
// broker's own refusal. One exchange proves names, capture, leaf, trust, relay and broker at once.
func (g *guest) selfTest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, selfTestTimeout)
	defer cancel()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(g.hello.CA)) {
		return errors.New("session CA is unreadable")
	}
	deadline, _ := ctx.Deadline()
	var tcp net.Conn
	err := g.asWorkload(func() error {
		address, err := askName(protocol.SelfTestAuthority, netip.AddrPortFrom(g.plan.Addr4, 53), deadline)
		if err != nil {
			return fmt.Errorf("asking for a name: %w", err)
		}
		var dialer net.Dialer
		dialer.SetMultipathTCP(false)
		tcp, err = dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(address, 443).String())
		return err
	})
	if err != nil {
		return err
	}
	defer tcp.Close()
	if err := tcp.SetDeadline(deadline); err != nil {
		return err
	}
	conn := tls.Client(tcp, &tls.Config{
		RootCAs: roots, ServerName: protocol.SelfTestAuthority, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519}, // one key share is enough for this machine's own loopback
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS with our own front: %w", err)
	}
	return askSelfTest(conn)
}

// askName asks server for an IPv4 address of name. The standard library's resolver asks for both families, and
// reads four files first: under emulation that is a tenth of our time.
func askName(name string, server netip.AddrPort, deadline time.Time) (netip.Addr, error) {
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 1, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := query.Pack()
	if err != nil {
		return netip.Addr{}, err
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return netip.Addr{}, err
	}
	if _, err := c.Write(b); err != nil {
		return netip.Addr{}, err
	}
	const maxAnswer = 512 // bytes, without EDNS
	b = make([]byte, maxAnswer)
	n, err := c.Read(b)
	if err != nil {
		return netip.Addr{}, err
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(b[:n]); err != nil {
		return netip.Addr{}, err
	}
	for _, r := range answer.Answers {
		if a, ok := r.Body.(*dnsmessage.AResource); ok {
			return netip.AddrFrom4(a.A), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%v without an address", answer.RCode)
}

func askSelfTest(conn net.Conn) error {
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nhost: " + protocol.SelfTestAuthority + "\r\nconnection: close\r\n\r\n")); err != nil {
		return err
	}
	var head http1.ResponseHead
	if err := http1.NewReader(conn).ReadResponse(&head, "GET"); err != nil {
		return err
	}
	reason := head.Fields.Get(protocol.FieldReason)
	if head.Status != protocol.ReasonSelfTest.Status() || reason != protocol.ReasonSelfTest.String() {
		return fmt.Errorf("answer is status %d with reason %q, want %d with %q",
			head.Status, reason, protocol.ReasonSelfTest.Status(), protocol.ReasonSelfTest)
	}
	return nil
}
