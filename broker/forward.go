package broker

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/limit"
	"torno.internal/broker/internal/policy"
	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// An exchange is one request of the workload and its response. One goroutine owns it; a second one
// carries the request's content upstream while the first brings the response back.
type exchange struct {
	s         *live
	st        *stream
	req       *protocol.Request
	authority protocol.Authority
	name      string // of the authority, as text
	http2     bool   // the workload speaks HTTP/2, as the guest tells it
	dialled   string // the address that the workload connected to, as the guest tells it
	decision  policy.Decision
	asks      bool   // a person has to decide
	approval  string // what they said, and as whom
	terms     *terms // by which it was decided
	within    *limit.Use
	over      atomic.Pointer[limit.Exceeded] // the limit that it is beyond
	spoiled   atomic.Uint32                  // the protocol.Reason why its content can't be carried to its end; 0: it can
	role      *control.Meta                  // of a tunnel to a database: the one password that is bound to it
	use       *credential.Use                // nil: no secret is bound to this origin
	as        *credential.Use                // whose certificate the connection is made with; nil: nobody's
	bare      bool                           // this path does not get the credential, but neither the workload's own
	detached  bool                           // only its proof is wanted: somebody else sends it
	guarded   *guarded                       // nil: no secret is bound to this authority, answers pass as they are
	read      bool                           // the guest's request was read to its end
	coding    string                         // of the answer's content, which is decoded; empty: none, or left as it is
	id        audit.ID
	outcome   audit.Outcome
	cloud     control.Cloud // whose metadata service is asked, for which the broker answers; empty: none's
	interims  interims
	signing   signing
	started   time.Time
	minting
	all  []reading // what the request may be taken for
	room [2]reading
}

// drainLimit is how much content of a refused request is read away so that the stream can be used
// again; a guest with more to send has its stream closed.
const drainLimit = 64 << 10 // bytes

// earlyWait is how long a request may go on once its response has ended.
const earlyWait = 2 * time.Second

// exchange serves one exchange whose request head stands in st.req. It reports whether the stream can
// carry another.
func (s *live) exchange(ctx context.Context, st *stream) (reusable bool, err error) {
	x := &exchange{s: s, st: st, req: &st.req, started: time.Now()}
	s.stats.requests.Add(1)
	s.stats.busy.Add(1)
	defer func() {
		err = x.masked(err) // which is logged
		x.within.End()
		s.stats.active.Store(int64(time.Since(s.b.started)))
		s.stats.busy.Add(-1)
	}()
	if err := x.judge(); err != nil {
		return x.refuse(err)
	}
	if err := x.limit(); err != nil {
		return x.refuse(err)
	}
	if x.asks {
		if err := x.ask(); err != nil {
			return x.refuse(err)
		}
	}
	if x.id, err = s.b.audit.Begin(x.record()); err != nil {
		return x.refuse(unrecorded(err))
	}
	defer func() {
		if x.coding != "" {
			x.s.decoding.Add(-1)
		}
		x.s.signing.Add(-x.signing.held)
		x.outcome.Duration = time.Since(x.started)
		x.s.stats.count(&x.outcome)
		if err := x.s.b.audit.End(x.id, &x.outcome); err != nil {
			x.s.log.Error("recording an exchange's end", "err", err)
		}
		x.count(false, x.outcome.Reason)
		x.tell(x.outcome.Status, x.outcome.Reason)
	}()
	if x.use != nil && !x.bare {
		x.use.Count(x.started)
	}
	switch {
	case x.cloud != "":
		return x.answerMetadata()
	case x.req.Protocol != "":
		return x.websocket(ctx)
	case x.req.Method == "CONNECT":
		return x.tunnel(ctx)
	}
	return x.forward()
}

// refuse answers with err's reason and records it. It reports whether the stream can be used again.
func (x *exchange) refuse(err error) (bool, error) {
	reason := reasonOf(err)
	x.s.stats.refused.Add(1)
	x.s.log.Debug("exchange refused", "authority", x.req.Authority, "reason", reason.String(), "err", x.masked(err))
	if reason == protocol.ReasonAuditUnavailable {
		x.s.log.Error("an exchange could not be recorded, so it did not happen", "err", err)
	} else if reason != protocol.ReasonSelfTest && !errors.Is(err, audit.ErrBudget) { // which was counted
		r := x.record()
		r.Reason = reason.String()
		if err := x.s.b.audit.Event(r); err != nil && !errors.Is(err, audit.ErrBudget) {
			x.s.log.Error("recording a refusal", "err", err)
		}
	}
	x.s.stats.last.Store(&decided{method: x.req.Method, authority: x.req.Authority, reason: reason.String()})
	x.count(true, reason.String())
	x.tell(reason.Status(), reason.String())
	defer x.terminate(reason)
	if err := x.answer(reason); err != nil {
		return false, err
	}
	if x.terminates(reason) {
		return false, nil
	}
	return x.drain()
}

// answer writes the refusal for reason.
func (x *exchange) answer(reason protocol.Reason) error {
	resp, content := protocol.Refusal(reason)
	if resp.Status == 503 || resp.Status == 429 {
		resp.Fields = append(resp.Fields, protocol.Field{Name: "retry-after", Value: x.retryAfter()})
	}
	if err := x.st.w.WriteResponse(&resp); err != nil {
		return err
	}
	if x.req.Method != "HEAD" {
		if _, err := x.st.w.Write(content); err != nil {
			return err
		}
	}
	return x.st.w.Close(nil)
}

// drain reads the request's content away, if it is short, and reports whether the stream can be used
// again.
func (x *exchange) drain() (bool, error) {
	_ = x.st.conn.SetReadDeadline(time.Now().Add(earlyWait))
	_, err := io.CopyN(io.Discard, x.st.r, drainLimit)
	if !errors.Is(err, io.EOF) {
		return false, nil
	}
	var trailer protocol.Fields
	return x.st.r.ReadTrailer(&trailer) == nil, nil
}

// forward sends the request upstream and brings the response back.
func (x *exchange) forward() (bool, error) {
	body, err := x.gather()
	if err != nil {
		if err := x.fail(err); err != nil {
			return false, err
		}
		return x.drain()
	}
	key := upstream.PoolKey{Session: x.s.id, Scheme: x.req.Scheme, Authority: x.authority, HTTP2: x.http2}
	up, err := x.open(x.s.ctx, key) // the stream's own context ends after the exchange
	if err != nil {
		if err := x.fail(err); err != nil {
			return false, err
		}
		return x.drain()
	}
	defer up.Release(false) // nothing if finish has released it
	if err := x.reauthorise(); err != nil {
		return false, x.fail(err)
	}
	if !body.whole {
		if body, err = x.content(); err != nil {
			return false, x.fail(err)
		}
	}
	if err := x.sign(&body); err != nil {
		return false, x.fail(err)
	}
	done, err := x.substitute(&body)
	defer done()
	if err != nil {
		return false, x.fail(err)
	}
	if err := x.writeHead(up, body.length); err != nil {
		return false, x.fail(err)
	}
	if !body.whole {
		return x.forwardStreamed(up, body)
	}
	return x.forwardWhole(up, body)
}

// forwardWhole sends content that has arrived, and then brings the response back.
func (x *exchange) forwardWhole(up *upstream.Exchange, body body) (bool, error) {
	uploadErr := x.upload(up, body)
	x.s.watch.add(x.st, up) // an upload would notice by itself that the guest is gone
	defer x.s.watch.remove(x.st)
	clean, err := x.download(up, body)
	if errors.Is(err, errTokenRefused) {
		up.Release(false)
		return x.again(body)
	}
	x.cut(up, clean, err)
	return x.finish(up, uploadErr, clean, err)
}

// open connects upstream, or takes a connection that stands.
func (x *exchange) open(ctx context.Context, key upstream.PoolKey) (*upstream.Exchange, error) {
	if err := x.mint(ctx); err != nil {
		return nil, err
	}
	key.Identity = x.identify()
	began := time.Now()
	up, err := x.s.b.upstream.Open(ctx, key)
	if err != nil {
		x.outcome.Dial = time.Since(began)
		return nil, err
	}
	if !up.Reused() {
		x.outcome.Dial = time.Since(began)
	}
	x.outcome.Upstream, x.outcome.Via = up.Remote(), x.s.b.upstream.Via(x.authority)
	return up, nil
}

// forwardStreamed carries the request's content on while the response comes back.
func (x *exchange) forwardStreamed(up *upstream.Exchange, b body) (bool, error) {
	uploaded := x.s.beside(func() error { return x.upload(up, b) }, up.Abort)
	clean, err := x.download(up, b)
	x.cut(up, clean, err)
	uploadErr, ended := join(uploaded)
	if !ended { // the response is complete, the request is not: the guest should have aborted
		x.st.conn.Close()
		up.Abort()
		<-uploaded
		return false, err
	}
	return x.finish(up, uploadErr, clean, err)
}

// reauthorise asks once more, now that the connection is there: a secret that was revoked or has expired while it was
// dialled, or while a person was asked, is not sent, and one that is revoked from here on cuts the connection. The same goes for a session
// that is suspended. A newer version is for the next request: this one is recorded with its own.
func (x *exchange) reauthorise() error {
	if x.s.suspended.Load() {
		return protocol.Refuse(protocol.ReasonReflection, nil)
	}
	granted := x.approval == askGranted // which may have been taken back
	if granted || x.terms != x.s.terms.Load() {
		if err := x.decide(x.connect()); err != nil {
			return err
		}
		if granted && x.asks {
			return protocol.Refuse(protocol.ReasonAskDenied, nil)
		}
	}
	if x.use == nil {
		return nil
	}
	return x.s.secrets().Usable(x.use, x.authority)
}

// writeHead sends the request's head.
func (x *exchange) writeHead(up *upstream.Exchange, length int64) error {
	return x.authorised(func(creds []credential.Field) error { return up.WriteHead(x.req, creds, length) })
}

// cut ends both connections of an exchange whose response did not end as it should.
func (x *exchange) cut(up *upstream.Exchange, clean bool, err error) {
	if err != nil || !clean {
		up.Abort()
		x.st.conn.Close()
	}
}

// finish decides, once both messages have ended, whether both connections can be used again, and settles the outcome.
func (x *exchange) finish(up *upstream.Exchange, uploadErr error, clean bool, err error) (bool, error) {
	switch {
	case err != nil || !clean:
		x.outcome.Aborted = err != nil
		x.blame()
		return false, err
	case uploadErr == nil:
		up.Release(true)
		return true, nil
	case x.read: // the guest did all that it had to; what the upstream did not take is its own affair
		return true, nil
	}
	return false, nil
}

// join waits for the upload's end, but not long.
func join(uploaded <-chan error) (err error, ended bool) {
	select {
	case err = <-uploaded:
		return err, true
	default:
	}
	early := time.NewTimer(earlyWait)
	defer early.Stop()
	select {
	case err = <-uploaded:
		return err, true
	case <-early.C:
		return nil, false
	}
}

// fail answers an exchange that was begun and got no response.
func (x *exchange) fail(err error) error {
	reason := reasonOf(err)
	if r := x.whyCut(); r != protocol.ReasonNone { // whatever came of it
		reason = r
	}
	x.outcome.Reason = reason.String()
	x.outcome.Status = reason.Status()
	x.s.log.Info("exchange failed", "authority", x.name, "reason", reason.String(), "err", x.masked(err))
	x.s.stats.last.Store(&decided{method: x.req.Method, authority: x.req.Authority, reason: reason.String()})
	return x.answer(reason)
}

// reasonOf returns the reason that err carries; an error without one is our own fault.
func reasonOf(err error) protocol.Reason {
	var r *protocol.RefusedError
	if errors.As(err, &r) {
		return r.Reason
	}
	return protocol.ReasonInternal
}
