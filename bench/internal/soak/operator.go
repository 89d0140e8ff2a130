package soak

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
)

// newValue returns a secret of 24 random bytes.
func newValue() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return "sk-soak-" + hex.EncodeToString(b)
}

// set sets a version of a secret, which the upstream takes from then on.
func (h *house) set(ctx context.Context, agent, name, value string, version int, rotation control.Rotation) error {
	var pk control.PublicKey
	if err := h.call(ctx, "GET", control.PathPublicKey, nil, &pk); err != nil {
		return err
	}
	m := control.Meta{
		Agent: agent, Name: name, Version: version, Audience: []string{"https://" + host}, Rotation: rotation,
		Inject: control.Injector{Scheme: control.SchemeBearer}, Created: time.Now(),
	}
	key, err := seal.ParsePublicKey(pk.Key)
	if err != nil {
		return err
	}
	sealed, err := key.Seal([]byte(value), control.AssociatedData(m, pk.ID))
	if err != nil {
		return err
	}
	h.upstream.expect(value)
	return h.call(ctx, "POST", control.PathSecrets, []control.SealedSecret{{Meta: m, KeyID: pk.ID, Sealed: sealed}}, nil)
}

// trust approves a file of an agent.
func (h *house) trust(ctx context.Context, agent string, file []byte, policy control.AgentPolicy) error {
	return h.call(ctx, "PUT", control.PathTrust, control.TrustedFile{Agent: agent, File: file, Policy: policy}, nil)
}

// register makes a session of agent under a file that is trusted; an empty file is none.
func (h *house) register(ctx context.Context, agent string, file []byte) (s control.SessionCreated, err error) {
	return s, h.call(ctx, "POST", control.PathSessions, control.SessionRequest{
		Agent: agent, Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}}, File: file,
	}, &s)
}

// end ends a session as torno run does.
func (h *house) end(ctx context.Context, id string) error {
	return h.call(ctx, "POST", control.PathSession+id+"/end", nil, nil)
}
