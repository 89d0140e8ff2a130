package front

import (
	"context"
	"errors"
	"io"
	"time"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/http1"
)

// exchange serves one request whose head was read. It reports whether the connection can carry another.
func (c *conn) exchange(ctx context.Context, head *http1.RequestHead) (keep bool, err error) {
	req, err := c.request(head)
	if err != nil {
		c.front.Log.Debug("request refused", "host", head.Host, "error", err)
		return c.refuse(reasonOf(err), c.drained(head)), nil
	}
	s, err := c.send(ctx, head, req)
	if err != nil {
		c.front.Log.Debug("request not sent", "host", head.Host, "error", err)
		return c.refuse(reasonOf(err), c.drained(head)), nil
	}
	uploaded := make(chan error, 1)
	stop := func() {}
	if c.r.Done() {
		uploaded <- nil
		stop = c.watch(s) // an upload would notice by itself
	} else {
		go func() { uploaded <- c.upload(s) }()
	}
	whole, err := c.respond(head, s)
	stop()
	return c.finish(s, uploaded, whole && head.KeepAlive, err)
}

// uploadGrace is how long a request may go on once its response has ended. Most have ended by then and
// only need to say so; the rest of any other is of no use to anybody.
const uploadGrace = 250 * time.Millisecond

// finish joins the upload and gives the stream back, or aborts it.
func (c *conn) finish(s *relay.Stream, uploaded <-chan error, keep bool, err error) (bool, error) {
	grace := time.NewTimer(uploadGrace)
	defer grace.Stop()
	if err != nil {
		s.Cut()
	}
	select {
	case uploadErr := <-uploaded:
		if err == nil && uploadErr == nil {
			s.Release()
			return keep, nil
		}
		s.Abort()
		return false, errors.Join(err, uploadErr)
	case <-grace.C:
		s.Cut()
		_ = c.tcp.SetReadDeadline(time.Now())
		<-uploaded
		s.Abort()
		return false, err
	}
}

// send writes the request's head, and its content as far as that has arrived, to a stream. A stream that
// the broker closed while it was idle is replaced, as long as nothing of the content was read.
func (c *conn) send(ctx context.Context, head *http1.RequestHead, req *protocol.Request) (*relay.Stream, error) {
	s, err := c.front.Pool.Open(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.WriteRequest(req); err != nil {
		s.Abort()
		return nil, protocol.Refuse(protocol.ReasonBadRequest, err)
	}
	if err := c.sendBuffered(head, s); err != nil {
		s.Abort()
		return nil, protocol.Refuse(protocol.ReasonBrokerUnavailable, err)
	}
	return s, nil
}

// sendBuffered sends a request that has arrived whole, which most have, in one write and without a
// goroutine. Of any other it sends the head.
func (c *conn) sendBuffered(head *http1.RequestHead, s *relay.Stream) error {
	if head.ContentLength < 0 || head.ContentLength > int64(c.r.Buffered()) {
		return s.Flush()
	}
	if _, err := bhttp.Copy(s, c.r, func(int64) error { return nil }); err != nil {
		return err
	}
	return s.CloseWrite(nil)
}

// upload carries the request's content and trailers.
func (c *conn) upload(s *relay.Stream) error {
	if _, err := bhttp.Copy(s, c.r, func(int64) error { return s.Flush() }); err != nil {
		s.Cut() // the client is gone, or has sent what is no content: the broker must not take it for whole
		return err
	}
	return s.CloseWrite(c.r.Trailer())
}

// respond passes the response on: interim ones, the head, content as it arrives, trailers. whole means
// that it ended as it should.
func (c *conn) respond(head *http1.RequestHead, s *relay.Stream) (whole bool, err error) {
	var resp protocol.Response
	for {
		if err := s.ReadResponse(&resp); err != nil {
			return c.refuse(reasonOf(err), false), err
		}
		if !resp.Interim() {
			break
		}
		if err := c.interim(head, &resp); err != nil {
			return false, err
		}
	}
	length, closing := framing(head, &resp)
	old := head.Proto == "HTTP/1.0"
	if err := c.w.WriteResponse(resp.Status, resp.Fields, length, length == http1.Unknown && !old, closing); err != nil {
		return false, err
	}
	if s.Buffered() == 0 {
		if err := c.w.Flush(); err != nil {
			return false, err
		}
	}
	_, err = bhttp.Copy(c.w, s, func(total int64) error {
		if total == length {
			return nil // the end goes out together with the last piece
		}
		return c.w.Flush()
	})
	if err != nil {
		return false, err // without an end: the client must not take it for whole
	}
	var trailer protocol.Fields
	if err := s.ReadTrailer(&trailer); err != nil {
		return false, err
	}
	return !closing, c.w.Close(trailer)
}

// interim passes an interim response on, but 100 (Continue) to clients that did not ask, and any to
// those of HTTP/1.0, which know none.
func (c *conn) interim(head *http1.RequestHead, resp *protocol.Response) error {
	if head.Proto == "HTTP/1.0" || resp.Status == 100 && !head.ExpectContinue {
		return nil
	}
	if err := c.w.WriteResponse(resp.Status, resp.Fields, http1.NoContent, false, false); err != nil {
		return err
	}
	return c.w.Flush()
}

// framing decides how the response's content is framed for the client.
func framing(head *http1.RequestHead, resp *protocol.Response) (length int64, closing bool) {
	closing = !head.KeepAlive
	if protocol.NoContent(head.Method, resp.Status) {
		return http1.NoContent, closing
	}
	if n, ok, err := http1.ContentLength(resp.Fields); err == nil && ok {
		return n, closing
	}
	return http1.Unknown, closing || head.Proto == "HTTP/1.0"
}

// refuse answers with reason and reports whether the connection can go on, which it can if the request
// was read to its end.
func (c *conn) refuse(reason protocol.Reason, whole bool) bool {
	resp, content := protocol.Refusal(reason)
	if resp.Status == 503 || resp.Status == 429 {
		resp.Fields = append(resp.Fields, protocol.Field{Name: "retry-after", Value: "1"})
	}
	return c.write(&resp, content, whole)
}

// refuseMalformed answers to what is no request, and closes.
func (c *conn) refuseMalformed(e *http1.Error) {
	resp, content := protocol.Refusal(e.Reason)
	resp.Status = e.Status
	c.write(&resp, content, false)
}

func (c *conn) write(resp *protocol.Response, content []byte, keep bool) bool {
	_ = c.nc.SetWriteDeadline(time.Now().Add(protocol.HeadTimeout))
	err := c.w.WriteResponse(resp.Status, resp.Fields, int64(len(content)), false, !keep)
	if err == nil {
		_, err = c.w.Write(content)
	}
	if err == nil {
		err = c.w.Close(nil)
	}
	_ = c.nc.SetWriteDeadline(time.Time{})
	if err == nil && !keep {
		c.linger()
	}
	return keep && err == nil
}

// linger reads on for a moment before the connection is closed: closing with bytes unread would reset it,
// and the client might lose the answer.
func (c *conn) linger() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
}

const lingerBytes = 256 << 10

// drained reads the content of a refused request away if it has arrived already.
func (c *conn) drained(head *http1.RequestHead) bool {
	if head.ContentLength < 0 || head.ContentLength > int64(c.r.Buffered()) || head.ExpectContinue || !head.KeepAlive || head.Method == "CONNECT" {
		return false
	}
	_, err := io.Copy(io.Discard, c.r)
	return err == nil
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
