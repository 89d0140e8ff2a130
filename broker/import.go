package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/store"
	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
)

// importSkew is how far the clock of the machine that sealed a secret may be ahead of ours.
const importSkew = 5 * time.Minute

// LookupPreset returns the preset that a secret called key means, for who seals it where no broker runs.
func LookupPreset(key string) (control.Preset, bool) { return credential.Lookup(key) }

// importSecrets stores secrets that were sealed on another machine, all or none. Each is opened and sealed anew
// with the version that it becomes. One that is no newer than what its name has, or had when it was deleted, is
// refused: it was imported before, or set aside for something newer.
func (b *Broker) importSecrets(_ context.Context, req control.Import) ([]control.SecretInfo, error) {
	if len(req.Secrets) == 0 || len(req.Secrets) > control.MaxImport {
		return nil, &control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf("%d secrets, 1 to %d are imported at once", len(req.Secrets), control.MaxImport)}
	}
	sealed := make([]control.SealedSecret, 0, len(req.Secrets))
	infos := make([]control.SecretInfo, 0, len(req.Secrets))
	for i := range req.Secrets {
		s, err := b.reseal(req.Agent, req.Secrets[i])
		if err != nil {
			return nil, err
		}
		sealed = append(sealed, s)
		infos = append(infos, control.SecretInfo{Meta: s.Meta})
	}
	err := b.storeSecrets(sealed)
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrOldKey) {
		return nil, &control.Error{Code: control.CodeConflict, Message: err.Error(), Hint: "somebody else set it at the same time, or it is there twice; look with torno secrets list"}
	}
	return infos, explain(err)
}

// reseal checks a secret from another machine and seals it as the version that it becomes.
func (b *Broker) reseal(agent string, s control.SealedSecret) (control.SealedSecret, error) {
	what := fmt.Sprintf("secret %q of agent %q", s.Meta.Name, s.Meta.Agent)
	var none control.SealedSecret
	refuse := func(code, hint, format string, args ...any) error {
		return &control.Error{Code: code, Message: what + ": " + fmt.Sprintf(format, args...), Hint: hint}
	}
	asFirst := s.Meta
	asFirst.Version = 1
	if err := control.CheckMeta(asFirst); err != nil {
		return none, refuse(control.CodeInvalid, "", "%v", err)
	}
	if agent != "" && s.Meta.Agent != agent {
		return none, refuse(control.CodeInvalid, "seal it for that agent, or import it without naming one", "it was sealed for that agent, not for %q", agent)
	}
	value, err := b.store.UnsealNew(&s)
	switch {
	case errors.Is(err, store.ErrOldKey):
		return none, refuse(control.CodeConflict, "torno secrets export-public-key, and seal it to that", "%v", err)
	case errors.Is(err, seal.ErrOpen):
		return none, refuse(control.CodeInvalid, "", "it does not open: it was changed, or sealed for another agent, name or audience")
	case err != nil:
		return none, err
	}
	defer value.Wipe()
	if err := errors.Join(value.Use(func(v []byte) error { return control.CheckSealed(asFirst, v) }), b.checkSource(&asFirst)); err != nil {
		return none, refuse(control.CodeInvalid, "", "%v", err)
	}
	last, changed, err := b.store.Last(s.Meta.Agent, s.Meta.Name)
	if err != nil {
		return none, explain(err)
	}
	stamp := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }
	switch {
	case s.Meta.Version != 0 && s.Meta.Version != last+1:
		return none, refuse(control.CodeConflict, "", "it was sealed as version %d, the next one is %d", s.Meta.Version, last+1)
	case last > 0 && !s.Meta.Created.After(changed):
		return none, refuse(control.CodeConflict, "seal it again, on a machine whose clock is right", "it was sealed at %s, and what is here was set or deleted at %s: it is older, or was imported before", stamp(s.Meta.Created), stamp(changed))
	case time.Until(s.Meta.Created) > importSkew:
		return none, refuse(control.CodeInvalid, "look at the clock of the machine that sealed it", "it was sealed at %s, which has not come yet", stamp(s.Meta.Created))
	}
	s.Meta.Version = last + 1
	err = value.Use(func(v []byte) (err error) {
		s.Meta.Weak = s.Meta.Source == "" && s.Meta.IsWeak(v, credential.Secret{Meta: s.Meta}.Preset().Prefix)
		pk := b.store.Public()
		s.KeyID = pk.ID()
		s.Sealed, err = pk.Seal(v, control.AssociatedData(s.Meta, s.KeyID))
		return err
	})
	return s, err
}
