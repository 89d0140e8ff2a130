package names

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limits on queries over TCP (RFC 7766).
const (
	maxConns    = 64               // connections at once; more wait in the kernel's queue
	connTimeout = 10 * time.Second // to the end of the next query
)

// A Server answers on port 53 of every address in the network namespace.
type Server struct {
	table *Table
	log   *slog.Logger
	udp   []*net.UDPConn
	tcp   []net.Listener
}

// Listen opens UDP and TCP port 53 on all addresses, IPv6 too where the kernel has it. It needs
// CAP_NET_BIND_SERVICE and CAP_NET_ADMIN: answers come from whatever address was asked, which is local
// by route alone, and only a transparent socket may send from it.
func Listen(ctx context.Context, table *Table, ipv6 bool, log *slog.Logger) (*Server, error) {
	return listen(ctx, table, ipv6, false, 53, log)
}

// Ports that ListenLoopback tries.
const (
	firstLoopbackPort = 1053
	loopbackPorts     = 64
)

// ListenLoopback opens a port on the loopback addresses alone, which is the same on all, for questions that are
// redirected there, and returns it. It needs CAP_NET_ADMIN.
func ListenLoopback(ctx context.Context, table *Table, ipv6 bool, log *slog.Logger) (*Server, uint16, error) {
	var errs error
	for port := uint16(firstLoopbackPort); port < firstLoopbackPort+loopbackPorts; port++ {
		s, err := listen(ctx, table, ipv6, true, port, log)
		if err == nil {
			return s, port, nil
		}
		errs = err
	}
	return nil, 0, fmt.Errorf("no port from %d on is free: %w", firstLoopbackPort, errs)
}

// loopbacks are the loopback addresses, by family.
var loopbacks = map[string]string{"4": "127.0.0.1", "6": "::1"}

func listen(ctx context.Context, table *Table, ipv6, loopback bool, port uint16, log *slog.Logger) (*Server, error) {
	s := &Server{table: table, log: log}
	families := []string{"4"}
	if ipv6 {
		families = append(families, "6")
	}
	for _, family := range families {
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return setOptions(c, family == "6") }}
		config.SetMultipathTCP(false)
		address := net.JoinHostPort("", strconv.Itoa(int(port)))
		if loopback {
			address = net.JoinHostPort(loopbacks[family], strconv.Itoa(int(port)))
		}
		udp, err := config.ListenPacket(ctx, "udp"+family, address)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("names: %w", err)
		}
		s.udp = append(s.udp, udp.(*net.UDPConn))
		tcp, err := config.Listen(ctx, "tcp"+family, address)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("names: %w", err)
		}
		s.tcp = append(s.tcp, tcp)
	}
	return s, nil
}

// setOptions lets the socket answer from any address and learn which address was asked.
func setOptions(c syscall.RawConn, ipv6 bool) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		if ipv6 {
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1))
			return
		}
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_PKTINFO, 1))
	})
	return errors.Join(ctlErr, err)
}

// Close ends Serve.
func (s *Server) Close() error {
	var errs []error
	for _, c := range s.udp {
		errs = append(errs, c.Close())
	}
	for _, l := range s.tcp {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Serve answers until ctx is done, and returns nil then.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	var wg sync.WaitGroup
	for _, c := range s.udp {
		wg.Go(func() { s.serveUDP(c) })
	}
	slots := make(chan struct{}, maxConns)
	for _, l := range s.tcp {
		wg.Go(func() { s.serveTCP(ctx, l, slots) })
	}
	wg.Wait()
	return nil
}

func (s *Server) serveUDP(c *net.UDPConn) {
	query, control := make([]byte, MaxQuery+1), make([]byte, 128)
	for {
		n, oobn, _, client, err := c.ReadMsgUDPAddrPort(query, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Debug("reading a DNS query", "error", err)
			continue
		}
		answer := s.table.Answer(query[:n])
		if answer == nil {
			continue
		}
		if _, _, err := c.WriteMsgUDPAddrPort(answer, sourceOf(control[:oobn]), client); err != nil {
			s.log.Debug("writing a DNS answer", "client", client, "error", err)
		}
	}
}

// sourceOf turns the control message that says which address a query was sent to into the one that
// makes the answer come from there.
func sourceOf(control []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&m.Data[0]))
			return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: info.Addr})
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&m.Data[0]))
			return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: info.Addr})
		}
	}
	return nil
}

func (s *Server) serveTCP(ctx context.Context, l net.Listener, slots chan struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Warn("accepting a DNS connection", "error", err)
			time.Sleep(connTimeout / 500)
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			s.serveConn(c)
		})
	}
}

// serveConn answers queries in order, each behind its length in two bytes.
func (s *Server) serveConn(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 2+MaxQuery)
	for {
		if c.SetDeadline(time.Now().Add(connTimeout)) != nil {
			return
		}
		if _, err := io.ReadFull(c, buf[:2]); err != nil {
			return
		}
		length := int(binary.BigEndian.Uint16(buf))
		if length > MaxQuery {
			return
		}
		if _, err := io.ReadFull(c, buf[:length]); err != nil {
			return
		}
		answer := s.table.Answer(buf[:length])
		if answer == nil {
			return
		}
		out := binary.BigEndian.AppendUint16(nil, uint16(len(answer)))
		if _, err := c.Write(append(out, answer...)); err != nil {
			return
		}
	}
}
