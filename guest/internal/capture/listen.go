// Package capture makes every TCP connection in the own network namespace, to any address but the
// loopback ones and to any port, arrive at one listener that still knows where it was going.
//
// All addresses are local by route: the plan's own addresses on lo and a local default in a late
// table. What catches the port is a Method. Nothing here reaches beyond the own network namespace.
package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// A Plan is a protocol.Capture with its defaults filled in and its values checked.
type Plan struct {
	Addr4, Addr6   netip.Addr // own addresses on lo; Addr6 is invalid where the kernel has no IPv6
	Names4, Names6 netip.Prefix
	ProxyPort      uint16
	User           *User // whose connections alone are caught; nil: everybody's
}

// A User is one whose connections are caught on a machine that has a network card for the others. Nothing
// of this user's leaves by the card: connections are redirected, names are asked of us, all else is dropped.
type User struct {
	ID    uint32
	Names uint16 // port on the loopback addresses where names are answered
}

// NewPlan fills in the defaults of c.
func NewPlan(c protocol.Capture) (Plan, error) {
	plan := Plan{ProxyPort: c.ProxyPort}
	if plan.ProxyPort == 0 {
		plan.ProxyPort = 3128
	}
	var errs [4]error
	plan.Addr4, errs[0] = netip.ParseAddr(or(c.Addr4, "192.0.2.2"))
	plan.Addr6, errs[1] = netip.ParseAddr(or(c.Addr6, "2001:db8::2"))
	plan.Names4, errs[2] = netip.ParsePrefix(or(c.Names4, "100.64.0.0/10"))
	plan.Names6, errs[3] = netip.ParsePrefix(or(c.Names6, "fd74:6f72:6e6f::/48"))
	if err := errors.Join(errs[:]...); err != nil {
		return Plan{}, fmt.Errorf("capture plan: %w", err)
	}
	if !plan.Addr4.Is4() || !plan.Addr6.Is6() || !plan.Names4.Addr().Is4() || !plan.Names6.Addr().Is6() {
		return Plan{}, errors.New("capture plan: an address is of the wrong family")
	}
	if _, err := os.Stat("/proc/net/if_inet6"); errors.Is(err, os.ErrNotExist) {
		plan.Addr6 = netip.Addr{}
	}
	return plan, nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (p Plan) addresses() []netip.Addr {
	if !p.Addr6.IsValid() {
		return []netip.Addr{p.Addr4}
	}
	return []netip.Addr{p.Addr4, p.Addr6}
}

// A Method is a way to catch connections to any port.
type Method uint8

// The methods. Redirect is an nf_tables redirect, after which the connection tracker knows the original
// destination (SO_ORIGINAL_DST); it works in a user namespace. Lookup is a BPF program that picks the
// listener; it needs no modules but the first user namespace, and leaves other UDP to its timeouts.
const (
	Redirect Method = iota
	Lookup
)

// A Listener accepts what the capture catches. Its connections embed *net.TCPConn; their LocalAddr is
// the destination that the client dialled.
type Listener struct {
	tcp    *net.TCPListener
	method Method
	link   *os.File // holds the BPF program, with Lookup
	log    *slog.Logger
}

// Listen sets the capture up in the own network namespace and returns its listener. Where the method
// does not work the error is a *HintError.
func Listen(ctx context.Context, plan Plan, method Method, log *slog.Logger) (*Listener, error) {
	if plan.User == nil { // else the machine's network is others' too
		if err := setSysctls(); err != nil {
			return nil, err
		}
	}
	if err := addRoutes(plan); err != nil {
		return nil, err
	}
	network, address := "tcp", "[::]:0"
	if !plan.Addr6.IsValid() {
		network, address = "tcp4", "0.0.0.0:0"
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if plan.User != nil {
			if err := bindLoopback(c); err != nil {
				return err
			}
		}
		return setTransparent(c)
	}}
	config.SetMultipathTCP(false) // an MPTCP socket has no place in a sockmap
	l, err := config.Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("capture listener: %w", err)
	}
	caught := &Listener{tcp: l.(*net.TCPListener), method: method, log: log}
	if method == Lookup {
		caught.link, err = steer(caught.tcp)
	} else {
		err = redirect(caught.port(), plan.User)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return caught, nil
}

// setTransparent lets the listener answer for addresses that are local by route alone.
func setTransparent(c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1) })
	return errors.Join(ctlErr, err)
}

// bindLoopback keeps the listener from what comes in by a network card: redirected connections come over lo.
func bindLoopback(c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo") })
	return errors.Join(ctlErr, err)
}

func (l *Listener) port() uint16 { return l.tcp.Addr().(*net.TCPAddr).AddrPort().Port() }

// Addr returns the listener's own address, which is nobody's destination.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// Close stops accepting. Connections are refused from then on, for nothing else takes them.
func (l *Listener) Close() error {
	if l.link != nil {
		l.link.Close()
	}
	return l.tcp.Close()
}

// acceptPause is how long Accept waits when descriptors or memory are short.
const acceptPause = 20 * time.Millisecond

// Accept returns the next captured connection. A connection that was not redirected, because somebody
// dialled the listener's port over a loopback address, is reset. A passing shortage is waited out.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			l.log.Warn("accept", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		dialled, err := l.destination(tcp)
		if err != nil || dialled.Addr().IsLoopback() || dialled.Addr().IsUnspecified() {
			l.log.Debug("refused a connection that was not captured", "dialled", dialled, "error", err)
			_ = tcp.SetLinger(0)
			tcp.Close()
			continue
		}
		return &conn{tcp, net.TCPAddrFromAddrPort(dialled)}, nil
	}
}

// destination returns where the client wanted to go.
func (l *Listener) destination(c *net.TCPConn) (netip.AddrPort, error) {
	if l.method == Redirect {
		return originalDestination(c)
	}
	own := c.LocalAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(own.Addr().Unmap().WithZone(""), own.Port()), nil
}

// A conn is a captured connection.
type conn struct {
	*net.TCPConn
	dialled *net.TCPAddr
}

// LocalAddr returns the destination that the client dialled.
func (c *conn) LocalAddr() net.Addr { return c.dialled }

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST: the destination before the redirect.
const soOriginalDst = 80

func originalDestination(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	is4 := c.LocalAddr().(*net.TCPAddr).IP.To4() != nil
	var dialled netip.AddrPort
	ctlErr := raw.Control(func(fd uintptr) {
		if is4 {
			var sa unix.RawSockaddrInet4
			if err = getsockopt(fd, unix.SOL_IP, unsafe.Pointer(&sa), unsafe.Sizeof(sa)); err == nil {
				dialled = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), networkOrder(sa.Port))
			}
			return
		}
		var sa unix.RawSockaddrInet6
		if err = getsockopt(fd, unix.SOL_IPV6, unsafe.Pointer(&sa), unsafe.Sizeof(sa)); err == nil {
			dialled = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), networkOrder(sa.Port))
		}
	})
	return dialled, errors.Join(ctlErr, err)
}

// getsockopt reads a socket address; x/sys has no call for this option's two shapes.
func getsockopt(fd uintptr, level uintptr, p unsafe.Pointer, size uintptr) error {
	length := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, level, soOriginalDst, uintptr(p), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt SO_ORIGINAL_DST", errno)
	}
	return nil
}

// networkOrder returns the port that a raw socket address holds in network order.
func networkOrder(port uint16) uint16 {
	p := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(p[0])<<8 | uint16(p[1])
}
