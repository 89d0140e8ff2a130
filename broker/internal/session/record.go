package session

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Records keeps what must outlive the broker, one record a session. An implementation encrypts records,
// because they hold tokens and a CA's key, and must not keep the slice that it is given.
type Records interface {
	PutSession(id string, record []byte) error
	Session(id string) ([]byte, error)
	Sessions() ([]string, error) // ids
	DeleteSession(id string) error
}

// format is the version of the record's layout.
const format = 1

// A record is a session as it is stored, as JSON. Slices and maps in it are never changed once they are
// set, so that a shallow copy is a copy.
type record struct {
	Format int `json:"format"`
	beginning
	State    State      `json:"state"`
	Suspend  bool       `json:"suspended,omitempty"`
	Ended    *time.Time `json:"ended,omitempty"`
	Counters Counters   `json:"counters"`
	Leaves   int        `json:"leaves"` // reserved, see leaf.go
	Console  string     `json:"console,omitempty"`
	Grants   []string   `json:"grants,omitempty"`

	// Gone once the session has ended.
	CAKey     []byte `json:"ca_key,omitempty"` // PKCS #8
	RunToken  []byte `json:"run_token,omitempty"`
	Nonce     []byte `json:"nonce,omitempty"`      // of the first hello
	Token     []byte `json:"token,omitempty"`      // until it is first used
	TokenHash []byte `json:"token_hash,omitempty"` // SHA-256
	TokenUsed bool   `json:"token_used,omitempty"`
}

// A beginning is the part of a record that never changes.
type beginning struct {
	ID           string              `json:"id"`
	Agent        string              `json:"agent"`
	Isolation    protocol.Isolation  `json:"isolation"`
	PeerUID      uint32              `json:"peer_uid"`
	Workload     protocol.Workload   `json:"workload"`
	Policy       control.AgentPolicy `json:"policy"`
	Secrets      []control.SecretUse `json:"secrets"`
	Placeholders map[string]string   `json:"placeholders"` // by secret
	Created      time.Time           `json:"created"`
	CA           []byte              `json:"ca"` // certificate, DER

	Clouds map[control.Cloud]string `json:"clouds,omitempty"` // placeholders that any secret of a cloud shares

	Socket    string `json:"socket,omitempty"` // hybrid:///P
	CID       uint32 `json:"cid,omitempty"`
	BootHash  []byte `json:"boot_hash,omitempty"` // SHA-256 of the boot nonce; none: hello needs none
	Attach    bool   `json:"attach,omitempty"`
	OwnEgress bool   `json:"own_egress,omitempty"`

	Machine *control.Machine `json:"machine,omitempty"`
}

// Counters count what a session did.
type Counters struct {
	Requests  uint64 `json:"requests"`
	Refused   uint64 `json:"refused"`
	BytesUp   uint64 `json:"bytes_up"`
	BytesDown uint64 `json:"bytes_down"`
}

// put stores r.
func (r *record) put(records Records) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	defer secret.Wipe(b)
	if err := records.PutSession(r.ID, b); err != nil {
		return fmt.Errorf("storing session %s: %w", r.ID, err)
	}
	return nil
}

// decodeRecord reads the record stored under id. It accepts only what put writes for that id.
func decodeRecord(id string, b []byte) (record, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(&r)
	switch {
	case err != nil:
	case d.InputOffset() != int64(len(b)):
		err = errors.New("something follows it")
	case r.Format != format:
		err = fmt.Errorf("format %d, this build reads %d", r.Format, format)
	case r.ID != id:
		err = fmt.Errorf("it is the record of session %q", r.ID)
	case !r.State.valid():
		err = fmt.Errorf("unknown state %q", r.State)
	case r.State.over() != (r.Ended != nil):
		err = errors.New("state and end disagree")
	case r.Leaves < 0 || r.Leaves > protocol.MaxLeaves:
		err = fmt.Errorf("%d leaf certificates", r.Leaves)
	default:
		err = r.checkPlace()
	}
	if err == nil {
		err = r.checkHello()
	}
	if err != nil {
		return record{}, fmt.Errorf("record of session %q: %w", id, err)
	}
	return r, nil
}

// checkHello reports what cannot be of nonce and token: none yet, both with the token itself, or both
// once the token is used.
func (r *record) checkHello() error {
	token := protocol.TokenSize
	switch {
	case len(r.TokenHash) == 0:
		if len(r.Nonce) > 0 || len(r.Token) > 0 || r.TokenUsed || r.State == StateLive {
			return errors.New("no token, but a trace of one")
		}
		return nil
	case r.TokenUsed:
		token = 0
	}
	if len(r.Nonce) != protocol.NonceSize || len(r.TokenHash) != sha256.Size || len(r.Token) != token || r.State != StateLive {
		return errors.New("nonce and token disagree")
	}
	return nil
}

// erase removes what an ended session must not have any more.
func (r *record) erase() {
	for _, b := range [][]byte{r.CAKey, r.RunToken, r.Nonce, r.Token, r.TokenHash} {
		secret.Wipe(b)
	}
	r.CAKey, r.RunToken, r.Nonce, r.Token, r.TokenHash, r.TokenUsed = nil, nil, nil, nil, nil, false
}
