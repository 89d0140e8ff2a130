package front

import (
	"context"
	"errors"
	"sync"
	"time"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
)

// never is no deadline.
var never time.Time

// h2CopySize is how much content is sent at once.
const h2CopySize = 64 << 10 // bytes

var h2Buffers = sync.Pool{New: func() any { return new([h2CopySize]byte) }}

// A h2Reply is what has become of a stream's response.
type h2Reply struct {
	begun bool // its head has been sent
	ended bool // its end has been sent
}

// serve serves the stream's request, which is malformed unless that is nil. It reports whether it reset the
// stream.
func (st *h2Stream) serve(ctx context.Context, head *h2Head, malformed error) (reset bool) {
	var reply h2Reply
	err := st.exchange(ctx, head, malformed, &reply)
	code, reset := st.outcome(&reply, err)
	if reset {
		st.h.w.put(func(b []byte) []byte { return appendWord(b, h2Reset, st.id, uint32(code)) })
		st.h.flushSoon()
	}
	return reset
}

// outcome returns how the stream is reset, and whether it is.
func (st *h2Stream) outcome(reply *h2Reply, err error) (h2Code, bool) {
	st.h.mu.Lock()
	defer st.h.mu.Unlock()
	var e *h2Error
	switch {
	case errors.Is(st.err, errClientReset), st.h.closed != nil:
		return 0, false
	case errors.As(st.err, &e), errors.As(err, &e):
		return e.code, true
	case !reply.ended:
		return h2InternalError, true
	case !st.ended: // nobody wants the rest of the request (RFC 9113 §8.1)
		return h2NoError, true
	}
	return 0, false
}

// exchange makes one exchange of the request. On error the response can't end, or must not.
func (st *h2Stream) exchange(ctx context.Context, head *h2Head, malformed error, reply *h2Reply) error {
	var refused *protocol.RefusedError
	switch {
	case errors.As(malformed, &refused):
		return st.refuse(head, malformed, reply)
	case errors.Is(malformed, errNoAuthority):
		return st.refuse(head, protocol.Refuse(protocol.ReasonBadAuthority, malformed), reply)
	case malformed != nil:
		err := streamError(st.id, h2ProtocolError, "%v", malformed)
		_ = st.refuse(head, protocol.Refuse(protocol.ReasonBadRequest, err), reply)
		return err
	}
	if err := st.x.request(&head.RequestHead); err != nil {
		return st.refuse(head, err, reply)
	}
	if content, whole := st.whole(); whole {
		s, err := st.x.ask(ctx, content)
		if err != nil {
			return st.refuse(head, err, reply)
		}
		return st.finish(s, nil, st.respond(head, s, nil, reply))
	}
	s, err := st.x.announce(ctx)
	if err != nil {
		return st.refuse(head, err, reply)
	}
	up := startUpload(func() error { return st.upload(s) })
	if err := s.ReadResponse(&st.x.resp); err != nil {
		st.join(s, up)
		st.x.release(s, false)
		var refused *protocol.RefusedError
		if errors.As(up.err, &refused) {
			err = refused
		}
		return st.refuse(head, err, reply)
	}
	return st.finish(s, up, st.respond(head, s, up, reply))
}

// whole returns the content if all of it has arrived and there is nothing behind it.
func (st *h2Stream) whole() ([]byte, bool) {
	st.h.mu.Lock()
	defer st.h.mu.Unlock()
	if !st.ended || len(st.content) > wholeSize || len(st.trailer) > 0 || st.err != nil {
		return nil, false
	}
	return st.content, true // which nobody appends to any more
}

// refuse answers with the reason that err carries.
func (st *h2Stream) refuse(head *h2Head, err error, reply *h2Reply) error {
	st.x.front.Log.Debug("request refused", "host", head.Host, "error", err)
	st.h.mu.Lock()
	failed := st.err
	st.h.mu.Unlock()
	if failed != nil {
		var e *h2Error
		if !errors.As(failed, &e) {
			return failed
		}
		// A reset follows, and no content goes before it.
		resp, _ := refusal(protocol.ReasonBadRequest)
		reply.begun, reply.ended = true, true
		return st.h.w.head(st.id, resp.Status, resp.Fields.Del("content-length"), true, false)
	}
	resp, content := refusal(reasonOf(err))
	if st.x.resp = resp; head.Method == "HEAD" {
		content = nil
	}
	return st.sendEnd(reply, content)
}

// finish gives the relay's stream back if both messages have ended, or aborts it. A request that is not over
// shortly after its response is of no use to anybody.
func (st *h2Stream) finish(s *relay.Stream, up *upload, err error) error {
	inTime := up.ended() // as for HTTP/1
	if err == nil && up.wait(uploadGrace) && (up == nil || up.err == nil) {
		st.x.release(s, inTime)
		return nil
	}
	st.join(s, up)
	st.x.release(s, false)
	if errors.Is(err, errAnswered) {
		return nil
	}
	return err
}

// join ends an upload that is of no more use.
func (st *h2Stream) join(s *relay.Stream, up *upload) {
	if up.ended() {
		return
	}
	s.Cut()
	st.stopReading()
	<-up.done
}

// stopReading makes next fail, and not the stream.
func (st *h2Stream) stopReading() {
	st.h.mu.Lock()
	defer st.h.mu.Unlock()
	st.unread = true
	st.arrived.Broadcast()
}
