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
		if m.Source != "" { // its value is compared when a session fetches it
			continue
		}
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
		if name == m.Name || o.Source != "" || (o.Expose == control.ExposeNone) == (m.Expose == control.ExposeNone) {
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
		proxied, exposed := credential.Secret{Meta: hidden, Value: value}, other
		if m.Expose != control.ExposeNone {
			proxied.Value, exposed = other, value
		}
		shares := sharesRun(proxied, exposed) >= 0
		other.Wipe()
		if shares {
			return overlapError(control.CodeInvalid, m.Name, name, hidden.Name)
		}
	}
	return nil
}

// overlapError says that the two secrets overlap, of which hidden is the one that no workload may hold.
func overlapError(code, name, other, hidden string) error {
	return &control.Error{Code: code, Message: fmt.Sprintf("%s shares bytes with %s, and one of the two is visible inside the VM while the other must not be", name, other),
		Hint: fmt.Sprintf("use another value, or set %s with --allow-exposed-overlap: then it is neither masked nor searched for", hidden)}
}

// refuseOverlap refuses a session whose workload would be given part of what it may not hold. Setting refuses that too;
// but what a session has was set at other times, and perhaps by another broker.
func refuseOverlap(set *credential.Set) error {
	exposed := set.Exposed()
	if len(exposed) == 0 {
		return nil
	}
	proxied, _ := set.Proxied()
	for _, p := range proxied {
		if err := refuseOverlapOf(p, exposed); err != nil {
			return err
		}
	}
	return nil
}

// refuseOverlapOf refuses a secret that no workload may hold beside what a session's workload was given.
func refuseOverlapOf(p credential.Secret, exposed []credential.Secret) error {
	if p.Meta.Overlap {
		return nil
	}
	values := make([]secret.Value, len(exposed))
	for i, e := range exposed {
		values[i] = e.Value
	}
	if i := sharesRun(p, values...); i >= 0 {
		return overlapError(control.CodeConflict, p.Meta.Name, exposed[i].Meta.Name, p.Meta.Name)
	}
	return nil
}

// sharesRun returns the first of the exposed values in which a run of the proxied one stands that counts, by fingerprints
// under a key of this call, or -1.
func sharesRun(proxied credential.Secret, exposed ...secret.Value) int {
	found := -1
	_ = proxied.Value.Use(func(p []byte) error {
		random := control.RandomPart(p, proxied.Preset().Prefix)
		width := redact.Run(len(random))
		seed, windows := maphash.MakeSeed(), make(map[uint64]int, len(random))
		for i := 0; i+width <= len(random); i++ {
			windows[maphash.Bytes(seed, random[i:i+width])] = i
		}
		for n := 0; n < len(exposed) && found < 0 && len(windows) > 0; n++ {
			_ = exposed[n].Use(func(e []byte) error {
				for j := 0; j+width <= len(e) && found < 0; j++ {
					if i, ok := windows[maphash.Bytes(seed, e[j:j+width])]; ok && bytes.Equal(random[i:i+width], e[j:j+width]) {
						found = n
					}
				}
				return nil
			})
		}
		return nil
	})
	return found
}
