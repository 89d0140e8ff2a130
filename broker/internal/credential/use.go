package credential

import (
	"errors"
	"fmt"
	"time"

	"torno.internal/broker/internal/sign"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// StripFields removes from f, headers or trailers, what the workload sent where u sets its own. It works
// in place and returns the shortened section.
func (u *Use) StripFields(f protocol.Fields) protocol.Fields {
	strip := u.strip()
	return f.DelFunc(func(l protocol.Field) bool { return strip(l.Name) })
}

func (u *Use) strip() func(name string) bool {
	if u.Signer != nil {
		return u.Signer.Strip
	}
	return u.Injector.Strip
}

// Count counts a request that the secret is used for.
func (u *Use) Count(now time.Time) {
	if u.secret.Used != nil {
		u.secret.Used(now)
	}
}

// Fields makes the fields that authorise req, which is as the workload sent it, in fresh memory. The caller
// wipes each value once the request is sent. The secret is checked anew, so that nothing which would split a
// request leaves whatever became of it since it was set.
func (u *Use) Fields(req *protocol.Request) ([]Field, error) {
	switch {
	case u.Signer != nil:
		return nil, errors.New("the secret signs, and is put into nothing")
	case u.Mints():
		return nil, errMints
	case u.identity != nil: // it was checked when the handshake was made
		return nil, nil
	}
	if err := u.check(); err != nil {
		return nil, err
	}
	return u.Injector.Apply(u.secret.Value, req)
}

// Sign makes the proof that p, which u's signer made, plans for r. The secret is checked anew: what its scheme wants of
// it, p knows.
func (u *Use) Sign(p sign.Plan, r *sign.Request, now time.Time) (*sign.Proof, error) {
	if u.Mints() {
		return nil, errMints
	}
	proof, err := (*sign.Proof)(nil), error(nil)
	if u.secret.Away == nil {
		err = u.secret.Value.Use(control.CheckAnyValue)
	}
	if err == nil {
		proof, err = p.Sign(u.secret.Value, r, now)
	}
	if err != nil {
		return nil, fmt.Errorf("secret %s version %d: %w", u.Name, u.Version, err)
	}
	return proof, nil
}

// Held returns the secret as one whose proofs may be handed out, if it is one: nothing else can be had of what it returns.
func (u *Use) Held() (*sign.Held, bool) {
	if u.Signer == nil || u.Mints() {
		return nil, false
	}
	return sign.Hold(u.Signer, u.secret.Value)
}

func (u *Use) check() error {
	err := u.secret.Value.Use(func(b []byte) error { return control.CheckValue(u.secret.Meta, b) })
	if err != nil {
		return fmt.Errorf("secret %s version %d: %w", u.Name, u.Version, err)
	}
	return nil
}
