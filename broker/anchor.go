package broker

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/store"
	"torno.internal/protocol/control"
)

// An anchor keeps the store's manifests in the audit's chain.
type anchor struct {
	log  *audit.Log
	dir  string
	tell func(*audit.Record) // who listens
}

// Record implements store.Anchor.
func (a *anchor) Record(c store.Commit) error {
	records := make([]audit.Record, len(c.Changes))
	for i, ch := range c.Changes {
		records[i] = audit.Record{
			Event: ch.Event, Agent: ch.Agent, Secret: ch.Name, Version: ch.Version,
			Commit: c.Number,
		}
		if ch.Event == store.EventTrusted { // its name is the hash of the file
			records[i].Secret, records[i].SHA256 = "", ch.Name
		}
	}
	records[len(records)-1].Manifest = hex.EncodeToString(c.Manifest[:])
	if err := a.log.Commit(records); err != nil {
		return err
	}
	for i := range records {
		a.tell(&records[i])
	}
	return nil
}

// Last implements store.Anchor.
func (a *anchor) Last() (store.Commit, error) {
	r, err := audit.LastCommit(a.dir)
	if err != nil || r.Commit == 0 {
		return store.Commit{}, err
	}
	c := store.Commit{Number: r.Commit}
	if n, err := hex.Decode(c.Manifest[:], []byte(r.Manifest)); err != nil || n != len(c.Manifest) {
		return store.Commit{}, fmt.Errorf("record %d of the audit: not the hash of a manifest", r.Seq)
	}
	return c, nil
}

// Since implements store.Anchor.
func (a *anchor) Since(number uint64, f func(store.Change)) error {
	records, err := audit.CommitsSince(a.dir, number)
	for i := range records {
		r := &records[i]
		f(store.Change{Event: r.Event, Agent: r.Agent, Name: r.Secret, Version: r.Version})
	}
	return err
}

// anchorStore compares the store with the audit, and has the audit record what the store does from now on.
func (b *Broker) anchorStore() error {
	findings, err := b.store.SetAnchor(&anchor{b.audit, b.auditDir(), b.tellOf})
	for _, f := range findings {
		b.log.Error("the store is not what the audit has recorded", "err", f)
	}
	return err
}

// warmStore reads all of the store once the broker is ready, so that lists are quick and what was changed outside of torno is
// named before it is used.
func (b *Broker) warmStore(ctx context.Context) {
	broken, err := b.store.Warm(ctx)
	for _, t := range broken {
		b.log.Error("the store is not what torno wrote", "err", t)
	}
	if err != nil && ctx.Err() == nil {
		b.log.Error("reading the store", "err", err)
	}
}

// tampered says to an operator what was changed outside of torno.
func tampered(t *store.TamperedError) error {
	hint := "torno store verify names all that was changed; torno store restore brings a backup back"
	if t.Name != "" {
		hint = fmt.Sprintf("set it anew: torno secrets set %s %s; torno store verify names all that was changed", t.Agent, t.Name)
	}
	return &control.Error{Code: control.CodeTampered, Message: t.Error(), Hint: hint}
}

// explain makes an error of the store one for operators, if there is one for it.
func explain(err error) error {
	var t *store.TamperedError
	if errors.As(err, &t) {
		return tampered(t)
	}
	return err
}
