// Package control defines what an operator may ask of the broker: HTTP and JSON on a Unix socket that
// only the broker's own user can open. The command, the TUI and platforms that launch their own VMs
// all speak it; none of them can read a secret back.
package control

import "time"

// Paths of the control API, all under the socket's http://torno.
const (
	PathHealth      = "/v1/health"         // GET → Health
	PathPublicKey   = "/v1/public-key"     // GET → PublicKey
	PathKey         = "/v1/key"            // GET → KeyInfo; POST …/rotate → KeyInfo at once, the rotation goes on; POST …/protect KeyProtection → KeyInfo; POST …/split KeySplit → KeyInfo: records that it is done
	PathUnlock      = "/v1/key/unlock"     // POST KeyUnlock → KeyInfo
	PathStore       = "/v1/store"          // GET …/backup → a backup, as bytes; POST …/verify → StoreVerdict
	PathPresets     = "/v1/presets"        // GET → []Preset; ?name=KEY → []Preset with at most one
	PathSecrets     = "/v1/secrets"        // GET ?agent=&after=&limit= → []SecretInfo; POST []SealedSecret → []SecretInfo, all or nothing; DELETE ?agent=&name= → SecretInfo
	PathNextVersion = "/v1/secrets/next"   // GET ?agent=&name= → NextVersion
	PathImport      = "/v1/secrets/import" // POST Import → []SecretInfo, all or nothing
	PathTrust       = "/v1/trust"          // GET ?agent= → TrustedFile; PUT TrustedFile
	PathSessions    = "/v1/sessions"       // GET → []SessionInfo; POST SessionRequest → SessionCreated
	PathConsole     = "/v1/console"        // POST ConsoleReport → SessionInfo: what a session's VM said last on its console
	PathSession     = "/v1/sessions/"      // + id: GET → SessionInfo; DELETE revokes → SessionInfo; POST …/end ends, …/resume lets a suspended one go on → SessionInfo; DELETE …/grants?grant= takes a grant back → SessionInfo; POST …/prove with a memfd → Proof
	PathPolicyCheck = "/v1/policy/check"   // POST PolicyCheck → PolicyVerdict
	PathAudit       = "/v1/audit"          // GET ?follow=1&last=N → one JSON audit record a line
	PathAuditVerify = "/v1/audit/verify"   // POST AuditCheck → AuditVerdict

	PathAuditQuery      = "/v1/audit/query"      // POST AuditFilter → one JSON object a line: a record, that of an exchange with its "end" in it
	PathAuditCheckpoint = "/v1/audit/checkpoint" // POST → the checkpoint that was just written, one line
	PathAuditKeys       = "/v1/audit/keys"       // GET → AuditKeys
)

// MaxSecretsPage is how many secrets a list has at most where a part of it is asked for.
const MaxSecretsPage = 10_000

// SocketName is the control socket's name in the runtime directory.
const SocketName = "control"

// An Error is the body of every response whose status is 400 or above.
type Error struct {
	Code    string `json:"code"`           // stable, for programs: "not_found", "conflict", "invalid", "busy", "missing_secret", "untrusted", "tampered", "locked", "damaged", "internal"
	Message string `json:"message"`        // for people
	Hint    string `json:"hint,omitempty"` // what to do about it
}

func (e *Error) Error() string { return e.Message }

// The codes of an Error.
const (
	CodeNotFound      = "not_found"      // there is no such session, secret, file, request that waits, or request of the API
	CodeConflict      = "conflict"       // something else came first, or the state of the thing does not allow it
	CodeInvalid       = "invalid"        // the request is malformed, or asks for what can't be
	CodeBusy          = "busy"           // too much at once, or the broker is ending: try again
	CodeMissingSecret = "missing_secret" // the agent file declares a secret that is not set
	CodeUntrusted     = "untrusted"      // the agent file is not approved, or has changed since
	CodeTampered      = "tampered"       // something was changed outside of torno
	CodeLocked        = "locked"         // a passphrase protects the broker's key, and nobody has given it yet
	CodeDamaged       = "damaged"        // the store's file is damaged: nothing is read or written until it is restored
	CodeInternal      = "internal"       // the broker failed; its log says why
)

// Health says that the broker is there, and which one.
type Health struct {
	Version  string    `json:"version"`
	Protocol int       `json:"protocol"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	StateDir string    `json:"state_dir"`
	Sessions int       `json:"sessions"`         // live ones
	Locked   bool      `json:"locked,omitempty"` // it waits for the passphrase of its key, and answers nothing else
}
