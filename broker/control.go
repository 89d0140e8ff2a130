package broker

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strconv"

	"torno.internal/broker/internal/audit"
	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/broker/internal/store"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// handler routes the control API. Every path is listed in protocol/control.
func (b *Broker) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+control.PathHealth, ctlserver.Get(b.log, b.health))
	mux.Handle("GET "+control.PathPublicKey, ctlserver.Get(b.log, b.publicKey))
	mux.Handle("GET "+control.PathKey, ctlserver.Get(b.log, b.keyInfo))
	mux.Handle("POST "+control.PathKey+"/rotate", ctlserver.Get(b.log, b.rotateKey))
	mux.Handle("POST "+control.PathKey+"/protect", ctlserver.Handle(b.log, b.protectKey))
	mux.Handle("POST "+control.PathKey+"/split", ctlserver.Handle(b.log, b.recordSplit))
	mux.Handle("GET "+control.PathPresets, ctlserver.Get(b.log, b.presets))
	mux.Handle("GET "+control.PathSecrets, ctlserver.Get(b.log, b.listSecrets))
	mux.Handle("GET "+control.PathNextVersion, ctlserver.Get(b.log, b.nextVersion))
	mux.Handle("POST "+control.PathSecrets, ctlserver.Handle(b.log, b.setSecrets))
	mux.Handle("DELETE "+control.PathSecrets, ctlserver.Get(b.log, b.deleteSecret))
	mux.Handle("GET "+control.PathTrust, ctlserver.Get(b.log, b.trusted))
	mux.Handle("PUT "+control.PathTrust, ctlserver.Handle(b.log, b.trust))
	mux.Handle("GET "+control.PathSessions, ctlserver.Get(b.log, b.listSessions))
	mux.Handle("POST "+control.PathSessions, ctlserver.Handle(b.log, b.createSession))
	mux.Handle("POST "+control.PathConsole, ctlserver.Handle(b.log, b.keepConsole))
	mux.Handle("GET "+control.PathSession+"{id}", ctlserver.Get(b.log, b.showSession))
	mux.Handle("DELETE "+control.PathSession+"{id}", ctlserver.Get(b.log, b.revokeSession))
	mux.Handle("POST "+control.PathSession+"{id}/end", ctlserver.Get(b.log, b.endSession))
	mux.Handle("POST "+control.PathSession+"{id}/resume", ctlserver.Get(b.log, b.unsuspendSession))
	mux.Handle("POST "+control.PathSession+"{id}/prove", ctlserver.Get(b.log, b.prove))
	mux.Handle("POST "+control.PathPolicyCheck, ctlserver.Handle(b.log, b.checkPolicy))
	mux.Handle("GET "+control.PathAudit, http.HandlerFunc(b.tailAudit))
	mux.Handle("POST "+control.PathAuditVerify, ctlserver.Get(b.log, b.verifyAudit))
	return mux
}

func (b *Broker) health(*http.Request) (control.Health, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return control.Health{
		Version: b.cfg.Version, Protocol: protocol.Version, PID: os.Getpid(),
		Started: b.started, StateDir: b.cfg.StateDir, Sessions: len(b.live),
	}, nil
}

func (b *Broker) publicKey(*http.Request) (control.PublicKey, error) {
	k := b.store.Public()
	return control.PublicKey{ID: k.ID(), Key: k.Bytes()}, nil
}

func (b *Broker) tailAudit(w http.ResponseWriter, r *http.Request) {
	last, err := strconv.Atoi(r.FormValue("last"))
	if err != nil || last < 0 {
		last = 10
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	err = audit.Tail(r.Context(), b.auditDir(), last, r.FormValue("follow") != "", func(line []byte) error {
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
		return flush.Flush()
	})
	if err != nil && r.Context().Err() == nil {
		b.log.Error("audit tail", "err", err)
	}
}

func (b *Broker) verifyAudit(*http.Request) (control.AuditVerdict, error) {
	return audit.Verify(b.auditDir())
}

// checkPolicy explains what would happen to one request of an agent, without sending it.
func (b *Broker) checkPolicy(_ context.Context, req control.PolicyCheck) (control.PolicyVerdict, error) {
	file := req.Policy
	if file == nil {
		if trusted, err := b.store.Trusted(req.Agent); err == nil {
			file = &trusted.Policy
		} else if !errors.Is(err, store.ErrNotFound) {
			return control.PolicyVerdict{}, err
		}
	}
	plan, err := b.plan(req.Agent, file)
	if err != nil {
		return control.PolicyVerdict{}, err
	}
	return plan.check(req)
}
