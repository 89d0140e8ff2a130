package front

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/http1"
)

// exchange serves one request whose head was read. It reports whether the connection can carry another.
// On error the response has begun and cannot end: the client must not take it for whole.
func (c *conn) exchange(ctx context.Context, head *http1.RequestHead) (keep bool, err error) {
	if head.Upgrade == upgradeWebSocket {
		return c.webSocket(ctx, head)
	}
	if err := c.request(head); err != nil {
		return c.refused(head, err, c.drained(head)), nil
	}
	if c.arrived(head) {
		return c.exchangeWhole(ctx, head)
	}
	return c.exchangeStreamed(ctx, head)
}

// arrived reports whether all of the content has arrived together with the head, as for most requests.
func (c *conn) arrived(head *http1.RequestHead) bool {
	return head.ContentLength >= 0 && head.ContentLength <= int64(c.r.Buffered()) && head.ContentLength <= wholeSize
}

// wholeSize is how long the content of a request may be that is held until its response begins.
const wholeSize = 16 << 10 // bytes

var wholeBuffers = sync.Pool{New: func() any { return new([wholeSize]byte) }}

// exchangeWhole serves a request that has arrived whole: without a goroutine, and in one write.
func (c *conn) exchangeWhole(ctx context.Context, head *http1.RequestHead) (keep bool, err error) {
	var content []byte
	if head.ContentLength > 0 {
		buf := wholeBuffers.Get().(*[wholeSize]byte)
		defer wholeBuffers.Put(buf)
		content = buf[:head.ContentLength]
		if _, err := io.ReadFull(c.r, content); err != nil {
			return false, err
		}
	}
	if _, err := c.r.Read(c.scratch[:]); err != io.EOF { // stand before the next request
		return false, err
	}
	s, err := c.ask(ctx, content)
	if err != nil {
		return c.refused(head, err, head.KeepAlive), nil
	}
	keep, err = c.respond(head, s, nil)
	return c.finish(s, nil, keep, err)
}

// exchangeStreamed serves a request whose content comes, or may come, later.
func (c *conn) exchangeStreamed(ctx context.Context, head *http1.RequestHead) (keep bool, err error) {
	s, err := c.announce(ctx)
	if err != nil {
		return c.refused(head, err, false), nil
	}
	up := startUpload(func() error { return c.upload(s) })
	if err := s.ReadResponse(&c.resp); err != nil {
		c.joinUpload(s, up)
		c.release(s, false)
		return c.refusedUpload(head, up.err, err), nil
	}
	keep, err = c.respond(head, s, up)
	return c.finish(s, up, keep, err)
}

// ask sends a request that is held whole and reads the first response head into c.resp. Where the
// broker did not look at the request it is sent again, on another stream.
func (c *conn) ask(ctx context.Context, content []byte) (*relay.Stream, error) {
	begun := time.Time{}
	for again := false; ; again = true {
		s, err := c.front.Pool.Open(ctx)
		if err != nil {
			return nil, err
		}
		c.hold(s)
		if err = c.send(s, content); err == nil {
			if err = s.ReadResponse(&c.resp); err == nil {
				return s, nil
			}
		}
		stale := s.Used() && !again && isSafe(c.req.Method) && hungUp(err)
		if gone := c.release(s, false); gone || !stale && !waitBusy(ctx, &begun, err) {
			return nil, err
		}
	}
}

// announce sends the request's head and waits until the stream is known to be let in, so that no content
// is read that could not be sent again.
func (c *conn) announce(ctx context.Context) (*relay.Stream, error) {
	begun := time.Time{}
	for {
		s, err := c.front.Pool.Open(ctx)
		if err != nil {
			return nil, err
		}
		c.hold(s)
		if err = c.writeHead(s); err == nil {
			err = s.Flush()
		}
		if err == nil {
			err = s.Admitted()
		}
		if err == nil {
			return s, nil
		}
		if gone := c.release(s, false); gone || !waitBusy(ctx, &begun, err) {
			return nil, err
		}
	}
}

func (c *conn) send(s *relay.Stream, content []byte) error {
	if err := c.writeHead(s); err != nil {
		return err
	}
	if _, err := s.Write(content); err != nil {
		return err
	}
	return s.CloseWrite(nil)
}

// busyPause is how long a request waits when the broker counts streams that it has not yet seen closed.
const busyPause = 50 * time.Millisecond

// waitBusy waits a moment if err is that the broker had no room for the stream, at most StreamWait since
// begun, which it sets. It reports whether to try again.
func waitBusy(ctx context.Context, begun *time.Time, err error) bool {
	var status *protocol.StatusError
	if !errors.As(err, &status) || status.Status != protocol.StatusBusy {
		return false
	}
	if begun.IsZero() {
		*begun = time.Now()
	}
	if time.Since(*begun) > protocol.StreamWait {
		return false
	}
	select {
	case <-time.After(busyPause):
		return true
	case <-ctx.Done():
		return false
	}
}

// isSafe reports whether a method asks for nothing to be changed (RFC 9110 §9.2.1).
func isSafe(method string) bool { return method == "GET" || method == "HEAD" || method == "OPTIONS" }

// hungUp reports whether err is the end of a stream on which no response had begun.
func hungUp(err error) bool {
	return err == io.EOF || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// reasonOf returns the reason that err carries, or that the broker's refusal of a stream means.
func reasonOf(err error) protocol.Reason {
	var refused *protocol.RefusedError
	var status *protocol.StatusError
	switch {
	case errors.As(err, &refused):
		return refused.Reason
	case errors.As(err, &status) && status.Status == protocol.StatusBusy:
		return protocol.ReasonStreamsExhausted
	case errors.As(err, &status):
		return protocol.ReasonSessionEnded
	}
	return protocol.ReasonBrokerUnavailable
}

// writeHead writes the request's head.
func (c *conn) writeHead(s *relay.Stream) error { return blame(s.WriteRequest(&c.req)) }

// blame turns the error of writing what the wire does not carry into a refusal: that is the client's fault.
func blame(err error) error {
	if errors.Is(err, bhttp.ErrMalformed) || errors.Is(err, bhttp.ErrTooLarge) {
		return protocol.Refuse(protocol.ReasonBadRequest, err)
	}
	return err
}
