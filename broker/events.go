package broker

import (
	"context"
	"fmt"
	"os"

	"torno.internal/broker/internal/audit"
	ctlserver "torno.internal/broker/internal/control"
)

// The events that the broker records of itself, of sessions and of what operators do. docs/audit.md says what each
// means.
const (
	eventStarted  = "broker_started"
	eventStopped  = "broker_stopped"
	eventReloaded = "broker_reloaded"

	eventCreated    = "session_created"
	eventTakenUp    = "session_taken_up"
	eventNotTakenUp = "session_not_taken_up"
	eventHello      = "session_hello"
	eventEnded      = "session_ended"
	eventAbandoned  = "session_abandoned"
	eventExpired    = "session_expired"
	eventIdle       = "session_idle"
	eventOver       = "session_over"
	eventRevoked    = "session_revoked"
	eventResumed    = "session_resumed"
	eventRevokedUse = "session_secret_revoked"

	eventFollowed    = "session_secret_followed"     // a newer version is used from now on
	eventNotFollowed = "session_secret_not_followed" // none is any more, for the newer one does not fit into the session
	eventExpiredUse  = "session_secret_expired"      // what was open with it is cut
	eventExpires     = "session_secret_expires"      // soon, as the session begins

	eventFetched    = "session_secret_fetched"     // requests get that version from now on
	eventNotFetched = "session_secret_not_fetched" // requests that would get it are refused, until it can be

	eventSignedOnly  = "signed_only" // a proof was handed out for a request that the machine sends itself
	eventSignRefused = "sign_refused"

	eventWithdrawn = "session_grant_withdrawn" // what a person had allowed for the session is asked about again

	eventMinted    = "token_minted"
	eventNotMinted = "token_refused"

	eventMisplaced  = "placeholder_misplaced" // and the request went on, as the operator wants it
	eventTerminated = "session_terminated"    // for a placeholder that was misplaced

	eventReflection = "reflection"
	eventProof      = "proof"
	eventProofLeak  = "proof_leak"

	eventSSHSigned  = "ssh_signed"
	eventSSHRefused = "ssh_refused"
)

// recordOwn records what the broker did, or says, of itself or of a session. It costs no session's budget.
func (b *Broker) recordOwn(r *audit.Record) {
	r.Free = true
	if err := b.audit.Event(r); err != nil {
		b.log.Error("recording an event", "event", r.Event, "err", err)
	}
	b.tellOf(r)
}

// event records an event of the session that the workload can't cause at will. by is the process that asked for it,
// if one did.
func (s *live) event(event, by string) {
	s.b.recordOwn(&audit.Record{Session: s.id, Agent: s.agent, Event: event, By: by})
}

// recordStart records that the broker serves, and by which operator's file. It serves on a full disk too: sessions must
// be revoked there.
func (b *Broker) recordStart() {
	b.recordOwn(&audit.Record{Event: eventStarted, By: process(int32(os.Getpid())), SHA256: digest(b.cfg.Operator)})
}

// caller names the process that a control request comes from.
func caller(ctx context.Context) string {
	if c := ctlserver.ConnOf(ctx); c != nil && c.PID > 0 {
		return process(c.PID)
	}
	return ""
}

func process(pid int32) string { return fmt.Sprintf("pid %d", pid) }
