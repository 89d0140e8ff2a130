package broker

import (
	"errors"
	"time"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
)

// authorised strips what the workload sent of the credential's own fields and calls write with ours.
func (x *exchange) authorised(write func([]credential.Field) error) error {
	if x.use == nil {
		return write(nil)
	}
	var fields []credential.Field
	if x.bare {
		x.req.Path = x.use.StripTarget(x.req.Path)
	} else {
		var err error
		if fields, err = x.credentials(); err != nil {
			return refusal(err)
		}
	}
	defer func() {
		for _, f := range fields {
			f.Value.Wipe()
		}
	}()
	x.req.Fields = x.use.StripFields(x.req.Fields)
	return write(fields)
}

// identify returns who the broker is towards the host, and remembers it.
func (x *exchange) identify() *credential.Identity {
	x.as = nil
	if x.use != nil && !x.bare && x.use.Identity() != nil {
		x.as = x.use
		return x.use.Identity()
	}
	return nil
}

var errChanged = errors.New("the secret changed on the way")

// credentials makes the fields that authorise the request.
func (x *exchange) credentials() ([]credential.Field, error) {
	if x.signing.proof != nil {
		return x.proof(), nil
	}
	if x.use.Identity() != nil && (x.as == nil || x.as.Name != x.use.Name || x.as.Version != x.use.Version) {
		return nil, protocol.Refuse(protocol.ReasonCredential, errChanged)
	}
	if !x.use.Mints() {
		return x.use.Fields(x.req)
	}
	if x.unasked && x.ofSource() {
		return nil, nil
	}
	if !x.minted() {
		return nil, protocol.Refuse(protocol.ReasonCredential, errChanged)
	}
	if !x.token.Bound() {
		return x.use.TokenFields(x.token.Value, x.req)
	}
	var err error
	if x.held, err = x.token.Prove(x.method(), x.authority, x.req.Path, time.Now()); err != nil {
		return nil, err
	}
	fields, err := x.use.TokenFields(x.token.Value, x.req)
	return append(fields, credential.Field{Name: "dpop", Value: x.held.Value}), err
}

// minted reports whether the token that the exchange has is of the secret that it goes out with.
func (x *exchange) minted() bool { return x.token != nil && x.ofSource() }

// ofSource reports whether the secret that the exchange asked a token with is the one that it goes out with.
func (x *exchange) ofSource() bool {
	return x.source != nil && x.source.Meta.Name == x.use.Name && x.source.Meta.Version == x.use.Version
}

// refusal returns err, as our own fault where it says no reason.
func refusal(err error) error {
	var r *protocol.RefusedError
	if errors.As(err, &r) {
		return err
	}
	return protocol.Refuse(protocol.ReasonInternal, err)
}
