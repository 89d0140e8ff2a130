package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"torno.internal/protocol/control"
)

// What is promised of a broker that was killed.
var (
	readyBound  = bound{must: 1, aim: 0.5} // seconds until the next one answers
	goesOnBound = bound{must: 5, aim: 1}   // seconds until a running guest has its next answer
)

// How the kills are spread.
const (
	killAfter   = 10                    // answers that a running session has had since the last one
	killWithin  = 50 * time.Millisecond // and so much later at the most
	verifyEvery = 20                    // kills between two verifications by another process
)

// A killing is one broker that is killed again and again, under load.
type killing struct {
	h    *house
	d    *load
	real *realGuest

	ready  []time.Duration // from the start to the first answer
	goesOn []time.Duration // from then until the running session had its next answer
	lost   []string        // what was acknowledged and is not there, for people
	broken []string        // what the audit or the store is not, for people
	kept   string          // the newest checkpoint, as somebody keeps it elsewhere
}

// kills kills the broker at random moments under load and starts it again. Nothing that was acknowledged may be lost, the
// audit and the store must verify, and whoever runs goes on.
func kills(ctx context.Context, o *Options, r *Report) error {
	const part = "kills"
	h, err := newHouse(o.Torno)
	if err != nil {
		return err
	}
	defer func() { _ = h.close() }()
	if _, err := h.start(ctx); err != nil {
		return err
	}
	k := &killing{h: h}
	if k.d, err = newLoad(ctx, h); err != nil {
		return err
	}
	if k.real, err = h.realSession(); err != nil {
		return err
	}
	loading, stop := context.WithCancel(ctx)
	k.d.start(loading)
	err = k.all(ctx, o.Kills)
	stop()
	k.d.wait()
	if err = errors.Join(err, k.real.stop()); err != nil {
		return err
	}
	if err := k.compare(ctx); err != nil {
		return err
	}
	k.report(r, part, o.Kills)
	return nil
}

func (k *killing) all(ctx context.Context, n int) error {
	for i := range n {
		if err := k.real.goesOn(ctx, k.real.answers(), killAfter); err != nil {
			return err
		}
		if err := k.keep(ctx); err != nil {
			return err
		}
		sleep(ctx, time.Duration(rand.Int64N(int64(killWithin))))
		k.h.kill()
		if err := k.again(ctx, i%verifyEvery == verifyEvery-1 || i == n-1); err != nil {
			return fmt.Errorf("after kill %d: %w", i+1, err)
		}
	}
	return k.real.goesOn(ctx, k.real.answers(), killAfter)
}

// keep keeps a checkpoint of the audit.
func (k *killing) keep(ctx context.Context) error {
	text, err := k.h.run(ctx, "audit", "checkpoint")
	if err == nil {
		k.kept = strings.TrimSpace(text)
	}
	return err
}

// again starts the broker and looks, before anything else happens, whether all is there. The running session does not
// wait for that.
func (k *killing) again(ctx context.Context, thorough bool) error {
	k.d.gate.Lock()
	defer k.d.gate.Unlock()
	before := k.real.answers()
	ready, err := k.h.start(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	k.ready = append(k.ready, ready)
	if err := k.real.goesOn(ctx, before, 1); err != nil {
		return err
	}
	k.goesOn = append(k.goesOn, time.Since(began))
	if err := errors.Join(k.checkSecrets(ctx), k.checkSessions(ctx)); err != nil {
		return err
	}
	if !thorough {
		return nil
	}
	return k.verify(ctx)
}

// verify has processes of their own look at the audit, against the last checkpoint that was kept, and at the store.
func (k *killing) verify(ctx context.Context) error {
	audit := []string{"audit", "verify"}
	if k.kept != "" {
		kept := filepath.Join(k.h.dir, "kept")
		if err := os.WriteFile(kept, []byte(k.kept+"\n"), 0o600); err != nil {
			return err
		}
		audit = append(audit, "--since", kept)
	}
	for _, args := range [][]string{audit, {"store", "verify"}} {
		if out, err := k.h.run(ctx, args...); err != nil {
			k.broken = append(k.broken, out)
		}
	}
	return nil
}

// checkSecrets compares secrets with what was acknowledged.
func (k *killing) checkSecrets(ctx context.Context) error {
	all, _, _ := k.d.l.copy()
	for name, e := range all {
		agent := agentKeys
		if name == workKey {
			agent = agentWork
		}
		query := "?agent=" + agent + "&name=" + name
		var next control.NextVersion
		if err := k.h.call(ctx, "GET", control.PathNextVersion+query, nil, &next); err != nil {
			return err
		}
		var versions []control.SecretVersion
		state := isDeleted
		err := k.h.call(ctx, "GET", control.PathHistory+query, nil, &versions)
		if refused := (*control.Error)(nil); errors.As(err, &refused) && refused.Code == control.CodeNotFound {
			err = nil
		}
		if err != nil {
			return err
		}
		if len(versions) > 0 {
			if state = isSet; versions[len(versions)-1].State == control.VersionRevoked {
				state = isRevoked
			}
		}
		if lost := judgeSecret(name, e, next.Version-1, state); lost != "" {
			k.lost = append(k.lost, lost)
		}
	}
	return nil
}

// checkSessions compares sessions and grants with what was acknowledged.
func (k *killing) checkSessions(ctx context.Context) error {
	var list []control.SessionInfo
	if err := k.h.call(ctx, "GET", control.PathSessions, nil, &list); err != nil {
		return err
	}
	_, all, granted := k.d.l.copy()
	there := map[string]*control.SessionInfo{}
	for i := range list {
		there[list[i].ID] = &list[i]
	}
	for id, e := range all {
		s := there[id]
		switch {
		case e.what == isLive && s == nil && !e.asked:
			k.lost = append(k.lost, "session "+id)
		case e.what == isEnded && s != nil:
			k.lost = append(k.lost, "the end of session "+id)
		case s != nil && granted[id] && len(s.Grants) == 0:
			k.lost = append(k.lost, "what session "+id+" was granted")
		}
	}
	return nil
}

// compare holds the audit to what reached the upstream, and what was answered and allowed to the audit.
func (k *killing) compare(ctx context.Context) error {
	begun, approved, err := k.begun(ctx)
	if err != nil {
		return err
	}
	for path, n := range k.h.upstream.seen() {
		if begun[path] < n {
			k.lost = append(k.lost, "the record of "+path)
		}
	}
	for _, path := range slices.Concat(k.real.answered, keys(k.d.l.answered)) {
		if begun[path] == 0 {
			k.lost = append(k.lost, "the record of "+path+", which was answered")
		}
	}
	for path := range k.d.l.allowed {
		if k.d.l.answered[path] && !approved[path] {
			k.lost = append(k.lost, "who allowed "+path)
		}
	}
	return nil
}

func keys(m map[string]bool) []string {
	all := make([]string, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	return all
}

// begun counts the beginnings of exchanges on record by path, and says which of them a person allowed.
func (k *killing) begun(ctx context.Context) (begun map[string]int, approved map[string]bool, err error) {
	begun, approved = map[string]int{}, map[string]bool{}
	err = k.query(ctx, control.AuditFilter{Host: host}, func(rec *control.AuditRecord) {
		if rec.Type == control.AuditBegin {
			begun[rec.Path]++
			approved[rec.Path] = approved[rec.Path] || rec.Approval != ""
		}
	})
	if err == nil && len(begun) == 0 {
		err = errors.New("the audit has no exchange: nothing was tested")
	}
	return begun, approved, err
}

// report adds the figures.
func (k *killing) report(r *Report, part string, n int) {
	l := k.d.l
	for _, kind := range []string{"answered", isSet, isRevoked, isDeleted, "renewed", "rotations", "allowed", "granted", isLive, isEnded} {
		r.tell(part, "acknowledged: "+kind, float64(l.count(kind)), "", "")
	}
	r.tell(part, "answers of a running session", float64(len(k.real.answered)), "", "")
	r.judge(part, "acknowledged and lost", float64(len(k.lost)), "", none, strings.Join(firstOf(k.lost, 3), "; "))
	r.judge(part, "verifications that failed", float64(len(k.broken)), "", none, strings.Join(firstOf(k.broken, 1), "; "))
	r.judge(part, "revoked values that were sent", float64(k.h.upstream.wrong), "", none, fmt.Sprintf("later than %v after their revocation", grace))
	slices.Sort(k.ready)
	slices.Sort(k.goesOn)
	r.tell(part, "ready again, median", k.ready[len(k.ready)/2].Seconds(), "s", fmt.Sprintf("of %d kills", n))
	r.tell(part, "ready again, 95 of 100", k.ready[len(k.ready)*95/100].Seconds(), "s", "")
	r.judge(part, "ready again, the slowest", k.ready[len(k.ready)-1].Seconds(), "s", readyBound, "")
	r.judge(part, "a running session goes on, the slowest", k.goesOn[len(k.goesOn)-1].Seconds(), "s", goesOnBound, "after ready")
}

// firstOf returns at most n of all.
func firstOf(all []string, n int) []string { return all[:min(n, len(all))] }
