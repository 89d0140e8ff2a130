package broker

import (
	"errors"
	"io"
	"time"

	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/pluginhost"
	"torno.internal/broker/internal/sign"
	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/http1"
)

// maxSigning is how much content one session may have held to be signed, in bytes. Digests that were declared and
// content that goes unsigned hold nothing.
const maxSigning = 64 << 20

// A signing is what an exchange knows of the signature of its request. The zero value is that of one that is not signed.
type signing struct {
	plan  sign.Plan   // how; nil: it is not
	proof *sign.Proof // that it is
	held  int64       // bytes of its content that are held for that
}

// planSigning learns how the request is to be signed, where its secret signs. What can't be signed is refused before
// anything is recorded as sent.
func (x *exchange) planSigning() (err error) {
	if x.use == nil || x.use.Signer == nil || x.bare || x.detached {
		return nil
	}
	if x.req.Protocol != "" {
		return protocol.Refuse(protocol.ReasonUnsupported, errors.New("a WebSocket whose handshake is to be signed"))
	}
	if x.signing.plan, err = x.use.Signer.Plan(x.unsigned()); err != nil {
		return protocol.Refuse(protocol.ReasonUnsignable, err)
	}
	return nil
}

// unsigned is the request as the signer sees it.
func (x *exchange) unsigned() *sign.Request {
	return &sign.Request{
		Method: x.req.Method, Host: upstream.HostField(x.req.Scheme, x.authority), Target: x.req.Path,
		Fields: x.req.Fields, Presign: x.terms.presign,
	}
}

// gather reads all of the content where its digest goes into the signature and the workload did not declare one. Else
// the body that it returns is the zero one.
func (x *exchange) gather() (body, error) {
	if x.signing.plan == nil || x.signing.plan.Demand() != sign.DemandWhole {
		return body{}, nil
	}
	if n, ok, err := http1.ContentLength(x.req.Fields); err != nil {
		return body{}, protocol.Refuse(protocol.ReasonBadRequest, err)
	} else if ok && n > sign.MaxContent {
		return body{}, errTooLong
	}
	if expectsContinue(x.req.Fields) && x.st.r.Buffered() == 0 {
		x.interims.expect = true
		if err := x.interim(&protocol.Response{Status: 100}); err != nil {
			return body{}, err
		}
	}
	b := body{whole: true}
	from := x.upward(x.st.r)
	for {
		if len(b.first) == cap(b.first) {
			grown := min(max(2*cap(b.first), 4<<10), sign.MaxContent+1)
			if err := x.hold(int64(grown - cap(b.first))); err != nil {
				return body{}, err
			}
			b.first = append(make([]byte, 0, grown), b.first...)
		}
		n, err := from.Read(b.first[len(b.first):cap(b.first)])
		b.first = b.first[:len(b.first)+n]
		if len(b.first) > sign.MaxContent {
			return body{}, errTooLong
		}
		if errors.Is(err, io.EOF) {
			b.length = int64(len(b.first))
			return b, nil
		}
		if err != nil {
			return body{}, err
		}
	}
}

var errTooLong = protocol.Refuse(protocol.ReasonUnsignable, errors.New("content without a declared digest, too long to be held"))

// hold reserves n bytes of what the session may hold, until the exchange ends.
func (x *exchange) hold(n int64) error {
	if x.s.signing.Add(n) > maxSigning {
		x.s.signing.Add(-n)
		return protocol.Refuse(protocol.ReasonStreamsExhausted, errors.New("too much content is held to be signed"))
	}
	x.signing.held += n
	return nil
}

// sign makes the proof for the request as it goes out, at the host's time.
func (x *exchange) sign(b *body) error {
	if x.signing.plan == nil {
		return nil
	}
	if x.signing.plan.Demand() == sign.DemandChunks {
		if err := x.hold(sign.MaxHeld); err != nil {
			return err
		}
	}
	x.req.Fields = x.use.StripFields(x.req.Fields)
	r := x.unsigned()
	r.Content, r.Whole, r.Length = b.first, b.whole, b.length
	var err error
	if x.signing.proof, err = x.prove(r); err != nil {
		return err
	}
	b.signed = x.signing.proof.Content
	return nil
}

// prove signs r with the secret, or with the keys that were got for it.
func (x *exchange) prove(r *sign.Request) (proof *sign.Proof, err error) {
	switch {
	case !x.use.Mints():
		proof, err = x.use.Sign(x.signing.plan, r, time.Now())
	case !x.minted():
		return nil, protocol.Refuse(protocol.ReasonCredential, errChanged)
	default:
		proof, err = x.signing.plan.Sign(x.token.Value, r, time.Now())
	}
	var away *pluginhost.Error
	if errors.As(err, &away) {
		return nil, protocol.Refuse(protocol.ReasonCredential, err)
	}
	if err != nil {
		return nil, protocol.Refuse(protocol.ReasonUnsignable, err)
	}
	return proof, nil
}

// proof returns the fields that the request is signed by. The caller wipes them.
func (x *exchange) proof() []credential.Field {
	fields := make([]credential.Field, 0, len(x.signing.proof.Fields))
	for _, f := range x.signing.proof.Fields {
		fields = append(fields, credential.Field(f))
	}
	return fields
}

// signingEnv is what SDKs must find to start, where secrets of the session sign for them: the region and, where one has a
// placeholder, keys. With several the workload says which by the placeholder that it takes as its key's id.
func (s *live) signingEnv() []string {
	var env []string
	region, found := s.region(), 0
	for _, sec := range s.secrets().OfCloud(control.CloudAWS) {
		if p := sec.Placeholder; p != "" {
			env = []string{"AWS_ACCESS_KEY_ID=" + p, "AWS_SECRET_ACCESS_KEY=" + p}
			region = sec.Meta.Inject.Param(control.ParamRegion)
			found++
		}
	}
	if found > 1 {
		env, region = nil, s.region()
	}
	if region != "" {
		env = append(env, "AWS_REGION="+region, "AWS_DEFAULT_REGION="+region)
	}
	return env
}

// region returns the region that all secrets of AWS's are for, or "".
func (s *live) region() string {
	region := ""
	for i, sec := range s.secrets().OfCloud(control.CloudAWS) {
		r := sec.Meta.Inject.Param(control.ParamRegion)
		if i > 0 && r != region {
			return ""
		}
		region = r
	}
	return region
}
