package broker

import (
	"errors"
	"time"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/mint"
	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// minting is what an exchange has to do with an access token.
type minting struct {
	source  *mint.Source // nil: its secret mints none
	purpose string
	token   *mint.Token
	unasked bool            // there is none yet: a challenge has to say how one is got
	sent    protocol.Fields // the request's, before what the workload sent as a credential was removed
	target  string
	retried bool

	held       mint.Proof // that the token's key is ours, where it is bound to one
	wantsNonce bool       // the host refused the request for want of a nonce in it
	trailed    bool       // there was something behind the request's content, which is gone
}

// errTokenRefused says that the host did not take the token, and that another one is worth a try.
var errTokenRefused = errors.New("the host does not take the token")

// retries reports whether the request is sent once more, with another token: the host refused this one before
// its time, or says how one is got, nothing can have come of the request, and no person allowed it just once. Keys that sign are
// not refused in this way: their time is known. A request that was refused for want of a nonce is sent again with one, its content
// too where all of that is still there: by RFC 9449 §9 the host has not looked at it. err says that the host wants what the
// secret is not for.
func (x *exchange) retries(resp *protocol.Response, b body) (again bool, err error) {
	if resp.Status != 401 || x.source == nil || x.signing.plan != nil {
		return false, nil
	}
	replayable := !x.retried && !x.asks && b.whole && !x.trailed
	if x.wantsNonce {
		return replayable, nil
	}
	switch x.req.Method {
	case "GET", "HEAD", "OPTIONS":
		replayable = replayable && b.length <= 0
	default:
		replayable = false
	}
	if !replayable && x.source.Meta.Inject.Scheme != control.SchemeRegistry { // whose challenge is of use to the next request
		return false, nil
	}
	another, err := x.s.b.mints.Challenged(x.source, x.purpose, x.token, resp.Fields)
	return another && replayable, err
}

// again sends the request once more, with its content b: it is decided on anew, and has a record of its own.
func (x *exchange) again(b body) (bool, error) {
	x.retried = true
	x.req.Fields, x.req.Path = x.sent, x.target
	err := x.decide(false)
	if err == nil && x.asks {
		err = protocol.Refuse(protocol.ReasonAskDenied, nil)
	}
	if err == nil {
		err = x.reauthorise()
	}
	id, berr := x.s.b.audit.Begin(x.record())
	if berr != nil {
		return false, x.fail(unrecorded(berr))
	}
	x.endRecord()
	if x.id = id; err != nil {
		return false, x.fail(err)
	}
	up, err := x.open(x.s.ctx, upstream.PoolKey{Session: x.s.id, Scheme: x.req.Scheme, Authority: x.authority, HTTP2: x.http2})
	if err != nil {
		return false, x.fail(err)
	}
	defer up.Release(false)
	if err := x.reauthorise(); err != nil {
		return false, x.fail(err)
	}
	if err := x.writeHead(up, b.length); err != nil {
		return false, x.fail(err)
	}
	return x.forwardWhole(up, b)
}

// endRecord ends the record of the first try.
func (x *exchange) endRecord() {
	x.outcome.Status, x.outcome.Duration = 401, time.Since(x.started)
	if err := x.s.b.audit.End(x.id, &x.outcome); err != nil {
		x.s.log.Error("recording an exchange's end", "err", err)
	}
	if x.coding != "" {
		x.s.decoding.Add(-1)
		x.coding = ""
	}
	x.outcome, x.started = audit.Outcome{Masked: x.outcome.Masked}, time.Now()
}
