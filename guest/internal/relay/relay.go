// Package relay carries exchanges from the guest to the broker: hello, the channel requests, and a pool
// of forward streams with one exchange in flight on each (SPEC.md §3).
package relay

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

// A Dialer opens a connection to the broker.
type Dialer func(context.Context) (net.Conn, error)

// helloPause is how long Hello waits before it tries again.
const helloPause = 100 * time.Millisecond

// Hello says hello and returns the broker's answer. A connection that fails is tried again, with the
// same nonce, until ctx ends; an answer that refuses is final.
func Hello(ctx context.Context, dial Dialer, req protocol.HelloRequest) (*protocol.HelloResponse, error) {
	for {
		var hello protocol.HelloResponse
		err := ask(ctx, dial, protocol.Preface{Version: protocol.Version, Kind: protocol.KindHello}, protocol.PathHello, req, &hello)
		var status *protocol.StatusError
		var refused *protocol.RefusedError
		switch {
		case err == nil:
			return &hello, nil
		case errors.As(err, &status), errors.As(err, &refused):
			return nil, fmt.Errorf("the broker refuses hello: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("hello: %w", errors.Join(ctx.Err(), err))
		case <-time.After(helloPause):
		}
	}
}

// ask opens a stream, makes one channel request with a JSON body on it and decodes the answer.
func ask(ctx context.Context, dial Dialer, p protocol.Preface, path string, in, out any) error {
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	s := newStream(c, p)
	defer s.close()
	defer context.AfterFunc(ctx, s.close)()
	return s.ask(path, in, out)
}

// ask makes one channel request on the stream.
func (s *Stream) ask(path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	err = s.WriteRequest(&protocol.Request{
		Method: "POST", Scheme: protocol.Scheme, Authority: protocol.BrokerAuthority, Path: path,
		Fields: protocol.Fields{{Name: "content-type", Value: "application/json"}},
	})
	if err != nil {
		return err
	}
	if _, err := s.Write(body); err != nil {
		return err
	}
	if err := s.CloseWrite(nil); err != nil {
		return err
	}
	var resp protocol.Response
	if err := s.ReadResponse(&resp); err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(s, maxAnswer+1))
	if err != nil {
		return err
	}
	if len(answer) > maxAnswer {
		return fmt.Errorf("answer to %s of more than %d bytes", path, maxAnswer)
	}
	var trailer protocol.Fields
	if err := s.ReadTrailer(&trailer); err != nil {
		return err
	}
	if resp.Status != 200 {
		return refusal(&resp)
	}
	return json.Unmarshal(answer, out)
}

// maxAnswer bounds the body of an answer: a hello carries the workload's whole environment.
const maxAnswer = 8 << 20 // bytes

// refusal returns the error that a response which is not 200 means.
func refusal(resp *protocol.Response) error {
	reason, err := protocol.ParseReason(resp.Fields.Get(protocol.FieldReason))
	if err != nil {
		return fmt.Errorf("answer with status %d", resp.Status)
	}
	return protocol.Refuse(reason, nil)
}

// A Stream is one connection to the broker. It carries one exchange at a time: the request by the
// Write methods, the response by the Read methods, from two goroutines if need be.
type Stream struct {
	conn  *prefaced
	r     *bhttp.Reader
	w     *bhttp.Writer
	pool  *Pool
	used  bool      // an exchange has ended on it
	since time.Time // when it became idle
	peek  *peek     // nil until it is first looked at
}

func newStream(c net.Conn, p protocol.Preface) *Stream {
	pc := &prefaced{Conn: c, preface: p.AppendTo(nil)}
	return &Stream{conn: pc, r: bhttp.NewReader(pc), w: bhttp.NewWriter(pc)}
}

// WriteRequest writes the request's head into the stream's buffer.
func (s *Stream) WriteRequest(r *protocol.Request) error { return s.w.WriteRequest(r) }

// Write writes content into the buffer, and on when that is full.
func (s *Stream) Write(p []byte) (int, error) { return s.w.Write(p) }

// Flush sends what is buffered.
func (s *Stream) Flush() error { return s.w.Flush() }

// CloseWrite ends the request with its trailers and sends what is buffered.
func (s *Stream) CloseWrite(trailer protocol.Fields) error { return s.w.Close(trailer) }

// ReadResponse reads one response head, interim ones too.
func (s *Stream) ReadResponse(r *protocol.Response) error { return s.r.ReadResponse(r) }

// Read reads content of the final response: io.EOF at its end, io.ErrUnexpectedEOF if it was aborted.
func (s *Stream) Read(p []byte) (int, error) { return s.r.Read(p) }

// ReadTrailer reads the response's trailers, after io.EOF.
func (s *Stream) ReadTrailer(f *protocol.Fields) error { return s.r.ReadTrailer(f) }

// Used reports whether the stream has carried an exchange before: the broker may have closed it meanwhile
// without having looked at this one.
func (s *Stream) Used() bool { return s.used }

// Admitted waits until the broker has let the stream in; its refusal is a *protocol.StatusError. The
// preface must have been flushed.
func (s *Stream) Admitted() error { return s.conn.admitted() }

// Buffered returns how many bytes of the response have arrived and were not read.
func (s *Stream) Buffered() int { return s.r.Buffered() }

func (s *Stream) close() { s.conn.Close() }

// A prefaced connection sends its preface with the first write and reads the reply with the first read,
// so that neither costs a round trip.
type prefaced struct {
	net.Conn
	preface []byte // until sent
	replied bool
}

func (c *prefaced) Write(p []byte) (int, error) {
	if c.preface == nil {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(append(c.preface, p...))
	n = max(0, n-protocol.PrefaceSize)
	c.preface = nil
	return n, err
}

// WriteBuffers writes several buffers in one system call.
func (c *prefaced) WriteBuffers(b *net.Buffers) (int64, error) {
	if c.preface == nil {
		return b.WriteTo(c.Conn)
	}
	*b = append(net.Buffers{c.preface}, *b...)
	n, err := b.WriteTo(c.Conn)
	c.preface = nil
	return max(0, n-protocol.PrefaceSize), err
}

func (c *prefaced) Read(p []byte) (int, error) {
	if err := c.admitted(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// admitted reads the reply to the preface, once. A broker that is alive gives it at once.
func (c *prefaced) admitted() error {
	if c.replied {
		return nil
	}
	if err := c.Conn.SetReadDeadline(time.Now().Add(replyTimeout)); err != nil {
		return err
	}
	if err := protocol.ReadPrefaceReply(c.Conn); err != nil {
		return err
	}
	c.replied = true
	return c.Conn.SetReadDeadline(time.Time{})
}

// replyTimeout is how long the broker may take to answer a preface: busy, not hung.
const replyTimeout = 2 * protocol.PrefaceTimeout
