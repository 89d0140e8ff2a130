package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"torno.internal/protocol"
)

// A Resolver finds the addresses of a name. The host given to it ends in a dot, so that no search
// domain of this machine is tried. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	fallbackDelay = 250 * time.Millisecond // before the next address is tried beside the last (RFC 8305 §5)
	maxAttempts   = 8                      // addresses tried of one name; all are judged
	maxAnswers    = 256                    // addresses of one name; more is refused
)

// keepAlive finds out within two minutes that a peer has gone while nothing is sent.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 6}

// A dialer connects by name: it resolves once, judges every answer, and connects only to addresses
// that it judged, so an answer that changes afterwards changes nothing.
type dialer struct {
	resolver Resolver
	guard    guard
}

// dial connects to a, whose addresses must all pass the guard or be in allow.
func (d *dialer) dial(ctx context.Context, a protocol.Authority, allow []netip.Prefix) (*net.TCPConn, error) {
	addrs, err := d.resolve(ctx, a.Host)
	if err != nil {
		return nil, err
	}
	if err := d.judge(a.Host, addrs, allow); err != nil {
		return nil, err
	}
	return connectAny(ctx, a.Port, addrs, d.guard.with(allow).lastLook)
}

// judge refuses a host if one of its addresses is forbidden.
func (d *dialer) judge(host string, addrs []netip.Addr, allow []netip.Prefix) error {
	g := d.guard.with(allow)
	for _, addr := range addrs {
		if err := g.look(addr); err != nil {
			return protocol.Refuse(protocol.ReasonForbiddenAddress, fmt.Errorf("%q: %w", host, err))
		}
	}
	return nil
}

// lastLook is net.Dialer.ControlContext: it judges the address that the kernel is about to be given.
func (g guard) lastLook(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return g.look(to.Addr())
}

// look is check for an address on this host's network: its own addresses are closed too, public or not, for what
// listens there may be closed to the world by a firewall that the host itself does not pass.
func (g guard) look(addr netip.Addr) error {
	if err := g.check(addr); err != nil {
		return err
	}
	if !g.exempt(addr.Unmap()) && isOwn(addr.Unmap()) {
		return &addressError{addr, "this host's own"}
	}
	return nil
}

// isOwn reports whether what is sent to addr stays on this host: then it would also come from addr. Connecting a UDP
// socket sends nothing. To an address without a route nothing goes at all.
func isOwn(addr netip.Addr) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 9)))
	if err != nil {
		return false
	}
	defer c.Close()
	from, ok := c.LocalAddr().(*net.UDPAddr)
	return ok && from.AddrPort().Addr().Unmap() == addr
}

// dialUnguarded connects to where the operator said.
func (d *dialer) dialUnguarded(ctx context.Context, a protocol.Authority) (*net.TCPConn, error) {
	addrs, err := d.resolve(ctx, a.Host)
	if err != nil {
		return nil, err
	}
	return connectAny(ctx, a.Port, addrs, nil)
}

// resolve returns the addresses of host, at least one, IPv4-mapped ones as IPv4.
func (d *dialer) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, ok := (protocol.Authority{Host: host}).IP(); ok {
		return []netip.Addr{addr.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, protocol.DialTimeout)
	defer cancel()
	addrs, err := d.resolver.LookupNetIP(ctx, "ip", host+".")
	switch {
	case err != nil:
		return nil, protocol.Refuse(protocol.ReasonUnknownName, err)
	case len(addrs) == 0:
		return nil, protocol.Refuse(protocol.ReasonUnknownName, fmt.Errorf("%q has no address", host))
	case len(addrs) > maxAnswers:
		return nil, protocol.Refuse(protocol.ReasonUnknownName, fmt.Errorf("%q has %d addresses, at most %d are judged", host, len(addrs), maxAnswers))
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

// connectAny connects to the first of addrs that answers within protocol.DialTimeout.
func connectAny(ctx context.Context, port uint16, addrs []netip.Addr, check func(context.Context, string, string, syscall.RawConn) error) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, protocol.DialTimeout)
	defer cancel()
	nd := net.Dialer{KeepAliveConfig: keepAlive, ControlContext: check}
	nd.SetMultipathTCP(false)
	dialOne := func(ctx context.Context, addr netip.Addr) (*net.TCPConn, error) {
		nc, err := nd.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, port).String())
		if err != nil {
			return nil, err
		}
		return nc.(*net.TCPConn), nil
	}
	addrs = alternate(addrs)
	addrs = addrs[:min(len(addrs), maxAttempts)]
	nc, err := race(ctx, addrs, dialOne)
	if err != nil {
		return nil, protocol.Refuse(connectReason(ctx, err), err)
	}
	return nc, nil
}

func connectReason(ctx context.Context, err error) protocol.Reason {
	var refused *addressError
	switch {
	case errors.As(err, &refused):
		return protocol.ReasonForbiddenAddress
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return protocol.ReasonUpstreamTimeout
	}
	return protocol.ReasonConnect
}

// alternate orders addresses so that the families take turns, beginning with the resolver's first
// (RFC 8305 §4).
func alternate(addrs []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	ordered := make([]netip.Addr, 0, len(addrs))
	for i := range first {
		ordered = append(ordered, first[i])
		if i < len(second) {
			ordered = append(ordered, second[i])
		}
	}
	if len(second) > len(first) {
		ordered = append(ordered, second[len(first):]...)
	}
	return ordered
}

// race dials addrs in order, the next when the last failed or kept silent for fallbackDelay, and
// returns the first connection. It waits for the attempts that lost.
func race(ctx context.Context, addrs []netip.Addr, dialOne func(context.Context, netip.Addr) (*net.TCPConn, error)) (*net.TCPConn, error) {
	if len(addrs) == 1 {
		return dialOne(ctx, addrs[0])
	}
	type result struct {
		nc  *net.TCPConn
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result)
	delay := time.NewTimer(0)
	defer delay.Stop()
	var won *net.TCPConn
	var errs []error
	for next, running := 0, 0; ; {
		select {
		case <-delay.C:
			if won == nil && next < len(addrs) {
				addr := addrs[next]
				next, running = next+1, running+1
				go func() {
					nc, err := dialOne(ctx, addr)
					results <- result{nc, err}
				}()
				delay.Reset(fallbackDelay)
			}
		case r := <-results:
			running--
			switch {
			case r.err != nil:
				errs = append(errs, r.err)
				delay.Reset(0)
			case won == nil:
				won = r.nc
				cancel()
			default:
				_ = r.nc.Close()
			}
			if running == 0 && won != nil {
				return won, nil
			}
			if running == 0 && next == len(addrs) {
				return nil, errors.Join(errs...)
			}
		}
	}
}
