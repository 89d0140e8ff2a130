package front

import (
	"errors"
	"io"
	"time"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/http1"
)

// errAnswered means that the broker failed and the client was told so in time.
var errAnswered = errors.New("answered by the guest")

// respond passes the response on whose first head stands in c.resp: interim ones, the head, content as it
// arrives, trailers. It reports whether the connection can carry another request. On error the response
// has begun and cannot end, unless that is errAnswered.
func (c *conn) respond(head *http1.RequestHead, s *relay.Stream, up *upload) (keep bool, err error) {
	continued := false
	for c.resp.Interim() {
		continued = continued || c.resp.Status == 100
		if err := c.interim(head); err != nil {
			return false, err
		}
		if err := s.ReadResponse(&c.resp); err != nil {
			c.joinUpload(s, up)
			c.refused(head, err, false)
			return false, errAnswered
		}
	}
	length, closing := framing(head, &c.resp)
	if (c.resp.Status >= 400 || head.ExpectContinue && !continued) && !up.wait(earlyGrace) {
		closing = true // the rest of the request will not be read
	}
	old := head.Proto == "HTTP/1.0"
	if err := c.w.WriteResponse(c.resp.Status, c.resp.Fields, length, length == http1.Unknown && !old, closing); err != nil {
		return false, err
	}
	if s.Buffered() == 0 { // the content may be long in coming
		if err := c.w.Flush(); err != nil {
			return false, err
		}
	}
	if err := c.download(s, length); err != nil {
		if length == http1.Unknown && old {
			c.reset()
		}
		return false, err
	}
	return !closing, nil
}

// earlyGrace is how long an error's head waits for the end of the request, which has most often come.
const earlyGrace = 5 * time.Millisecond

// download passes content and trailers on. Nothing is held back but the end, which goes out together with
// the last piece where that is known or has arrived.
func (c *conn) download(s *relay.Stream, length int64) error {
	_, err := bhttp.Copy(c.w, s, func(total int64) error {
		if total == length || s.Buffered() > 0 {
			return nil
		}
		return c.w.Flush()
	})
	if err != nil {
		return err
	}
	if err := s.ReadTrailer(&c.trailer); err != nil {
		return err
	}
	return c.w.Close(c.trailer)
}

// interim passes an interim response on, but 100 (Continue) to clients that did not ask, and any to
// those of HTTP/1.0, which know none.
func (c *conn) interim(head *http1.RequestHead) error {
	if head.Proto == "HTTP/1.0" || c.resp.Status == 100 && !head.ExpectContinue {
		return nil
	}
	if err := c.w.WriteResponse(c.resp.Status, c.resp.Fields, http1.NoContent, false, false); err != nil {
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

// refused logs why a request gets no response of the broker's and answers it with the reason. It reports
// whether the connection can go on, which it can if the request was read to its end.
func (c *conn) refused(head *http1.RequestHead, err error, whole bool) bool {
	c.front.Log.Debug("request refused", "host", head.Host, "error", err)
	return c.refuse(head.Method, reasonOf(err), whole)
}

// refuse answers with reason and reports whether the connection can go on, which it can if the request
// was read to its end.
func (c *conn) refuse(method string, reason protocol.Reason, whole bool) bool {
	resp, content := refusal(reason)
	return c.write(method, &resp, content, whole)
}

// refusal returns the response that says reason, and its content.
func refusal(reason protocol.Reason) (protocol.Response, []byte) {
	resp, content := protocol.Refusal(reason)
	if resp.Status == 503 || resp.Status == 429 {
		resp.Fields = append(resp.Fields, protocol.Field{Name: "retry-after", Value: "1"})
	}
	return resp, content
}

// refuseMalformed answers to what is no request; the connection is then of no use.
func (c *conn) refuseMalformed(e *http1.Error) {
	resp, content := protocol.Refusal(e.Reason)
	resp.Status = e.Status
	c.write("", &resp, content, false)
}

func (c *conn) write(method string, resp *protocol.Response, content []byte, keep bool) bool {
	_ = c.nc.SetWriteDeadline(time.Now().Add(protocol.HeadTimeout))
	length := int64(len(content))
	if method == "HEAD" {
		length, content = http1.NoContent, nil
	}
	err := c.w.WriteResponse(resp.Status, resp.Fields, length, false, !keep)
	if err == nil {
		_, err = c.w.Write(content)
	}
	if err == nil {
		err = c.w.Close(nil)
	}
	_ = c.nc.SetWriteDeadline(time.Time{})
	return keep && err == nil
}

// drained reads the content of a refused request away if it has arrived already.
func (c *conn) drained(head *http1.RequestHead) bool {
	if !c.arrived(head) || head.ExpectContinue || !head.KeepAlive || head.Method == "CONNECT" {
		return false
	}
	_, err := io.Copy(io.Discard, c.r)
	return err == nil
}

// linger ends the connection in an orderly way: our end first, and then a moment for the client's, since
// closing with bytes unread would reset the connection and the client might lose the answer.
func (c *conn) linger() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
}

const (
	lingerTimeout = 2 * time.Second
	lingerBytes   = 256 << 10
)

// reset makes the connection's end an error to the client: where the end is all that tells a whole
// response from one cut short, an orderly one would be a lie.
func (c *conn) reset() {
	if tcp, ok := c.tcp.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
}
