package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"torno.internal/broker/internal/audit"
	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/broker/internal/policy"
	"torno.internal/broker/internal/session"
	"torno.internal/broker/internal/store"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// trust approves an agent file, byte for byte. A file whose rules do not compile is refused now.
func (b *Broker) trust(_ context.Context, f control.TrustedFile) (control.TrustedFile, error) {
	if f.Policy.Name != f.Agent {
		return f, &control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf("the file is of agent %q, not %q", f.Policy.Name, f.Agent)}
	}
	sum := sha256.Sum256(f.File)
	f.SHA256, f.Approved = hex.EncodeToString(sum[:]), time.Now()
	if _, err := b.plan(f.Agent, &f.Policy); err != nil {
		var ce *control.Error
		if !errors.As(err, &ce) || ce.Code != control.CodeMissingSecret { // it may be set later
			return f, err
		}
	}
	if err := b.store.PutTrusted(f); err != nil {
		return f, err
	}
	return f, nil
}

// createSession registers one run of an agent and opens its socket.
func (b *Broker) createSession(ctx context.Context, req control.SessionRequest) (control.SessionCreated, error) {
	if err := checkRequest(&req); err != nil {
		return control.SessionCreated{}, err
	}
	var file *control.AgentPolicy
	if len(req.File) > 0 {
		trusted, err := b.checkTrusted(req.Agent, req.File)
		if err != nil {
			return control.SessionCreated{}, err
		}
		file = &trusted.Policy
	}
	p, err := b.plan(req.Agent, file)
	if err != nil {
		return control.SessionCreated{}, err
	}
	if req.Workload.User == "" {
		req.Workload.User = p.file.Workload.User
	}
	b.prefetch(ctx, fetchWait, p.metas)
	if err := b.checkExposed(p.metas); err != nil {
		return control.SessionCreated{}, err
	}
	record, boot, err := session.New(b.store, session.Request{SessionRequest: req, Policy: p.file, Secrets: p.uses(), Clouds: p.clouds()})
	if err != nil {
		return control.SessionCreated{}, err
	}
	var s *live
	created := &audit.Record{Session: record.ID(), Agent: record.Agent(), Event: eventCreated, By: caller(ctx), Free: true}
	if err := b.audit.Act(created, func() (err error) { s, err = b.start(record, p); return err }); err != nil {
		if s != nil { // and is not recorded
			s.cancel()
		}
		return control.SessionCreated{}, errors.Join(unrecordedAct(err), record.End())
	}
	if c := ctlserver.ConnOf(ctx); c != nil {
		s.owner.Store(c.PID)
	}
	s.log.Info("session created", "isolation", string(req.Isolation))
	return control.SessionCreated{
		ID: s.id, Broker: b.servePlace(record), Boot: boot, Warnings: slices.Concat(p.warnings(), s.beginSources(), s.warnExpiring(time.Now()), record.Weaknesses()),
	}, nil
}

// checkRequest refuses what no guest could start, and places where none could be.
func checkRequest(req *control.SessionRequest) error {
	place, err := session.PlaceOf(req)
	if err == nil && place.Network != "" && len(req.RunToken) > 0 {
		err = errors.New("a run channel is torno run's own: a VM that somebody else starts has none")
	}
	if err == nil && place.Network != "" && req.Isolation != protocol.IsolationMicroVM {
		err = fmt.Errorf("isolation %q at the socket of a VM", req.Isolation)
	}
	if err == nil && place.Network == "" && (req.Attach || req.OwnEgress) {
		err = errors.New("attach and own_egress are for VMs that somebody else starts: name their socket or CID")
	}
	if err != nil {
		return &control.Error{Code: control.CodeInvalid, Message: err.Error()}
	}
	if req.Attach { // the machine starts its own
		if len(req.Workload.Argv) > 0 {
			return &control.Error{Code: control.CodeInvalid, Message: "workload: an attached guest starts none"}
		}
		return nil
	}
	return checkWorkload(&req.Workload)
}

// checkWorkload refuses what no guest could start.
func checkWorkload(w *protocol.Workload) error {
	bad := func(what string) error {
		return &control.Error{Code: control.CodeInvalid, Message: "workload: " + what}
	}
	switch {
	case len(w.Argv) == 0 || w.Argv[0] == "":
		return bad("no command")
	case w.User != "" && w.User != protocol.UserAgent && w.User != protocol.UserRoot:
		return bad(fmt.Sprintf("user %q is neither %s nor %s", w.User, protocol.UserAgent, protocol.UserRoot))
	case w.Workspace != "" && (!filepath.IsAbs(w.Workspace) || filepath.Clean(w.Workspace) != w.Workspace):
		return bad(fmt.Sprintf("workspace %q is not an absolute path", w.Workspace))
	}
	for _, s := range slices.Concat(w.Argv, w.Env, []string{w.Dir, w.Workspace}) {
		if strings.ContainsRune(s, 0) {
			return bad(fmt.Sprintf("%q holds a zero byte", s))
		}
	}
	return nil
}

// checkTrusted returns the approved file of agent if file is it, byte for byte.
func (b *Broker) checkTrusted(agent string, file []byte) (control.TrustedFile, error) {
	trusted, err := b.store.Trusted(agent)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return trusted, explain(err)
	}
	sum := sha256.Sum256(file)
	if err != nil || trusted.SHA256 != hex.EncodeToString(sum[:]) {
		what := "is not trusted yet"
		if err == nil {
			what = "has changed since it was trusted"
		}
		return trusted, &control.Error{Code: control.CodeUntrusted, Message: fmt.Sprintf("the agent file of %q %s", agent, what), Hint: "torno trust"}
	}
	return trusted, nil
}

// uses lists the plan's secrets as a session pins them.
func (p *plan) uses() []control.SecretUse {
	uses := make([]control.SecretUse, 0, len(p.metas))
	for _, m := range p.metas {
		uses = append(uses, control.SecretUse{
			Name: m.Name, Version: m.Version, Expose: m.Expose, Placeholder: p.file.Secret[m.Name].Placeholder || len(m.Replace) > 0,
		})
	}
	return uses
}

// warnings are what the person who starts the session should know.
func (p *plan) warnings() []string {
	w := slices.Clone(p.unused)
	for _, m := range p.metas {
		if m.Expose != control.ExposeNone {
			w = append(w, m.Name+": visible inside the VM")
		}
		if m.Weak {
			w = append(w, m.Name+": weak, too short for the guarantee")
		}
	}
	for _, rule := range p.file.Egress.Tunnel {
		w = append(w, "tunnel "+rule+": nobody looks into it, no credential and no masking")
	}
	return w
}

func (b *Broker) listSessions(*http.Request) ([]control.SessionInfo, error) {
	infos := []control.SessionInfo{}
	for _, s := range b.sessions("") {
		infos = append(infos, s.info())
	}
	return infos, nil
}

func (b *Broker) showSession(r *http.Request) (control.SessionInfo, error) {
	if s := b.get(r.PathValue("id")); s != nil {
		return s.info(), nil
	}
	record, err := session.Load(b.store, r.PathValue("id"))
	if err != nil {
		return control.SessionInfo{}, noSession(r.PathValue("id"))
	}
	return record.Info(), nil
}

// keepConsole keeps what a session's VM said last on its console.
func (b *Broker) keepConsole(_ context.Context, req control.ConsoleReport) (control.SessionInfo, error) {
	s := b.get(req.Session)
	if s == nil {
		return control.SessionInfo{}, noSession(req.Session)
	}
	if len(req.Text) > control.MaxConsole {
		return control.SessionInfo{}, &control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf("console of %d bytes, at most %d are kept", len(req.Text), control.MaxConsole)}
	}
	s.record.Say(req.Text)
	return s.info(), nil
}

func noSession(id string) error {
	return &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("no session %q", id), Hint: "torno sessions list"}
}

// revokeSession ends a session for ever and cuts all that it has open.
func (b *Broker) revokeSession(r *http.Request) (control.SessionInfo, error) {
	return b.finish(r.PathValue("id"), eventRevoked, caller(r.Context()), (*live).revoke)
}

// endSession ends a session whose workload has ended.
func (b *Broker) endSession(r *http.Request) (control.SessionInfo, error) {
	return b.finish(r.PathValue("id"), eventEnded, caller(r.Context()), (*live).end)
}

// unsuspendSession lets a session go on whose answers repeated secrets.
func (b *Broker) unsuspendSession(r *http.Request) (control.SessionInfo, error) {
	s := b.get(r.PathValue("id"))
	if s == nil {
		return control.SessionInfo{}, noSession(r.PathValue("id"))
	}
	if err := s.unsuspend(); err != nil {
		return control.SessionInfo{}, err
	}
	s.event(eventResumed, caller(r.Context()))
	return s.info(), nil
}

func (b *Broker) finish(id, event, by string, how func(*live) error) (control.SessionInfo, error) {
	s := b.get(id)
	if s == nil {
		return control.SessionInfo{}, noSession(id)
	}
	s.record.Count(s.stats.counters())
	if err := how(s); err != nil {
		return control.SessionInfo{}, err
	}
	s.event(event, by)
	return s.info(), nil
}

// resume takes up the sessions that an earlier broker left. One that can't be is left on record and
// named in the log: the others go on.
func (b *Broker) resume() {
	records, err := session.All(b.store)
	if err != nil {
		b.log.Error("records that can't be read", "err", err)
	}
	plans := make([]*plan, len(records))
	errs := make([]error, len(records))
	var metas []control.Meta
	for i, record := range records {
		if !record.Live() {
			continue
		}
		if plans[i], errs[i] = b.resumePlan(record); errs[i] == nil {
			metas = append(metas, plans[i].metas...)
		}
	}
	b.prefetch(context.Background(), resumeWait, metas)
	for i, record := range records {
		if !record.Live() {
			continue
		}
		var s *live
		err := errs[i]
		if err == nil {
			s, err = b.start(record, plans[i])
		}
		if err == nil {
			s.event(eventTakenUp, "")
			s.beginSources()
		} else {
			b.recordOwn(&audit.Record{Session: record.ID(), Agent: record.Agent(), Event: eventNotTakenUp})
			b.log.Error("a session can't be resumed", "session", record.ID(), "agent", record.Agent(), "err", err)
		}
	}
}

// resumePlan is the plan that a recorded session began with: its own file and its own versions.
func (b *Broker) resumePlan(record *session.Session) (*plan, error) {
	file := record.Policy()
	file.Secrets = nil
	p := &plan{agent: record.Agent(), file: file}
	for _, u := range record.Secrets() {
		ver, err := b.store.Version(record.Agent(), u.Name, u.Version)
		if errors.Is(err, store.ErrNotFound) { // deleted: the session goes on without it
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s version %d: %w", u.Name, u.Version, err)
		}
		if a, ok := file.Secret[u.Name]; ok {
			ver.Meta = policy.Narrow(a, ver.Meta)
		}
		p.metas = append(p.metas, ver.Meta)
	}
	return p, b.compile(p)
}
