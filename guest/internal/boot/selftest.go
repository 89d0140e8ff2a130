package boot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

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
	address := net.JoinHostPort(g.plan.Addr4.String(), "53")
	dialer := net.Dialer{Resolver: &net.Resolver{
		PreferGo: true, // /etc/resolv.conf was read before it was ours
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	dialer.SetMultipathTCP(false)
	tcp, err := dialer.DialContext(ctx, "tcp", protocol.SelfTestAuthority+":443")
	if err != nil {
		return err
	}
	defer tcp.Close()
	deadline, _ := ctx.Deadline()
	if err := tcp.SetDeadline(deadline); err != nil {
		return err
	}
	conn := tls.Client(tcp, &tls.Config{
		RootCAs: roots, ServerName: protocol.SelfTestAuthority, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13,
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS with our own front: %w", err)
	}
	return askSelfTest(conn)
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
