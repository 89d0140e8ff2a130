// Package session keeps what identifies one run of an agent: who it is, which token its guest holds,
// which CA its guest's certificates come from, and which secrets it began with. All of it is on record
// from the session's creation, so that a broker which starts again serves the same session.
package session

import (
	"crypto/ecdsa"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A Session is one run of an agent. Its methods are safe for concurrent use; those that change what is
// on record return once it is stored.
type Session struct {
	records Records
	begun   beginning
	ca      issuer

	mu     sync.Mutex
	rec    record            // what is on record
	caKey  *ecdsa.PrivateKey // nil once the session has ended
	leaves bucket            // rate of leaf certificates
	issued int               // leaf certificates, at most rec.Leaves
}

// What a session is made with never changes; these need no lock.

// ID returns the session's id: lower-case letters and digits, sorting by time of creation.
func (s *Session) ID() string { return s.begun.ID }

// Agent returns the agent's name.
func (s *Session) Agent() string { return s.begun.Agent }

// Isolation returns what stands between the workload and the host.
func (s *Session) Isolation() protocol.Isolation { return s.begun.Isolation }

// Created returns when the session was made.
func (s *Session) Created() time.Time { return s.begun.Created }

// Expires returns when the session ends at the latest. Its CA ends then, too.
func (s *Session) Expires() time.Time { return s.begun.Created.Add(protocol.SessionLifetime) }

// PeerUID returns the user that alone may connect to the session's socket.
func (s *Session) PeerUID() uint32 { return s.begun.PeerUID }

// Policy returns the agent file that the session began with. It must not be changed.
func (s *Session) Policy() control.AgentPolicy { return s.begun.Policy }

// Workload returns what the guest starts.
func (s *Session) Workload() protocol.Workload { return cloneWorkload(s.begun.Workload) }

// Secrets returns the versions that the session began with.
func (s *Session) Secrets() []control.SecretUse { return slices.Clone(s.begun.Secrets) }

// Placeholder returns what the workload holds instead of the secret called name, or "".
func (s *Session) Placeholder(name string) string { return s.begun.Placeholders[name] }

// Shared returns what the workload may hold instead of any secret of a cloud, or "".
func (s *Session) Shared(c control.Cloud) string { return s.begun.Clouds[c] }

// Placeholders returns all placeholders, by secret.
func (s *Session) Placeholders() map[string]string { return maps.Clone(s.begun.Placeholders) }

// CAPEM returns the session's CA certificate.
func (s *Session) CAPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.der})
}

// Format prints the session's id whatever the verb: the record holds tokens and a key.
func (s *Session) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session "+s.begun.ID) }

// RunToken returns the token for run streams; empty: there is no run channel, or the session has ended.
func (s *Session) RunToken() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rec.RunToken)
}

// Count adds to the session's counters. They are stored with its next change, its end at the latest.
func (s *Session) Count(c Counters) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rec.Counters.Requests += c.Requests
	s.rec.Counters.Refused += c.Refused
	s.rec.Counters.BytesUp += c.BytesUp
	s.rec.Counters.BytesDown += c.BytesDown
}

// Say replaces what the VM's console said last. Like the counters it is stored with the next change.
func (s *Session) Say(console string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rec.Console = console
}

// Info returns what the control API tells of the session, as far as it is on record.
func (s *Session) Info() control.SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return control.SessionInfo{
		ID: s.begun.ID, Agent: s.begun.Agent, Isolation: s.begun.Isolation, State: string(s.stateLocked()),
		Created: s.begun.Created, Ended: s.rec.Ended, Identity: s.identity(), Containment: s.containment(), Weaknesses: s.Weaknesses(),
		Argv: slices.Clone(s.begun.Workload.Argv), Secrets: slices.Clone(s.begun.Secrets),
		Requests: s.rec.Counters.Requests, Refused: s.rec.Counters.Refused,
		BytesUp: s.rec.Counters.BytesUp, BytesDown: s.rec.Counters.BytesDown,
		Machine: s.begun.Machine, Console: s.rec.Console, Grants: grants(s.rec.Grants),
	}
}

func cloneWorkload(w protocol.Workload) protocol.Workload {
	w.Argv, w.Env = slices.Clone(w.Argv), slices.Clone(w.Env)
	return w
}
