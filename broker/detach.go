package broker

import (
	"encoding/hex"
	"errors"
	"time"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/detach"
	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol"
)

// sign answers /v1/sign: a proof for a request that the machine sends by a way of its own. What policy would not send, with this
// secret and now, gets none. The proof leaves our control, and outlives what is revoked after it, for protocol.MaxDetached at most.
// Fields that it does not sign can be added to the request; see docs/proofs.md.
func (s *live) sign(st *stream, ask *protocol.SignRequest) (*protocol.SignResponse, error) {
	if !s.record.OwnEgress() {
		return nil, protocol.Refuse(protocol.ReasonUnsupported, errors.New("a proof is wanted, and the session has no way out of its own"))
	}
	req, err := detach.Read(ask)
	if err != nil {
		return nil, protocol.Refuse(protocol.ReasonBadRequest, err)
	}
	x := &exchange{s: s, st: st, req: req, started: time.Now(), detached: true}
	s.stats.requests.Add(1)
	s.stats.busy.Add(1)
	defer func() {
		x.within.End()
		s.stats.active.Store(time.Now().UnixNano())
		s.stats.busy.Add(-1)
	}()
	answer, err := x.detach(ask)
	if err != nil {
		x.refusedProof(err)
		return nil, err
	}
	x.count(false, "")
	x.tell(200, "")
	return answer, nil
}

// detach decides on the request as on one that is to be sent, and makes its proof. It is recorded before it is handed out.
func (x *exchange) detach(ask *protocol.SignRequest) (*protocol.SignResponse, error) {
	if err := x.judge(); err != nil {
		return nil, err
	}
	if err := x.limit(); err != nil {
		return nil, err
	}
	if x.use == nil || x.bare {
		return nil, protocol.Refuse(protocol.ReasonNoSigner, errors.New("no secret is bound to what is asked for"))
	}
	held, ok := x.use.Held()
	if !ok {
		return nil, protocol.Refuse(protocol.ReasonNoSigner, errors.New("the secret's proofs may not be handed out"))
	}
	if x.asks {
		if err := x.ask(); err != nil {
			return nil, err
		}
	}
	if err := x.reauthorise(); err != nil {
		return nil, err
	}
	answer, err := detach.Answer(held, ask, upstream.HostField(x.req.Scheme, x.authority), time.Now())
	if err != nil {
		return nil, protocol.Refuse(protocol.ReasonUnsignable, err)
	}
	if err := x.harmless(answer); err != nil {
		return nil, err
	}
	r := x.record()
	r.Event, r.SHA256 = eventSignedOnly, hex.EncodeToString(ask.SHA256)
	if err := x.s.b.audit.Witness(r); err != nil {
		return nil, unrecorded(err)
	}
	x.use.Count(x.started)
	return answer, nil
}

// harmless refuses an answer that holds a part of any secret of the host's: signers make none, and this makes sure of it.
func (x *exchange) harmless(answer *protocol.SignResponse) error {
	for _, f := range answer.Fields {
		if _, runs := x.guard().matcher.Text(f.Value); runs > 0 {
			return protocol.Refuse(protocol.ReasonUnsignable, errors.New("the proof holds a part of a secret"))
		}
	}
	return nil
}

// refusedProof records that a proof was refused.
func (x *exchange) refusedProof(err error) {
	reason := reasonOf(err)
	x.s.stats.refused.Add(1)
	x.s.log.Debug("proof refused", "authority", x.req.Authority, "reason", reason.String(), "err", err)
	if reason == protocol.ReasonAuditUnavailable {
		x.s.log.Error("a proof could not be recorded, so it was not made", "err", err)
	} else if reason != protocol.ReasonSelfTest && !errors.Is(err, audit.ErrBudget) { // which was counted
		r := x.record()
		r.Event, r.Reason = eventSignRefused, reason.String()
		if err := x.s.b.audit.Event(r); err != nil && !errors.Is(err, audit.ErrBudget) {
			x.s.log.Error("recording a refusal", "err", err)
		}
	}
	x.count(true, reason.String())
	x.tell(reason.Status(), reason.String())
	x.terminate(reason)
}
