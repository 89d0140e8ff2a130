package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// Agents of the load.
const (
	agentKeys = "keys" // secrets are set, revoked and deleted, and nobody uses them
	agentWork = "work" // exchanges
	agentAsks = "asks" // exchanges that a person is asked about
)

const (
	workKey  = "WORK_KEY"
	asksKey  = "ASKS_KEY"
	grace    = time.Second
	pause    = 10 * time.Millisecond // after something failed, as all does while there is no broker
	clients  = 4                     // streams with exchanges at once
	setters  = 2
	numbered = "/n/"
)

var asksPolicy = control.AgentPolicy{Name: agentAsks, Secrets: []string{asksKey}, Egress: control.Egress{Ask: []string{"GET " + host + numbered + "ask/*"}}}

const asksFile = "name = \"asks\"\n"

// A load does everything that a broker acknowledges, all at once, and keeps in the ledger what was.
type load struct {
	h      *house
	l      *ledger
	gate   sync.RWMutex // held for reading by who is about to do something
	number atomic.Int64 // of the last path
	work   [2]*guest
	asks   *guest
	old    map[int]string // values of workKey that are not revoked, by version
	wg     sync.WaitGroup
}

// newLoad sets what the load needs. The broker runs.
func newLoad(ctx context.Context, h *house) (*load, error) {
	d := &load{h: h, l: newLedger(), old: map[int]string{1: newValue()}}
	err := errors.Join(h.set(ctx, agentWork, workKey, d.old[1], 1, control.RotationFollow), h.set(ctx, agentAsks, asksKey, newValue(), 1, control.RotationPin))
	if err != nil {
		return nil, err
	}
	if err := h.trust(ctx, agentAsks, []byte(asksFile), asksPolicy); err != nil {
		return nil, err
	}
	for i := range d.work {
		if d.work[i], err = d.session(ctx, agentWork, ""); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// session registers a session, joins it, and has it in the ledger.
func (d *load) session(ctx context.Context, agent, file string) (*guest, error) {
	s, err := d.h.register(ctx, agent, []byte(file))
	if err != nil {
		return nil, err
	}
	d.l.acknowledged(d.l.sessions, s.ID, isLive, 0)
	return join(ctx, s)
}

// start begins the load, which goes on until ctx ends; then wait.
func (d *load) start(ctx context.Context) {
	jobs := []func(context.Context) error{d.rotateKey, d.renew, d.ask, d.decide}
	for i := range clients {
		jobs = append(jobs, d.exchanger(d.work[i%len(d.work)]))
	}
	for i := range setters {
		jobs = append(jobs, d.setter(i))
	}
	for _, job := range jobs {
		d.wg.Go(func() {
			for ctx.Err() == nil {
				d.gate.RLock()
				err := job(ctx)
				d.gate.RUnlock()
				if err != nil {
					sleep(ctx, pause)
				}
			}
		})
	}
}

func (d *load) wait() { d.wg.Wait() }

func sleep(ctx context.Context, t time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(t):
	}
}

// path is one that was never asked for.
func (d *load) path(below string) string {
	return fmt.Sprintf("%s%s%d", numbered, below, d.number.Add(1))
}

// exchanger makes exchanges on one stream, until it breaks.
func (d *load) exchanger(g *guest) func(context.Context) error {
	var st *stream
	return func(ctx context.Context) (err error) {
		if st == nil {
			if st, err = g.open(ctx, protocol.KindForward); err != nil {
				st = nil
				return err
			}
		}
		if err = d.exchange(st, d.path("")); err != nil {
			st.Close()
			st = nil
		}
		return err
	}
}

// exchange asks for a path and notes that it was answered.
func (d *load) exchange(st *stream, path string) error {
	a, err := st.ask(request("GET", path), nil)
	if err != nil {
		return err
	}
	if a.status != 200 {
		return fmt.Errorf("%d %s", a.status, a.reason)
	}
	d.l.note(d.l.answered, "answered", path)
	return nil
}

// setter sets, revokes and deletes secrets of names that are its own.
func (d *load) setter(number int) func(context.Context) error {
	return func(ctx context.Context) error {
		name := fmt.Sprintf("KEY_%d_%d", number, rand.IntN(6))
		query := "?agent=" + agentKeys + "&name=" + name
		var next control.NextVersion
		if err := d.h.call(ctx, "GET", control.PathNextVersion+query, nil, &next); err != nil {
			return err
		}
		d.l.asked(d.l.secrets, name)
		var err error
		what := isSet
		switch rand.IntN(4) {
		case 0:
			what = isRevoked
			err = d.h.call(ctx, "POST", control.PathRevoke+query+"&version="+strconv.Itoa(next.Version-1), nil, nil)
		case 1:
			what = isDeleted
			err = d.h.call(ctx, "DELETE", control.PathSecrets+query, nil, nil)
		default:
			err = d.h.set(ctx, agentKeys, name, newValue(), next.Version, control.RotationPin)
			next.Version++
		}
		if isRefused(err) {
			return nil // there is none, or it is revoked already
		}
		if err == nil {
			d.l.acknowledged(d.l.secrets, name, what, next.Version-1)
		}
		return err
	}
}

// isRefused reports whether something is there no more, or was not possible as things stand.
func isRefused(err error) bool {
	var refused *control.Error
	return errors.As(err, &refused) && (refused.Code == control.CodeNotFound || refused.Code == control.CodeConflict || refused.Code == control.CodeInvalid)
}

// rotateKey has everything sealed to a new key, now and then.
func (d *load) rotateKey(ctx context.Context) error {
	sleep(ctx, time.Duration(rand.IntN(400))*time.Millisecond)
	err := d.h.call(ctx, "POST", control.PathKey+"/rotate", nil, nil)
	if err == nil {
		d.l.note(map[string]bool{}, "rotations", "")
	}
	return err
}

// renew replaces the key that exchanges use, and revokes the one before, which must not come to the upstream any more.
func (d *load) renew(ctx context.Context) error {
	sleep(ctx, time.Duration(rand.IntN(100))*time.Millisecond)
	query := "?agent=" + agentWork + "&name=" + workKey
	var next control.NextVersion
	if err := d.h.call(ctx, "GET", control.PathNextVersion+query, nil, &next); err != nil {
		return err
	}
	d.l.asked(d.l.secrets, workKey)
	value := newValue()
	if err := d.h.set(ctx, agentWork, workKey, value, next.Version, control.RotationFollow); err != nil {
		return err
	}
	d.l.acknowledged(d.l.secrets, workKey, isSet, next.Version)
	for version, old := range d.old {
		err := d.h.call(ctx, "POST", control.PathRevoke+query+"&version="+strconv.Itoa(version), nil, nil)
		if err != nil && !isRefused(err) { // it may have been revoked by a call whose answer was lost
			return err
		}
		d.h.upstream.retire(old, grace)
		delete(d.old, version)
	}
	d.old[next.Version] = value
	d.l.note(map[string]bool{}, "renewed", "")
	return nil
}

// ask makes exchanges that a person is asked about, in sessions that end after a few.
func (d *load) ask(ctx context.Context) (err error) {
	if d.asks == nil {
		if d.asks, err = d.session(ctx, agentAsks, asksFile); err != nil {
			return err
		}
	}
	st, err := d.asks.open(ctx, protocol.KindForward)
	if err != nil {
		return err
	}
	defer st.Close()
	if err := d.exchange(st, d.path("ask/")); err != nil {
		return err
	}
	if rand.IntN(3) > 0 {
		return nil
	}
	id := d.asks.session
	d.asks = nil
	if rand.IntN(2) == 0 {
		return nil // it stays
	}
	d.l.asked(d.l.sessions, id)
	if err := d.h.call(ctx, "DELETE", control.PathSession+id, nil, nil); err != nil {
		return err
	}
	d.l.acknowledged(d.l.sessions, id, isEnded, 0)
	return nil
}

// decide is the person who is asked.
func (d *load) decide(ctx context.Context) error {
	sleep(ctx, 2*time.Millisecond)
	var waiting []control.Approval
	if err := d.h.call(ctx, "GET", control.PathApprovals, nil, &waiting); err != nil {
		return err
	}
	for i := range waiting {
		a := &waiting[i]
		decision := control.ApprovalDecision{ID: a.ID, Allow: true, Session: rand.IntN(2) == 0}
		if err := d.h.call(ctx, "POST", control.PathApprovals, decision, nil); err != nil {
			return err
		}
		d.l.note(d.l.allowed, "allowed", a.Path)
		if decision.Session {
			d.l.note(d.l.granted, "granted", a.Session)
		}
	}
	return nil
}
