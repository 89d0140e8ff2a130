package control

import "time"

// An AgentPolicy is an agent file (torno.toml) as read; the broker compiles it.
type AgentPolicy struct {
	Name     string               `json:"name"`
	Secrets  []string             `json:"secrets,omitempty"`
	Secret   map[string]Assertion `json:"secret,omitempty"`
	Workload WorkloadPolicy       `json:"workload"`
	Egress   Egress               `json:"egress"`
	Limits   AgentLimits          `json:"limits"`
}

// An Assertion repeats what is sealed with a secret; it must be equal or narrower, else the session
// does not start.
type Assertion struct {
	Placeholder bool     `json:"placeholder,omitempty"`
	Hosts       []string `json:"hosts,omitempty"`
	Headers     []string `json:"headers,omitempty"`
	Expose      *Expose  `json:"expose,omitempty"`
	Rotation    Rotation `json:"rotation,omitempty"`
}

// A WorkloadPolicy says as whom the workload runs. The zero value means user agent.
type WorkloadPolicy struct {
	User string `json:"user,omitempty"`
}

// Egress is where an agent may go, as rules in the grammar of docs/rules.md. The zero value denies
// everything but the audiences of the session's secrets.
type Egress struct {
	Default string   `json:"default,omitempty"` // "deny" (default) or "allow"
	Allow   []string `json:"allow,omitempty"`
	Deny    []string `json:"deny,omitempty"`
	Ask     []string `json:"ask,omitempty"`
	Tunnel  []string `json:"tunnel,omitempty"`
}

// A TrustedFile is an agent file that a person approved, byte for byte.
type TrustedFile struct {
	Agent    string      `json:"agent"`
	File     []byte      `json:"file"`   // the file's bytes; they are what was approved
	SHA256   string      `json:"sha256"` // of File, hex; computed by the broker
	Policy   AgentPolicy `json:"policy"` // as parsed from File
	Approved time.Time   `json:"approved"`
}

// A PolicyCheck asks what would happen to one request.
type PolicyCheck struct {
	Agent  string       `json:"agent"`
	Method string       `json:"method"`
	URL    string       `json:"url"`
	Policy *AgentPolicy `json:"policy,omitempty"` // the file to judge by; none: the trusted one
}

// A PolicyVerdict explains a decision.
type PolicyVerdict struct {
	Verdict   string `json:"verdict"`             // "allow", "deny", "ask", "tunnel"
	Reason    string `json:"reason,omitempty"`    // the closed code that the workload would get
	List      string `json:"list"`                // "deny", "ask", "tunnel", "allow", "audience", "default", "ceiling"
	Rule      string `json:"rule,omitempty"`      // the rule that matched, as written
	Authority string `json:"authority"`           // as torno understood it
	Path      string `json:"path"`                // the path matched
	Secret    string `json:"secret,omitempty"`    // the secret that would be used
	Version   int    `json:"version,omitempty"`   // and its version
	Guarded   bool   `json:"guarded,omitempty"`   // a secret is bound to the authority, so answers are masked
	Carries   string `json:"carries,omitempty"`   // of a tunnel: what the secret is for, "ssh" or "postgres"
	Candidate string `json:"candidate,omitempty"` // other secrets for this origin, if ambiguous

	Lists    []PolicyList `json:"lists,omitempty"`    // in the order in which they are asked; none: the request itself is refused
	Readings int          `json:"readings,omitempty"` // how many ways servers may read the path; all must get one verdict
	Inject   *Injector    `json:"inject,omitempty"`   // how the secret goes into the request
	Ranges   bool         `json:"ranges,omitempty"`   // with Guarded: Range passes, since answers are large files
	Cookies  string       `json:"cookies,omitempty"`  // with Guarded: whether Set-Cookie passes
	Limits   *AgentLimits `json:"limits,omitempty"`   // those that apply
	Grant    string       `json:"grant,omitempty"`    // with "ask": what allowing it for the session would allow
}

// A PolicyList says what one list of one file has on a request.
type PolicyList struct {
	File    string `json:"file"`
	List    string `json:"list"`
	Rules   int    `json:"rules"`             // in the list
	Rule    string `json:"rule,omitempty"`    // the first that matches
	Decides bool   `json:"decides,omitempty"` // for its file; a request must pass both
}
