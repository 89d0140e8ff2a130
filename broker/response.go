package broker

import (
	"context"
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
	var resp protocol.Response
	if err := x.readHead(up, b, &resp); err != nil {
		return false, x.fail(err)
	}
	return x.deliver(up, &resp)
}

// deliver passes on a response whose final head stands in resp.
func (x *exchange) deliver(up *upstream.Exchange, resp *protocol.Response) (clean bool, err error) {
	x.outcome.Status = resp.Status
	x.s.stats.setLast(x.req.Method, x.authority.String(), strconv.Itoa(resp.Status))
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
	content, done := x.scrub(up)
	defer done()
	n, err := bhttp.Copy(x.st.w, content, func(total int64) error {
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

// readHead reads up to the final response head. Interim responses are passed on; to a client that
// waits for 100 (Continue) the broker says it itself when the upstream stays silent for
// ContinueTimeout.
func (x *exchange) readHead(up *upstream.Exchange, b body, resp *protocol.Response) error {
	var mu sync.Mutex // guards the writer, until stop has returned
	continued := false
	interim := func(r *protocol.Response) error {
		mu.Lock()
		defer mu.Unlock()
		if r.Status == 100 {
			if continued || !b.expect {
				return nil
			}
			continued = true
		}
		if err := x.st.w.WriteResponse(r); err != nil {
			return err
		}
		return x.st.w.Flush()
	}
	if b.expect && !b.whole {
		var done sync.WaitGroup
		done.Add(1)
		timer := time.AfterFunc(protocol.ContinueTimeout, func() {
			defer done.Done()
			_ = interim(&protocol.Response{Status: 100})
		})
		defer func() {
			if timer.Stop() {
				done.Done()
			}
			done.Wait()
		}()
	}
	for {
		if err := up.ReadResponse(resp); err != nil {
			return err
		}
		if err := x.checkHead(resp); err != nil {
			return err
		}
		if !resp.Interim() {
			return nil
		}
		if err := interim(resp); err != nil {
			return err
		}
	}
}

// tunnel carries bytes both ways between the workload and an authority that a tunnel rule names. The
// end of content in one direction is the half-close of that direction.
func (x *exchange) tunnel(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, protocol.TunnelTimeout)
	defer cancel()
	conn, err := x.s.b.upstream.Tunnel(ctx, upstream.PoolKey{Session: x.s.id, Authority: x.authority})
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
	return false, x.splice(halfCloser{conn}, func() { conn.Close() }, conn)
}

// A halfCloser is a connection that closes altogether where it can't close one direction.
type halfCloser struct{ net.Conn }

func (c halfCloser) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}
