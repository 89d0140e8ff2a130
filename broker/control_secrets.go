package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/store"
	"torno.internal/protocol/control"
)

func (b *Broker) presets(r *http.Request) ([]control.Preset, error) {
	name := r.FormValue("name")
	if name == "" {
		return credential.Presets(), nil
	}
	if p, ok := credential.Lookup(name); ok {
		return []control.Preset{p}, nil
	}
	return []control.Preset{}, nil
}

func (b *Broker) listSecrets(r *http.Request) ([]control.SecretInfo, error) {
	agent := r.FormValue("agent")
	latest, broken, err := b.store.Secrets(agent)
	if err != nil {
		return nil, err
	}
	infos := make([]control.SecretInfo, 0, len(latest)+len(broken))
	for i := range latest {
		ver := &latest[i]
		infos = append(infos, control.SecretInfo{Meta: ver.Meta, Revoked: ver.Revoked, Uses: ver.Uses, LastUsed: ver.Last})
	}
	for _, t := range broken {
		infos = append(infos, control.SecretInfo{Meta: control.Meta{Agent: t.Agent, Name: t.Name, Version: t.Version}, Broken: t.Error()})
	}
	if agent != "" {
		if infos, err = b.addMissing(infos, agent); err != nil {
			return nil, err
		}
	}
	return pageOf(infos, r.FormValue("after"), r.FormValue("limit"))
}

// addMissing adds what the agent's approved file declares and nobody has set.
func (b *Broker) addMissing(infos []control.SecretInfo, agent string) ([]control.SecretInfo, error) {
	trusted, err := b.store.Trusted(agent)
	if errors.Is(err, store.ErrNotFound) {
		return infos, nil
	}
	if err != nil {
		return nil, err
	}
	for _, name := range trusted.Policy.Secrets {
		if !slices.ContainsFunc(infos, func(i control.SecretInfo) bool { return i.Name == name }) {
			infos = append(infos, control.SecretInfo{Meta: control.Meta{Agent: agent, Name: name}, Missing: true})
		}
	}
	return infos, nil
}

// pageOf returns the part of a list that follows on an entry, at most so many: in the order of agents and names, and all of it
// as it is where neither is said.
func pageOf(infos []control.SecretInfo, after, limit string) ([]control.SecretInfo, error) {
	if after == "" && limit == "" {
		return infos, nil
	}
	most := control.MaxSecretsPage
	if limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 || n > control.MaxSecretsPage {
			return nil, &control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf("limit %q is no number from 1 to %d", limit, control.MaxSecretsPage)}
		}
		most = n
	}
	slices.SortStableFunc(infos, func(x, y control.SecretInfo) int {
		return cmp.Or(strings.Compare(x.Agent, y.Agent), strings.Compare(x.Name, y.Name))
	})
	agent, name, _ := strings.Cut(after, "/")
	from, _ := slices.BinarySearchFunc(infos, after, func(i control.SecretInfo, _ string) int {
		if after != "" && cmp.Or(strings.Compare(i.Agent, agent), strings.Compare(i.Name, name)) <= 0 {
			return -1
		}
		return 1
	})
	return infos[from:min(from+most, len(infos))], nil
}

func (b *Broker) nextVersion(r *http.Request) (control.NextVersion, error) {
	last, _, err := b.store.Last(r.FormValue("agent"), r.FormValue("name"))
	return control.NextVersion{Version: last + 1}, err
}

// setSecrets stores sealed secrets, all or none. Each is opened once here, so that a value which could
// not be used is refused now and not in the middle of a run.
func (b *Broker) setSecrets(_ context.Context, sealed []control.SealedSecret) ([]control.SecretInfo, error) {
	infos := make([]control.SecretInfo, 0, len(sealed))
	for i := range sealed {
		if err := b.checkSecret(&sealed[i]); errors.Is(err, store.ErrOldKey) {
			return nil, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("%s: %v", sealed[i].Meta.Name, err), Hint: "the broker has a new key; try again"}
		} else if err != nil {
			return nil, &control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf("%s: %v", sealed[i].Meta.Name, err)}
		}
		infos = append(infos, control.SecretInfo{Meta: sealed[i].Meta})
	}
	err := b.storeSecrets(sealed)
	if errors.Is(err, store.ErrConflict) {
		return nil, &control.Error{Code: control.CodeConflict, Message: err.Error(), Hint: "somebody else set it at the same time; try again"}
	}
	if err != nil {
		return nil, explain(err)
	}
	return infos, nil
}

// storeSecrets stores secrets that were checked, all or none, and lets running sessions follow.
func (b *Broker) storeSecrets(sealed []control.SealedSecret) error {
	if err := b.storeApart(sealed); err != nil {
		return err
	}
	for i := range sealed {
		b.followAll(sealed[i].Meta.Agent, sealed[i].Meta.Name)
	}
	return nil
}

// storeApart stores secrets that overlap with nothing that is there, one lot after the other.
func (b *Broker) storeApart(sealed []control.SealedSecret) error {
	b.storing.Lock()
	defer b.storing.Unlock()
	if err := b.checkOverlap(sealed); err != nil {
		return err
	}
	return b.store.SetSecrets(sealed)
}

func (b *Broker) checkSecret(s *control.SealedSecret) error {
	if err := control.CheckMeta(s.Meta); err != nil {
		return err
	}
	if err := b.checkSource(&s.Meta); err != nil {
		return err
	}
	if d := time.Since(s.Meta.Created); d < -time.Hour || d > time.Hour {
		return fmt.Errorf("sealed at %v, which is not now; look at the clock", s.Meta.Created)
	}
	value, err := b.store.UnsealNew(s)
	if err != nil {
		return err
	}
	defer value.Wipe()
	return value.Use(func(v []byte) error {
		if err := control.CheckSealed(s.Meta, v); err != nil || s.Meta.Inject.Scheme != control.SchemeSSH || s.Meta.Source != "" {
			return err
		}
		return checkSSH(s.Meta, v)
	})
}

// deleteSecret deletes a secret and ends its use: a session that uses it is revoked.
func (b *Broker) deleteSecret(r *http.Request) (control.SecretInfo, error) {
	agent, name := r.FormValue("agent"), r.FormValue("name")
	meta, err := b.store.DeleteSecret(agent, name)
	if err != nil {
		return control.SecretInfo{}, noSecret(err, agent, name, 0)
	}
	b.revokeAll(agent, name, 0)
	return control.SecretInfo{Meta: meta}, nil
}

func (b *Broker) trusted(r *http.Request) (control.TrustedFile, error) {
	f, err := b.store.Trusted(r.FormValue("agent"))
	if errors.Is(err, store.ErrNotFound) {
		return f, &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("no file of agent %q is trusted", r.FormValue("agent")), Hint: "torno trust"}
	}
	return f, explain(err)
}
