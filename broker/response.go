package broker

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// download brings the response back: interim ones, the final head, content as it arrives, trailers.
// clean means that the response ended as it should and was passed on whole.
func (x *exchange) download(up *upstream.Exchange, b body) (clean bool, err error) {
	if err := x.readHead(up, b, &x.st.resp); err != nil {
		return false, x.fail(err)
	}
	again, err := x.retries(&x.st.resp, b)
	if err != nil {
		return false, x.fail(err)
	}
	if again {
		return false, errTokenRefused
	}
	return x.deliver(up, &x.st.resp)
}

// deliver passes on a response whose final head stands in resp.
func (x *exchange) deliver(up *upstream.Exchange, resp *protocol.Response) (clean bool, err error) {
	x.outcome.Status, x.outcome.Head = resp.Status, time.Since(x.started)
	x.s.stats.last.Store(&decided{method: x.req.Method, authority: x.name, status: resp.Status})
	if err := x.st.w.WriteResponse(resp); err != nil {
		return false, err
	}
	if up.Buffered() == 0 { // the content may be long in coming
		if err := x.st.w.Flush(); err != nil {
			return false, err
		}
	}
	left := int64(-1) // content still to come, where the response says so
	if n, err := strconv.ParseInt(resp.Fields.Get("content-length"), 10, 64); err == nil {
		left = n
	}
	content := io.Reader(up)
	if s := x.scrub(up); s != nil {
		defer s.close()
		content = s
	}
	n, err := bhttp.Copy(x.st.w, x.downward(content), func(total int64) error {
		if total == left {
			return nil // the end goes out together with the last piece
		}
		return x.st.w.Flush()
	})
	x.outcome.BytesDown = n
	if err != nil {
		return false, err
	}
	trailer, err := x.scrubTrailer(up.Trailer())
	if err != nil {
		return false, err
	}
	return true, x.st.w.Close(trailer)
}

// interims are the interim responses of one exchange.
type interims struct {
	mu        sync.Mutex // guards the stream's writer until the final response
	expect    bool       // the client waits for 100 (Continue)
	continued bool       // and has been told to go on
}

// readHead reads up to the final response head. Interim responses are passed on; to a client that
// waits for 100 (Continue) the broker says it itself when the upstream stays silent for
// ContinueTimeout.
func (x *exchange) readHead(up *upstream.Exchange, b body, resp *protocol.Response) error {
	x.interims.expect = b.expect
	if b.expect && !b.whole {
		defer x.continueLater()()
	}
	for {
		if err := up.ReadResponse(resp); err != nil {
			return err
		}
		if err := x.checkHead(resp); err != nil {
			return err
		}
		if !resp.Interim() {
			x.wantsNonce = x.token != nil && x.token.Answered(x.authority, x.held, resp)
			return nil
		}
		if err := x.interim(resp); err != nil {
			return err
		}
	}
}

// interim passes an interim response on, 100 (Continue) once and only to a client that waits for it.
func (x *exchange) interim(r *protocol.Response) error {
	x.interims.mu.Lock()
	defer x.interims.mu.Unlock()
	if r.Status == 100 {
		if x.interims.continued || !x.interims.expect {
			return nil
		}
		x.interims.continued = true
	}
	if err := x.st.w.WriteResponse(r); err != nil {
		return err
	}
	return x.st.w.Flush()
}

// continueLater says 100 (Continue) after ContinueTimeout, unless stop comes first. Once stop has returned nobody but
// the caller writes.
func (x *exchange) continueLater() (stop func()) {
	var done sync.WaitGroup
	done.Add(1)
	timer := time.AfterFunc(protocol.ContinueTimeout, func() {
		defer done.Done()
		_ = x.interim(&protocol.Response{Status: 100})
	})
	return func() {
		if timer.Stop() {
			done.Done()
		}
		done.Wait()
	}
}

// tunnel carries bytes both ways between the workload and an authority that a tunnel rule names. The
// end of content in one direction is the half-close of that direction.
func (x *exchange) tunnel(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, protocol.TunnelTimeout)
	defer cancel()
	if len(x.s.roles(x.authority)) > 0 {
		return false, x.postgres(ctx)
	}
	began := time.Now()
	conn, err := x.s.b.upstream.Tunnel(ctx, upstream.PoolKey{Session: x.s.id, Authority: x.authority})
	x.outcome.Dial = time.Since(began)
	if err != nil {
		return false, x.fail(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	if err := x.reauthorise(); err != nil {
		return false, x.fail(err)
	}
	x.outcome.Status = 200
	x.outcome.Upstream, x.outcome.Via = conn.RemoteAddr().String(), x.s.b.upstream.Via(x.authority)
	if err := x.st.w.WriteResponse(&protocol.Response{Status: 200}); err != nil {
		return false, err
	}
	if err := x.st.w.Flush(); err != nil {
		return false, err
	}
	from, done := x.watchSSH(conn)
	defer done()
	return false, x.splice(halfCloser{conn}, func() { conn.Close() }, from)
}

// A halfCloser is a connection that closes altogether where it can't close one direction.
type halfCloser struct{ net.Conn }

func (c halfCloser) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}
