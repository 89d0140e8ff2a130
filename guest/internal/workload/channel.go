package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// A Channel is the guest's side of the run channel: each request is one exchange on a stream of its own
// (SPEC.md, run channel). It is safe for concurrent use.
type Channel struct {
	Dial  func(ctx context.Context) (net.Conn, error) // to the run port
	Token protocol.Token
}

// maxEvent bounds one line of events, in bytes.
const maxEvent = 4 << 10

// A stream is one run exchange under way.
type stream struct {
	conn net.Conn
	r    *bhttp.Reader
	w    *bhttp.Writer
}

// open dials, presents the token and sends a request's head.
func (c *Channel) open(ctx context.Context, method, path string) (*stream, error) {
	ctx, cancel := context.WithTimeout(ctx, protocol.PrefaceTimeout)
	defer cancel()
	conn, err := c.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("run channel: %w", err)
	}
	s := &stream{conn, bhttp.NewReader(conn), bhttp.NewWriter(conn)}
	if err := s.begin(ctx, c.Token, method, path); err != nil {
		conn.Close()
		return nil, fmt.Errorf("run channel: %s: %w", path, err)
	}
	return s, nil
}

func (s *stream) begin(ctx context.Context, token protocol.Token, method, path string) error {
	deadline, _ := ctx.Deadline()
	if err := s.conn.SetDeadline(deadline); err != nil {
		return err
	}
	preface := protocol.Preface{Version: protocol.Version, Kind: protocol.KindRun, Token: token}
	if _, err := s.conn.Write(preface.AppendTo(nil)); err != nil {
		return err
	}
	if err := protocol.ReadPrefaceReply(s.conn); err != nil {
		return err
	}
	request := protocol.Request{Method: method, Scheme: protocol.Scheme, Authority: protocol.RunAuthority, Path: path}
	if err := s.w.WriteRequest(&request); err != nil {
		return err
	}
	if err := s.w.Flush(); err != nil {
		return err
	}
	return s.conn.SetDeadline(time.Time{})
}

// get opens a request without content and waits for its response's head; Read then gives the content.
func (c *Channel) get(ctx context.Context, path string) (*stream, error) {
	s, err := c.open(ctx, "GET", path)
	if err != nil {
		return nil, err
	}
	if err := s.endRequest(); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("run channel: %s: %w", path, err)
	}
	return s, nil
}

// post opens a request whose content Write sends, each piece at once.
func (c *Channel) post(ctx context.Context, path string) (*stream, error) {
	return c.open(ctx, "POST", path)
}

func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }

func (s *stream) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, s.w.Flush()
}

// Close ends the stream, abruptly if its exchange is not over.
func (s *stream) Close() error { return s.conn.Close() }

// endRequest ends the request's content and reads the response's head.
func (s *stream) endRequest() error {
	if err := s.w.Close(nil); err != nil {
		return err
	}
	return s.readHead()
}

// readHead reads the response's head, which must be one of success.
func (s *stream) readHead() error {
	var response protocol.Response
	for range protocol.MaxInterim + 1 {
		if err := s.r.ReadResponse(&response); err != nil {
			return err
		}
		if !response.Interim() {
			break
		}
	}
	if response.Status/100 != 2 {
		return fmt.Errorf("host answered with status %d", response.Status)
	}
	return nil
}

// finish ends the request and waits until the host has taken all of it.
func (s *stream) finish() error {
	defer s.conn.Close()
	if err := s.endRequest(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, s.r)
	return err
}

// SendExit tells the host how the run ended: the last request of a run. It does so even when ctx is
// done, within a deadline of its own.
func (c *Channel) SendExit(ctx context.Context, exit protocol.Exit) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exitTimeout)
	defer cancel()
	s, err := c.post(ctx, protocol.PathExit)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	body, err := json.Marshal(exit)
	if err != nil {
		return err
	}
	if _, err := s.Write(body); err != nil {
		return fmt.Errorf("run channel: %s: %w", protocol.PathExit, err)
	}
	if err := s.finish(); err != nil {
		return fmt.Errorf("run channel: %s: %w", protocol.PathExit, err)
	}
	return nil
}

// readEvents calls handle for each event until the host ends them. What is not an event ends them too.
func readEvents(r io.Reader, handle func(protocol.RunEvent)) error {
	d := json.NewDecoder(&lineLimit{r: r, left: maxEvent})
	for {
		var e protocol.RunEvent
		err := d.Decode(&e)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("run channel: %s: %w", protocol.PathRunEvents, err)
		}
		handle(e)
	}
}

// A lineLimit refuses a line of more than maxEvent bytes.
type lineLimit struct {
	r    io.Reader
	left int
}

func (l *lineLimit) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	for _, c := range p[:n] {
		if l.left--; c == '\n' {
			l.left = maxEvent
		}
		if l.left < 0 {
			return 0, fmt.Errorf("event of more than %d bytes", maxEvent)
		}
	}
	return n, err
}
