package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/pluginhost"
	"torno.internal/broker/internal/sign"
	"torno.internal/broker/internal/source"
	"torno.internal/broker/plugin"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// How long a session's beginning waits for secrets that are kept elsewhere. What is not there by then is fetched when a
// request needs it.
const (
	fetchWait  = 10 * time.Second
	resumeWait = 5 * time.Second // all sessions that are taken up, together
)

// A pluginFetcher asks plugins for secrets, for a source.Keeper.
type pluginFetcher struct{ host *pluginhost.Host }

// Fetch implements source.Fetcher.
func (p pluginFetcher) Fetch(ctx context.Context, at string) (source.Fetched, error) {
	name, ref, err := control.ParseSource(at)
	if err != nil {
		return source.Fetched{}, err
	}
	got, err := p.host.Fetch(ctx, name, ref)
	if err != nil {
		return source.Fetched{}, err
	}
	return source.Fetched{Value: secret.New(got.Value), Version: got.Version, Expires: got.Expires}, nil
}

// Watch implements source.Fetcher.
func (p pluginFetcher) Watch(ctx context.Context, at string, changed func()) (bool, error) {
	name, ref, err := control.ParseSource(at)
	if err != nil {
		return false, nil
	}
	return p.host.Watch(ctx, name, ref, changed)
}

// Refresh implements source.Fetcher.
func (p pluginFetcher) Refresh(at string) time.Duration {
	name, _, _ := control.ParseSource(at)
	return p.host.Refresh(name)
}

// Final implements source.Fetcher.
func (pluginFetcher) Final(err error) bool {
	var e *pluginhost.Error
	return errors.As(err, &e) && e.Final()
}

// checkSource refuses a source that no plugin is.
func (b *Broker) checkSource(m *control.Meta) error {
	if m.Source == "" {
		return nil
	}
	name, _, err := control.ParseSource(m.Source)
	if err != nil {
		return err
	}
	switch b.plugins.Kind(name) {
	case control.PluginSource:
		return nil
	case "":
		return fmt.Errorf("broker.toml declares no plugin %q (torno plugin list)", name)
	}
	if m.Expose != control.ExposeNone || sign.NewAway(*m, signer{}) == nil {
		return fmt.Errorf("plugin %q signs, and this secret does not sign with a key by an algorithm that has a name in RFC 9421", name)
	}
	return nil
}

// A signer has requests signed by a plugin.
type signer struct {
	host      *pluginhost.Host
	name, key string
	agent     string
	authority string // where all requests go that are signed; empty: to several
}

// Sign implements sign.Away.
func (s signer) Sign(algorithm string, message []byte) ([]byte, error) {
	return s.host.Sign(context.Background(), s.name, plugin.SignRequest{
		Key: s.key, Algorithm: algorithm, Message: message, Agent: s.agent, Authority: s.authority,
	})
}

// openSourced returns a secret that is kept elsewhere, as far as it has been fetched.
func (b *Broker) openSourced(m control.Meta) credential.Secret {
	sec := credential.Secret{Meta: m, Used: b.store.Counter(m.Agent, m.Name, m.Version).Used}
	if name, ref, err := control.ParseSource(m.Source); err == nil && b.plugins.Kind(name) == control.PluginSigner {
		away := signer{host: b.plugins, name: name, key: ref, agent: m.Agent}
		if all, err := m.Authorities(); err == nil && len(all) == 1 {
			away.authority = all[0].String()
		}
		sec.Away = away
		return sec
	}
	f, err := b.sources.Peek(m.Source)
	if err == nil {
		return fill(sec, f)
	}
	sec.Missing = err
	return sec
}

// fetches reports whether the value of a secret is fetched from elsewhere.
func (b *Broker) fetches(m *control.Meta) bool {
	if m.Source == "" {
		return false
	}
	name, _, err := control.ParseSource(m.Source)
	return err == nil && b.plugins.Kind(name) != control.PluginSigner
}

// fill puts what was fetched into a secret. A value that the secret's scheme can't use is as good as none.
func fill(sec credential.Secret, f source.Fetched) credential.Secret {
	sec.Value, sec.Fetched, sec.Generation, sec.Ends, sec.Missing = f.Value, f.Version, f.Generation, f.Expires, nil
	err := f.Value.Use(func(v []byte) error {
		sec.Meta.Weak = sec.Meta.IsWeak(v, sec.Preset().Prefix)
		if sec.Meta.Inject.Scheme == control.SchemeSSH {
			if err := checkSSH(sec.Meta, v); err != nil {
				return err
			}
		}
		return control.CheckValue(sec.Meta, v)
	})
	if err != nil {
		f.Value.Wipe()
		sec.Value, sec.Missing = secret.Value{}, fmt.Errorf("what was fetched is of no use: %w", err)
	}
	return sec
}

// prefetch fetches the secrets among metas that are kept elsewhere, as many as come in time.
func (b *Broker) prefetch(ctx context.Context, wait time.Duration, metas []control.Meta) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var all sync.WaitGroup
	for _, m := range metas {
		if !b.fetches(&m) {
			continue
		}
		all.Go(func() {
			f, err := b.sources.Get(ctx, m.Source)
			if err == nil {
				f.Value.Wipe() // the keeper has it
			}
		})
	}
	all.Wait()
}

// useSources has the secrets of the session that are kept elsewhere looked after while it lasts.
func (s *live) useSources() {
	s.sourcing.Lock()
	defer s.sourcing.Unlock()
	for _, m := range s.secrets().Metas() {
		if !s.b.fetches(&m) || s.sources[m.Source] != nil || s.ctx.Err() != nil {
			continue
		}
		if s.sources == nil {
			s.sources = map[string]func(){}
		}
		s.sources[m.Source] = s.b.sources.Use(m.Source)
	}
}

func (s *live) releaseSources() {
	s.sourcing.Lock()
	defer s.sourcing.Unlock()
	for _, release := range s.sources {
		release()
	}
	s.sources = nil
}

// ready fetches the secrets that fit and would have to be fetched to be used. What can't be is missing on, and says so to
// who would use it.
func (s *live) ready(fits func(*control.Meta) bool) {
	for _, m := range s.secrets().Lacking(time.Now(), fits) {
		f, err := s.b.sources.Get(s.ctx, m.Source)
		if err == nil {
			err = s.takeFetched(m.Name, f)
		}
		if err != nil {
			s.lose(m.Name, err)
		}
	}
}

// readyFor is ready for what is bound to a.
func (s *live) readyFor(a protocol.Authority) {
	if !s.secrets().Sourced() {
		return
	}
	s.ready(func(m *control.Meta) bool {
		all, err := m.Authorities()
		return err == nil && slices.Contains(all, a)
	})
}

// sourceChanged lets the live sessions know that a secret that is kept elsewhere is another, or is not there any more.
func (b *Broker) sourceChanged(at string) {
	for _, s := range b.sessions("") {
		for _, m := range s.secrets().Metas() {
			if m.Source == at {
				s.refetch(m)
			}
		}
	}
}

// refetch takes what is known now of a secret that is kept elsewhere. A session that keeps to its version takes over how
// long that lasts, and no more.
func (s *live) refetch(m control.Meta) {
	f, err := s.b.sources.Peek(m.Source)
	current, ok := s.secrets().Current(m.Name)
	switch pinned := m.Rotation != control.RotationFollow && ok && current.Missing == nil; {
	case err != nil && pinned:
	case err != nil:
		s.lose(m.Name, err)
	case pinned && f.Generation != current.Generation:
		f.Value.Wipe()
	default:
		if err := s.takeFetched(m.Name, f); err != nil {
			s.lose(m.Name, err)
		}
	}
}

// takeFetched puts what was fetched in the place of what requests get. The value is its own from then on.
func (s *live) takeFetched(name string, f source.Fetched) error {
	s.values.Lock() // the session may end meanwhile, and wipe what it has
	defer s.values.Unlock()
	for {
		old := s.secrets()
		current, ok := old.Current(name)
		if !ok || s.ctx.Err() != nil || old.Revoked(name) || current.Meta.Source == "" {
			f.Value.Wipe()
			return s.ctx.Err()
		}
		if current.Missing == nil && current.Generation == f.Generation {
			set, err := old.Renew(name, f.Generation, f.Expires)
			if err != nil || s.set.CompareAndSwap(old, set) {
				f.Value.Wipe()
				return err
			}
			continue
		}
		sec := fill(current, f)
		if sec.Missing != nil {
			return sec.Missing
		}
		set, err := old.Follow(sec)
		if err == nil {
			err = refuseOverlap(set)
		}
		if err != nil {
			f.Value.Wipe()
			return err
		}
		if s.set.CompareAndSwap(old, set) {
			s.b.mints.Forget(s.agent, name, sec.Meta.Version) // tokens that another value was traded for
			s.watchEnd(&sec.Meta)
			s.noteFetched(&sec)
			return nil
		}
	}
}

// lose ends the use of a secret that can't be fetched, until it can. What is open to where it may be sent is cut, as when one is
// revoked here.
func (s *live) lose(name string, why error) {
	for {
		old := s.secrets()
		current, ok := old.Current(name)
		if !ok || current.Meta.Source == "" {
			return
		}
		known := current.Missing != nil && current.Missing.Error() == why.Error()
		sec := current
		sec.Value, sec.Missing, sec.Fetched, sec.Generation, sec.Ends = secret.Value{}, why, "", 0, time.Time{}
		set, err := old.Follow(sec)
		if err != nil {
			s.log.Error("ending the use of a secret", "secret", name, "err", err)
			return
		}
		if !s.set.CompareAndSwap(old, set) {
			continue
		}
		if current.Missing == nil {
			s.cutSourced(&current.Meta)
		}
		if !known {
			s.noteMissing(&sec)
		}
		return
	}
}

// cutSourced cuts what is open to where a secret may be sent that is kept elsewhere, and is not there any more.
func (s *live) cutSourced(m *control.Meta) {
	s.b.mints.Forget(s.agent, m.Name, m.Version)
	hosts, err := m.Authorities()
	if err != nil { // they were checked when the session began
		s.log.Error("the audience of a secret", "secret", m.Name, "err", err)
	}
	s.cut(protocol.ReasonCredential, hosts)
}

// noteFetched records which version of a secret that is kept elsewhere requests get from now on.
func (s *live) noteFetched(sec *credential.Secret) {
	name, _, _ := control.ParseSource(sec.Meta.Source)
	s.b.recordOwn(&audit.Record{
		Session: s.id, Agent: s.agent, Event: eventFetched, Secret: sec.Meta.Name, Version: sec.Meta.Version, Fetched: sec.Fetched, Plugin: name,
	})
}

// noteMissing records that requests get none.
func (s *live) noteMissing(sec *credential.Secret) {
	name, _, _ := control.ParseSource(sec.Meta.Source)
	reason := protocol.ReasonCredential.String()
	var e *pluginhost.Error
	if errors.As(sec.Missing, &e) {
		reason = string(e.Code)
	}
	s.log.Warn("a secret can't be fetched", "secret", sec.Meta.Name, "plugin", name, "err", sec.Missing)
	s.b.recordOwn(&audit.Record{
		Session: s.id, Agent: s.agent, Event: eventNotFetched, Secret: sec.Meta.Name, Version: sec.Meta.Version, Plugin: name, Reason: reason,
	})
}

// beginSources records what the session begins with, and returns what the person who starts it should know.
func (s *live) beginSources() (warnings []string) {
	for _, m := range s.secrets().Metas() {
		sec, ok := s.secrets().Current(m.Name)
		switch {
		case !ok || !s.b.fetches(&m):
		case sec.Missing != nil:
			s.noteMissing(&sec)
			warnings = append(warnings, fmt.Sprintf("%s: %v; requests that need it are refused until it is there", m.Name, sec.Missing))
		default:
			s.noteFetched(&sec)
			if sec.Meta.Weak {
				warnings = append(warnings, m.Name+": weak, too short for the guarantee")
			}
		}
	}
	return warnings
}

// checkExposed refuses a session whose workload is to see a secret that can't be fetched.
func (b *Broker) checkExposed(metas []control.Meta) error {
	for _, m := range metas {
		if m.Source == "" || m.Expose == control.ExposeNone {
			continue
		}
		sec := b.openSourced(m)
		sec.Value.Wipe()
		if sec.Missing != nil {
			return missingExposed(&sec)
		}
	}
	return nil
}

func missingExposed(sec *credential.Secret) error {
	return &control.Error{Code: control.CodeMissingSecret, Message: fmt.Sprintf("%s is to be visible inside the VM, and can't be fetched: %v", sec.Meta.Name, sec.Missing),
		Hint: "torno plugin list says what failed"}
}
