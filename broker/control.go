package broker

import (
	"context"
	"errors"
	"net/http"
	"os"

	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/broker/internal/store"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// router routes the control API. Every path is listed in protocol/control.
func (b *Broker) router() *ctlserver.Router {
	mux := ctlserver.NewRouter(b.log)
	mux.Handle("GET "+control.PathHealth, ctlserver.Get(b.log, b.health))
	mux.Handle("POST "+control.PathReload, ctlserver.Get(b.log, b.reload))
	mux.Handle("GET "+control.PathPublicKey, ctlserver.Get(b.log, b.publicKey))
	mux.Handle("GET "+control.PathKey, ctlserver.Get(b.log, b.keyInfo))
	mux.Handle("POST "+control.PathUnlock, ctlserver.Handle(b.log, b.unlock))
	mux.Handle("POST "+control.PathKey+"/rotate", ctlserver.Get(b.log, b.rotateKey))
	mux.Handle("POST "+control.PathKey+"/protect", ctlserver.Handle(b.log, b.protectKey))
	mux.Handle("POST "+control.PathKey+"/split", ctlserver.Handle(b.log, b.recordSplit))
	mux.Handle("GET "+control.PathStore+"/backup", http.HandlerFunc(b.backup))
	mux.Handle("POST "+control.PathStore+"/verify", ctlserver.Get(b.log, b.verifyStore))
	mux.Handle("GET "+control.PathPresets, ctlserver.Get(b.log, b.presets))
	mux.Handle("GET "+control.PathSecrets, ctlserver.Get(b.log, b.listSecrets))
	mux.Handle("GET "+control.PathNextVersion, ctlserver.Get(b.log, b.nextVersion))
	mux.Handle("POST "+control.PathSecrets, ctlserver.Handle(b.log, b.setSecrets))
	mux.Handle("DELETE "+control.PathSecrets, ctlserver.Get(b.log, b.deleteSecret))
	mux.Handle("POST "+control.PathImport, ctlserver.Handle(b.log, b.importSecrets))
	mux.Handle("GET "+control.PathHistory, ctlserver.Get(b.log, b.secretHistory))
	mux.Handle("POST "+control.PathRevoke, ctlserver.Get(b.log, b.revokeSecret))
	mux.Handle("GET "+control.PathTrust, ctlserver.Get(b.log, b.trusted))
	mux.Handle("PUT "+control.PathTrust, ctlserver.Handle(b.log, b.trust))
	mux.Handle("GET "+control.PathSessions, ctlserver.Get(b.log, b.listSessions))
	mux.Handle("POST "+control.PathSessions, ctlserver.Handle(b.log, b.createSession))
	mux.Handle("POST "+control.PathConsole, ctlserver.Handle(b.log, b.keepConsole))
	mux.Handle("GET "+control.PathSession+"{id}", ctlserver.Get(b.log, b.showSession))
	mux.Handle("DELETE "+control.PathSession+"{id}", ctlserver.Get(b.log, b.revokeSession))
	mux.Handle("POST "+control.PathSession+"{id}/end", ctlserver.Get(b.log, b.endSession))
	mux.Handle("POST "+control.PathSession+"{id}/resume", ctlserver.Get(b.log, b.unsuspendSession))
	mux.Handle("DELETE "+control.PathSession+"{id}/grants", ctlserver.Get(b.log, b.withdrawGrant))
	mux.Handle("POST "+control.PathSession+"{id}/prove", ctlserver.Get(b.log, b.prove))
	mux.Handle("GET "+control.PathApprovals, ctlserver.Get(b.log, b.listApprovals))
	mux.Handle("POST "+control.PathApprovals, ctlserver.Handle(b.log, b.decideApproval))
	mux.Handle("GET "+control.PathEvents, http.HandlerFunc(b.events))
	mux.Handle("POST "+control.PathPolicyCheck, ctlserver.Handle(b.log, b.checkPolicy))
	mux.Handle("GET "+control.PathAudit, http.HandlerFunc(b.tailAudit))
	mux.Handle("POST "+control.PathAuditVerify, ctlserver.Handle(b.log, b.verifyAudit))
	mux.Handle("POST "+control.PathAuditQuery, http.HandlerFunc(b.queryAudit))
	mux.Handle("POST "+control.PathAuditCheckpoint, http.HandlerFunc(b.checkpointAudit))
	mux.Handle("GET "+control.PathAuditKeys, ctlserver.Get(b.log, b.auditKeys))
	mux.Handle("GET "+control.PathPlugins, ctlserver.Get(b.log, b.listPlugins))
	mux.Handle("POST "+control.PathPluginCheck, ctlserver.Handle(b.log, b.checkPlugin))
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
