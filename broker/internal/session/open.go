package session

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// Retention is how long the record of a session stays after its end.
const Retention = 30 * 24 * time.Hour

// A Request says what session to make. Its own Policy is the one that counts.
type Request struct {
	control.SessionRequest
	Policy  control.AgentPolicy // as approved
	Secrets []control.SecretUse // the versions to pin
	Clouds  []control.Cloud     // whose SDKs are to find placeholders
}

// New makes a session and stores it. The session waits for its guest's hello, which must carry boot unless
// that is nil.
func New(records Records, req Request) (s *Session, boot []byte, err error) {
	rec, err := newRecord(req, time.Now().UTC())
	if err != nil {
		return nil, nil, err
	}
	if rec.CID != 0 && !req.NoBootNonce {
		boot = make([]byte, protocol.NonceSize)
		_, _ = rand.Read(boot) // never fails: crypto/rand ends the process instead
		hash := sha256.Sum256(boot)
		rec.BootHash = hash[:]
	}
	ca, key, err := newCA(rec.ID, rec.Created)
	if err != nil {
		return nil, nil, err
	}
	rec.CA = ca.Raw
	if rec.CAKey, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, nil, err
	}
	if err := rec.put(records); err != nil {
		return nil, nil, err
	}
	return newSession(records, rec, ca, key), boot, nil
}

func newSession(records Records, rec record, ca *x509.Certificate, key *ecdsa.PrivateKey) *Session {
	return &Session{
		records: records, begun: rec.beginning, rec: rec, ca: issuerOf(ca), caKey: key, issued: rec.Leaves,
	}
}

// newRecord checks req and makes the record of a session that begins now.
func newRecord(req Request, now time.Time) (record, error) {
	switch {
	case !control.ValidAgent(req.Agent):
		return record{}, fmt.Errorf("agent %q: a name is %s", req.Agent, control.AgentGrammar)
	case req.Isolation != protocol.IsolationMicroVM && req.Isolation != protocol.IsolationNamespace:
		return record{}, fmt.Errorf("isolation %q is neither %q nor %q", req.Isolation, protocol.IsolationMicroVM, protocol.IsolationNamespace)
	case len(req.RunToken) != 0 && len(req.RunToken) != protocol.TokenSize:
		return record{}, fmt.Errorf("run token of %d bytes, not %d", len(req.RunToken), protocol.TokenSize)
	case req.Workload.User != "" && req.Workload.User != protocol.UserAgent && req.Workload.User != protocol.UserRoot:
		return record{}, fmt.Errorf("workload user %q is neither %q nor %q", req.Workload.User, protocol.UserAgent, protocol.UserRoot)
	}
	if _, err := PlaceOf(&req.SessionRequest); err != nil {
		return record{}, err
	}
	rec := record{
		Format: format, State: StateWaiting, RunToken: slices.Clone(req.RunToken),
		beginning: beginning{
			ID: newID(now), Agent: req.Agent, Isolation: req.Isolation, PeerUID: uint32(os.Geteuid()),
			Workload: cloneWorkload(req.Workload), Policy: req.Policy, Secrets: slices.Clone(req.Secrets),
			Placeholders: map[string]string{}, Created: now,
			Socket: req.Socket, CID: req.CID, Attach: req.Attach, OwnEgress: req.OwnEgress,
			Machine: req.Machine,
		},
	}
	if rec.Workload.User == "" {
		rec.Workload.User = protocol.UserAgent
	}
	if req.PeerUID != nil {
		rec.PeerUID = *req.PeerUID
	}
	for _, c := range req.Clouds {
		p, err := credential.NewPlaceholder(credential.SharedShape)
		if err != nil {
			return record{}, err
		}
		if rec.Clouds == nil {
			rec.Clouds = map[control.Cloud]string{}
		}
		rec.Clouds[c] = p
	}
	for _, u := range rec.Secrets {
		if !u.Placeholder {
			continue
		}
		if u.Expose != control.ExposeNone {
			return record{}, fmt.Errorf("secret %s is exposed, so there is no placeholder to show instead", u.Name)
		}
		var err error
		if rec.Placeholders[u.Name], err = credential.PlaceholderFor(u.Name); err != nil {
			return record{}, err
		}
	}
	return rec, nil
}

// Load reads the session id.
func Load(records Records, id string) (*Session, error) {
	b, err := records.Session(id)
	if err != nil {
		return nil, err
	}
	rec, err := decodeRecord(id, b)
	if err != nil {
		return nil, err
	}
	ca, key, err := parseCA(rec.CA, rec.CAKey)
	if err != nil {
		return nil, fmt.Errorf("record of session %q: %w", id, err)
	}
	if key == nil && !rec.State.over() {
		return nil, fmt.Errorf("record of session %q: no CA key", id)
	}
	return newSession(records, rec, ca, key), nil
}

// All reads every session on record, oldest first, and deletes those that ended longer than Retention
// ago. Those that can be read are returned beside an error that names the others.
func All(records Records) ([]*Session, error) {
	ids, err := records.Sessions() // some, beside an error
	slices.Sort(ids)
	var all []*Session
	errs := []error{err}
	for _, id := range ids {
		s, err := Load(records, id)
		if err == nil && time.Since(s.end()) > Retention {
			err = records.DeleteSession(id)
			s = nil
		}
		if err != nil {
			errs = append(errs, err)
		} else if s != nil {
			all = append(all, s)
		}
	}
	return all, errors.Join(errs...)
}
