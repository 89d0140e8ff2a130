package control

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"time"
)

// PathApprovals is where people decide.
const PathApprovals = "/v1/approvals" // GET → []Approval; POST ApprovalDecision → Approval

// An Approval is a request that waits for a person to decide on it. Text in it is the workload's: whoever shows it must
// escape it. The values of credentials are in none of it.
type Approval struct {
	ID      string    `json:"id"`
	Session string    `json:"session"`
	Agent   string    `json:"agent"`
	Asked   time.Time `json:"asked"`
	Expires time.Time `json:"expires"` // when it is denied

	Method        string `json:"method"` // CONNECT for a tunnel
	Scheme        string `json:"scheme,omitempty"`
	Authority     string `json:"authority"`
	Path          string `json:"path,omitempty"`           // with the query, at most MaxShownPath bytes of it
	PathBytes     int    `json:"path_bytes,omitempty"`     // length of a path that is longer
	Also          string `json:"also,omitempty"`           // what some servers take the request for, because of a field in it
	ContentType   string `json:"content_type,omitempty"`   // at most MaxShownType bytes
	ContentLength *int64 `json:"content_length,omitempty"` // bytes; none: the request does not say

	List    string `json:"list"`              // "ask", or "ceiling": the operator's
	Rule    string `json:"rule"`              // that asks
	Secret  string `json:"secret,omitempty"`  // whose credential the request would get
	Version int    `json:"version,omitempty"` // its version
	Grant   string `json:"grant,omitempty"`   // what allowing it for the session allows, as a rule; none: it can't be
}

// How much is shown of what a workload chooses, in bytes.
const (
	MaxShownPath = 1 << 10
	MaxShownType = 128
)

// An ApprovalDecision is a person's word on a request that waits.
type ApprovalDecision struct {
	ID      string `json:"id"`
	Allow   bool   `json:"allow"`
	Session bool   `json:"session,omitempty"` // with Allow: and all that Grant covers, for the rest of the session
}

// A Grant is what a person has allowed for the rest of a session.
type Grant struct {
	ID   string `json:"id"`
	Rule string `json:"rule"` // in the grammar of rules, or CONNECT and an authority for tunnels
}

// grantID is how long a grant's id is: what a person types.
const grantID = 6 // characters

// NewGrant returns the grant of a rule. Its id is made of the rule, and the same in all sessions.
func NewGrant(rule string) Grant {
	sum := sha256.Sum256([]byte(rule))
	return Grant{ID: strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:grantID]), Rule: rule}
}
