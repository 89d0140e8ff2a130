package workload

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"

	"torno.internal/protocol"
)

// publish leads one connection to a published port to the workload's server. Where none listens, the
// stream breaks off, which the client sees as a connection that is reset.
func (c *Channel) publish(ctx context.Context, port uint16, number uint64) error {
	s, err := c.open(ctx, "POST", protocol.PathPublished+strconv.FormatUint(number, 10))
	if err != nil {
		return err
	}
	defer s.Close()
	server, err := dialServer(ctx, port)
	if err != nil {
		return err
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { server.Close(); s.Close() })
	defer stop()
	var inward, outward error
	var both sync.WaitGroup
	both.Go(func() {
		if inward = s.copyTo(server); inward != nil {
			server.Close() // cut, not ended: the other direction has no peer any more
			s.Close()
		}
	})
	if _, outward = io.CopyBuffer(onlyWriter{s}, onlyReader{server}, make([]byte, copyBuffer)); outward == nil {
		outward = s.w.Close(nil)
	}
	if outward != nil {
		s.Close()
	}
	both.Wait()
	if inward != nil {
		return inward
	}
	return outward
}

// copyTo copies the response's content to the server, and then its end.
func (s *stream) copyTo(server *net.TCPConn) error {
	if err := s.readHead(); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(onlyWriter{server}, onlyReader{s}, make([]byte, copyBuffer)); err != nil {
		return err
	}
	return server.CloseWrite()
}

// dialServer connects to the server that listens on port, by either loopback address.
func dialServer(ctx context.Context, port uint16) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: protocol.PublishTimeout}
	dialer.SetMultipathTCP(false)
	var c net.Conn
	var err error
	for _, host := range []string{"127.0.0.1", "::1"} {
		c, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return c.(*net.TCPConn), nil
		}
	}
	return nil, err
}
