package broker

import (
	"bytes"
	"fmt"
	"hash/maphash"

	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/redact"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// checkOverlap refuses secrets that are about to be stored where a value that no workload may hold shares a run
// of bytes with one of the same agent that its workload sees: what is masked and what is shown would be the
// same. A secret that was set with Overlap is out of the guarantee, and overlaps as it likes.
func (b *Broker) checkOverlap(sealed []control.SealedSecret) error {
	for i := range sealed {
		m := &sealed[i].Meta
		value, err := b.store.UnsealNew(&sealed[i])
		if err != nil {
			return err
		}
		err = b.overlapsNone(m, value, sealed)
		value.Wipe()
		if err != nil {
			return err
		}
	}
	return nil
}

// overlapsNone compares a secret with the newest of the agent's others, and with those that come with it.
func (b *Broker) overlapsNone(m *control.Meta, value secret.Value, batch []control.SealedSecret) error {
	latest, _, err := b.store.Secrets(m.Agent)
	if err != nil {
		return err
	}
	others := map[string]control.Meta{}
	for _, v := range latest {
		if v.Revoked.IsZero() {
			others[v.Name] = v.Meta
		}
	}
	fresh := map[string]*control.SealedSecret{}
	for i := range batch {
		if batch[i].Meta.Agent == m.Agent {
			others[batch[i].Meta.Name], fresh[batch[i].Meta.Name] = batch[i].Meta, &batch[i]
		}
	}
	for name, o := range others {
		if name == m.Name || (o.Expose == control.ExposeNone) == (m.Expose == control.ExposeNone) {
			continue
		}
		hidden := *m
		if m.Expose != control.ExposeNone {
			hidden = o
		}
		if hidden.Overlap {
			continue
		}
		var other secret.Value
		if f := fresh[name]; f != nil {
			other, err = b.store.UnsealNew(f)
		} else {
			other, err = b.store.Unseal(m.Agent, name, o.Version)
		}
		if err != nil {
			return err
		}
		proxied, exposed := value, other
		if m.Expose != control.ExposeNone {
			proxied, exposed = other, value
		}
		shares := sharesRun(proxied, exposed, credential.Secret{Meta: hidden}.Preset().Prefix)
		other.Wipe()
		if shares {
			return &control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf("%s shares bytes with %s, and one of the two is visible inside the VM while the other must not be", m.Name, name),
				Hint: fmt.Sprintf("use another value, or set %s with --allow-exposed-overlap: then it is neither masked nor searched for", hidden.Name)}
		}
	}
	return nil
}

// sharesRun reports whether a run of the proxied value that counts stands in the exposed one, by fingerprints
// under a key of this call.
func sharesRun(proxied, exposed secret.Value, prefixes []string) bool {
	found := false
	_ = proxied.Use(func(p []byte) error {
		random := control.RandomPart(p, prefixes)
		width := redact.Run(len(random))
		seed, windows := maphash.MakeSeed(), map[uint64]int{}
		for i := 0; i+width <= len(random); i++ {
			windows[maphash.Bytes(seed, random[i:i+width])] = i
		}
		return exposed.Use(func(e []byte) error {
			for j := 0; j+width <= len(e) && !found; j++ {
				i, ok := windows[maphash.Bytes(seed, e[j:j+width])]
				found = ok && bytes.Equal(random[i:i+width], e[j:j+width])
			}
			return nil
		})
	})
	return found
}
