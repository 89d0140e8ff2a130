package relay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// A Channel makes the guest's own requests to the broker. It is safe for concurrent use.
type Channel struct {
	dial    Dialer
	preface protocol.Preface

	mu sync.Mutex
	s  *Stream // for leaves, one at a time; nil until the first
}

// NewChannel returns a Channel that presents token.
func NewChannel(dial Dialer, token protocol.Token) *Channel {
	return &Channel{dial: dial, preface: protocol.Preface{Version: protocol.Version, Kind: protocol.KindChannel, Token: token}}
}

// Leaf asks for a certificate for name, a host name or an IP address, and key, a P-256 public key in
// PKIX DER. A stream that the broker has closed meanwhile is replaced once.
func (c *Channel) Leaf(ctx context.Context, name string, key []byte) (*protocol.LeafResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	req := protocol.LeafRequest{Name: name, Key: key}
	if c.s != nil && c.s.quiet() {
		leaf, err := c.leaf(ctx, req)
		if err == nil || ctx.Err() != nil || c.s != nil {
			return leaf, err
		}
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	if c.s != nil {
		c.s.close()
	}
	c.s = newStream(conn, c.preface)
	return c.leaf(ctx, req)
}

// leaf makes the request on c.s. A stream that failed is closed and forgotten; a refusal leaves it.
func (c *Channel) leaf(ctx context.Context, req protocol.LeafRequest) (*protocol.LeafResponse, error) {
	s := c.s
	stop := context.AfterFunc(ctx, s.close)
	var leaf protocol.LeafResponse
	err := s.ask(protocol.PathLeaf, req, &leaf)
	if _, refused := err.(*protocol.RefusedError); !stop() || err != nil && !refused {
		s.close()
		c.s = nil
	}
	if err != nil {
		return nil, err
	}
	return &leaf, nil
}

// Agent carries one client of the SSH agent until either side ends. The client is closed then.
func (c *Channel) Agent(ctx context.Context, client net.Conn) error {
	defer client.Close()
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	s := newStream(conn, c.preface)
	defer s.close()
	defer context.AfterFunc(ctx, func() { s.close(); client.Close() })()
	err = s.WriteRequest(&protocol.Request{Method: "POST", Scheme: protocol.Scheme, Authority: protocol.BrokerAuthority, Path: protocol.PathSSH})
	if err != nil {
		return err
	}
	if err := s.Flush(); err != nil {
		return err
	}
	var resp protocol.Response
	if err := s.ReadResponse(&resp); err != nil {
		return err
	}
	if resp.Status != 200 {
		return refusal(&resp)
	}
	return s.splice(client)
}

// Sign asks for a proof: body is a protocol.SignRequest as somebody wrote it, and the answer a protocol.SignResponse. It may take
// as long as a person does.
func (c *Channel) Sign(ctx context.Context, body []byte) (answer []byte, err error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	s := newStream(conn, c.preface)
	defer s.close()
	defer context.AfterFunc(ctx, s.close)()
	var raw json.RawMessage
	err = s.ask(protocol.PathSign, json.RawMessage(body), &raw)
	return raw, err
}

// splice carries bytes both ways between client and the stream, whose head was read, until both have ended.
func (s *Stream) splice(client net.Conn) error {
	asked := make(chan error, 1)
	go func() {
		_, err := bhttp.Copy(s, client, func(int64) error { return s.Flush() })
		if err == nil {
			err = s.CloseWrite(nil)
		}
		if err != nil {
			s.close()
		}
		asked <- err
	}()
	_, err := bhttp.Copy(client, s, func(int64) error { return nil })
	client.Close() // so that nothing is waited for
	return errors.Join(err, <-asked)
}

// Close closes the stream that Leaf keeps.
func (c *Channel) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s != nil {
		c.s.close()
		c.s = nil
	}
}

// maxEvent bounds one line of events, in bytes.
const maxEvent = 4 << 10

// Events calls f with each event of the host until the stream or ctx ends. Ending the stream is the
// broker's right: it restarts; nil is returned then.
func (c *Channel) Events(ctx context.Context, f func(protocol.Event)) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	s := newStream(conn, c.preface)
	defer s.close()
	defer context.AfterFunc(ctx, s.close)()
	err = s.WriteRequest(&protocol.Request{Method: "GET", Scheme: protocol.Scheme, Authority: protocol.BrokerAuthority, Path: protocol.PathEvents})
	if err != nil {
		return err
	}
	if err := s.CloseWrite(nil); err != nil {
		return err
	}
	var resp protocol.Response
	if err := s.ReadResponse(&resp); err != nil {
		return err
	}
	if resp.Status != 200 {
		return refusal(&resp)
	}
	lines := bufio.NewReaderSize(s, maxEvent)
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var e protocol.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("event: %w", err)
		}
		f(e)
	}
}
