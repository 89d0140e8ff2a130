package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
	"torno.internal/protocol/secret"
)

// A Proxy is the way out of a network that has no other: a proxy that is asked for a tunnel by CONNECT (RFC 9110
// §9.3.6), for http as for https, so that TLS is with the upstream and the proxy sees no credential.
type Proxy struct {
	Authority     protocol.Authority // connected to without the guard: it is the operator's word
	Authorization secret.Value       // of Proxy-Authorization; empty: none
	Direct        []Direct           // reached without the proxy
}

// A Direct is a set of hosts that are reached without the proxy. One of its fields is set.
type Direct struct {
	Host   string // one name, or all names below it where it begins with a dot
	Prefix netip.Prefix
}

func (d Direct) holds(host string) bool {
	if d.Prefix.IsValid() {
		addr, ok := (protocol.Authority{Host: host}).IP()
		return ok && d.Prefix.Contains(addr.Unmap())
	}
	return host == d.Host || strings.HasPrefix(d.Host, ".") && strings.HasSuffix(host, d.Host)
}

// serves reports whether a host is reached through p, which may be nil.
func (p *Proxy) serves(host string) bool {
	if p == nil {
		return false
	}
	for _, d := range p.Direct {
		if d.holds(host) {
			return false
		}
	}
	return true
}

// Limits on asking the proxy.
const (
	maxProxyHead = 16 << 10    // bytes of its answer's head
	lookTimeout  = time.Second // for looking a name up here as well
)

// dialProxy connects to a through the proxy. The proxy finds the address, so ours cannot be the one that was judged;
// what can be seen from here is judged all the same: address literals, and names that resolve here to a forbidden
// address.
func (c *Client) dialProxy(ctx context.Context, a protocol.Authority, allow []netip.Prefix) (*net.TCPConn, error) {
	if err := c.dialer.look(ctx, a, allow); err != nil {
		return nil, err
	}
	tcp, err := c.dialer.dialUnguarded(ctx, c.proxy.Authority)
	if err != nil {
		return nil, protocol.Refuse(protocol.ReasonConnect, fmt.Errorf("proxy %v: %w", c.proxy.Authority, err))
	}
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	err = c.proxy.connect(tcp, a)
	if !stop() {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		_ = tcp.Close()
		reason := protocol.ReasonConnect
		if isTimeout(err) {
			reason = protocol.ReasonUpstreamTimeout
		}
		return nil, protocol.Refuse(reason, fmt.Errorf("proxy %v: %w", c.proxy.Authority, err))
	}
	return tcp, nil
}

// metadataNames are names of clouds' metadata services, which give credentials of the machine to whoever asks. Inside those clouds they
// lead to metadataAddrs, wherever the proxy stands.
var (
	metadataNames = []string{"metadata.google.internal", "metadata.goog", "metadata", "instance-data.ec2.internal", "instance-data"}
	metadataAddrs = []netip.Addr{netip.AddrFrom4([4]byte{169, 254, 169, 254})}
)

// look judges what can be seen from here of a host that the proxy will resolve.
func (d *dialer) look(ctx context.Context, a protocol.Authority, allow []netip.Prefix) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if slices.Contains(metadataNames, a.Host) {
		return d.judge(a.Host, metadataAddrs, allow)
	}
	addrs, err := d.resolve(ctx, a.Host)
	if err != nil {
		return nil // unknown here: the proxy's network may know it
	}
	return d.judge(a.Host, addrs, allow)
}

// connect asks for a tunnel to a.
func (p *Proxy) connect(tcp *net.TCPConn, a protocol.Authority) error {
	if err := tcp.SetDeadline(time.Now().Add(protocol.DialTimeout)); err != nil {
		return err
	}
	w := http1.NewWriter(tcp)
	err := w.WriteRequest("CONNECT", a.String(), a.String(), nil, http1.NoContent)
	if err == nil && p.Authorization.Len() > 0 {
		err = w.AppendField("proxy-authorization", p.Authorization)
	}
	if err == nil {
		err = w.Close(nil)
	}
	if err != nil {
		return err
	}
	head, err := readProxyHead(tcp)
	if err != nil {
		return fmt.Errorf("its answer: %w", err)
	}
	var answer http1.ResponseHead
	if err := http1.NewReader(bytes.NewReader(head)).ReadResponse(&answer, "CONNECT"); err != nil {
		return fmt.Errorf("its answer: %w", err)
	}
	switch {
	case answer.Status == 407:
		return fmt.Errorf("it wants authentication by %q; see [egress] proxy_authorization_file", answer.Fields.Get("proxy-authenticate"))
	case answer.Status < 200 || answer.Status > 299:
		return fmt.Errorf("it answers %d to CONNECT %v", answer.Status, a)
	}
	return tcp.SetDeadline(time.Time{})
}

// readProxyHead reads up to the end of the head and not a byte further: what follows is the tunnel's.
func readProxyHead(r io.Reader) ([]byte, error) {
	var head []byte
	var one [1]byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		if len(head) == maxProxyHead {
			return nil, fmt.Errorf("head of more than %d bytes", maxProxyHead)
		}
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return nil, err
		}
		head = append(head, one[0])
	}
	return head, nil
}
