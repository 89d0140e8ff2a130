package store

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/bbolt"

	"torno.internal/protocol/control"
)

// A Verdict is what looking at everything in the store found.
type Verdict struct {
	Commit   uint64
	Manifest digest
	Agents   int
	Secrets  int // names that are there
	Versions int // of them
	Sessions int
	Broken   []*TamperedError
}

// Verify reads everything and compares it with the manifests. It opens no secret: whether a value opens is
// bound to what is compared.
func (s *Store) Verify() (Verdict, error) {
	var v Verdict
	ks := s.keys()
	err := s.file.read(func(tx *bbolt.Tx) (err error) {
		v, err = s.verify(tx, ks)
		return err
	})
	return v, err
}

func (s *Store) verify(tx *bbolt.Tx, ks keys) (Verdict, error) {
	agents, err := newView(&s.agents, tx, ks)
	if err != nil {
		return Verdict{}, err
	}
	sessions, err := newView(&s.sessions, tx, ks)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Commit: agents.m.commit, Manifest: agents.at}
	known := map[string]bool{} // where something may stand
	err = agents.inOrder().eachAgent("", func(agent string, p *page, err error) error {
		if err != nil {
			known[agent] = true // the whole agent is named already
			return collect(&v.Broken, err)
		}
		v.Agents++
		return v.agent(agents, agent, p, known)
	})
	if err != nil {
		return Verdict{}, err
	}
	signing, err := newView(&s.signing, tx, ks)
	if err != nil {
		return Verdict{}, err
	}
	for _, w := range []*view{sessions, signing} {
		if err := v.boxes(w); err != nil {
			return Verdict{}, err
		}
	}
	usage, err := newView(&s.usage.ledger, tx, ks)
	if err != nil {
		return Verdict{}, err
	}
	return v, errors.Join(v.counts(usage), v.strangers(tx, known), v.pages(tx, agents, sessions, signing, usage))
}

// counts looks at use counts.
func (v *Verdict) counts(w *view) error {
	for key := range w.m.pages {
		if _, err := w.counts(key); err != nil {
			if err := collect(&v.Broken, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// agent looks at what one agent has.
func (v *Verdict) agent(w *view, agent string, p *page, known map[string]bool) error {
	for i := range p.entries {
		en := &p.entries[i]
		var err error
		switch {
		case en.state == stateDeleted:
		case en.name == trustedName:
			if _, err = w.box(en, bucketTrusted, agent); err != nil {
				err = subject(err, "the trusted file of agent "+agent)
			}
		case en.state == stateRolledBack:
			_, err = w.record(agent, en, en.last())
		default:
			v.Secrets++
			err = v.versions(w, agent, en, known)
		}
		if err != nil {
			if err := collect(&v.Broken, err); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *Verdict) versions(w *view, agent string, en *entry, known map[string]bool) error {
	for n := en.first; n <= en.last(); n++ {
		known[string(versionKey(agent, en.name, n))] = true
		raw, err := w.record(agent, en, n)
		if err == nil {
			v.Versions++
			_, err = decodeVersion(raw)
		}
		if err != nil {
			if err := collect(&v.Broken, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// boxes looks at sessions, or at the key that signs.
func (v *Verdict) boxes(w *view) error {
	bucket, what := bucketSessions, "the record of session "
	if w.l.prefix == prefixSigning {
		bucket, what = bucketSigning, "the signing key of the "
	}

	for key := range w.m.pages {
		p, err := w.page(key)
		if err != nil {
			if err := collect(&v.Broken, err); err != nil {
				return err
			}
			continue
		}
		for i := range p.entries {
			en := &p.entries[i]
			if w.l.prefix == prefixSessions {
				v.Sessions++
			}
			if _, err := w.box(en, bucket, en.name); err != nil {
				if err := collect(&v.Broken, subject(err, what+en.name)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// strangers names stored secrets that no list knows.
func (v *Verdict) strangers(tx *bbolt.Tx, known map[string]bool) error {
	return tx.Bucket(bucketSecrets).ForEach(func(k, _ []byte) error {
		parts := bytes.SplitN(k, []byte{0}, 3)
		if len(parts) != 3 || known[string(k)] || known[string(parts[0])] {
			return nil
		}
		t := &TamperedError{Agent: string(parts[0]), Name: string(parts[1]), Why: "a version stands in the store that is not in the manifest"}
		if !control.ValidAgent(t.Agent) || !control.ValidKey(t.Name) {
			t.What = fmt.Sprintf("what stands at %q", k)
		}
		v.Broken = append(v.Broken, t)
		return nil
	})
}

// pages names pages that no manifest knows.
func (v *Verdict) pages(tx *bbolt.Tx, views ...*view) error {
	return tx.Bucket(bucketPages).ForEach(func(k, _ []byte) error {
		for _, w := range views {
			if !strings.HasPrefix(string(k), w.l.prefix) {
				continue
			}
			if _, ok := w.m.pages[string(k)]; ok {
				return nil
			}
			_, err := w.page(string(k))
			return collect(&v.Broken, err)
		}
		v.Broken = append(v.Broken, &TamperedError{What: fmt.Sprintf("the page at %q", k), Why: "no manifest knows it"})
		return nil
	})
}
