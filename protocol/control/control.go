// Package control defines what an operator may ask of the broker: HTTP and JSON on a Unix socket that
// only the broker's own user can open. The command, the TUI and platforms that launch their own VMs
// all speak it; none of them can read a secret back.
package control

import (
	"time"

	"torno.internal/protocol"
)

// Paths of the control API, all under the socket's http://torno.
const (
	PathHealth      = "/v1/health"         // GET → Health
	PathPublicKey   = "/v1/public-key"     // GET → PublicKey
	PathKey         = "/v1/key"            // GET → KeyInfo; POST …/rotate → KeyInfo at once, the rotation goes on; POST …/protect KeyProtection → KeyInfo; POST …/split KeySplit → KeyInfo: records that it is done
	PathStore       = "/v1/store"          // GET …/backup → a backup, as bytes; POST …/verify → StoreVerdict
	PathPresets     = "/v1/presets"        // GET → []Preset; ?name=KEY → []Preset with at most one
	PathSecrets     = "/v1/secrets"        // GET ?agent= → []SecretInfo; POST []SealedSecret → []SecretInfo, all or nothing; DELETE ?agent=&name= → SecretInfo
	PathNextVersion = "/v1/secrets/next"   // GET ?agent=&name= → NextVersion
	PathImport      = "/v1/secrets/import" // POST Import → []SecretInfo, all or nothing
	PathTrust       = "/v1/trust"          // GET ?agent= → TrustedFile; PUT TrustedFile
	PathSessions    = "/v1/sessions"       // GET → []SessionInfo; POST SessionRequest → SessionCreated
	PathConsole     = "/v1/console"        // POST ConsoleReport → SessionInfo: what a session's VM said last on its console
	PathSession     = "/v1/sessions/"      // + id: GET → SessionInfo; DELETE revokes → SessionInfo; POST …/end ends, …/resume lets a suspended one go on → SessionInfo; POST …/prove with a memfd → Proof
	PathPolicyCheck = "/v1/policy/check"   // POST PolicyCheck → PolicyVerdict
	PathAudit       = "/v1/audit"          // GET ?follow=1&last=N → one JSON audit record a line
	PathAuditVerify = "/v1/audit/verify"   // POST AuditCheck → AuditVerdict

	PathAuditQuery      = "/v1/audit/query"      // POST AuditFilter → one JSON object a line: a record, that of an exchange with its "end" in it
	PathAuditCheckpoint = "/v1/audit/checkpoint" // POST → the checkpoint that was just written, one line
	PathAuditKeys       = "/v1/audit/keys"       // GET → AuditKeys
)

// SocketName is the control socket's name in the runtime directory.
const SocketName = "control"

// An Error is the body of every response whose status is 400 or above.
type Error struct {
	Code    string `json:"code"`           // stable, for programs: "not_found", "conflict", "invalid", "busy", "missing_secret", "untrusted", "tampered", "internal"
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
	CodeInternal      = "internal"       // the broker failed; its log says why
)

// Health says that the broker is there, and which one.
type Health struct {
	Version  string    `json:"version"`
	Protocol int       `json:"protocol"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	StateDir string    `json:"state_dir"`
	Sessions int       `json:"sessions"` // live ones
}

// PublicKey is what secrets are sealed to: X-Wing, as protocol/seal reads it.
type PublicKey struct {
	ID  string `json:"id"` // short hash of Key, part of what a sealed secret is bound to
	Key []byte `json:"key"`
}

// KeyInfo is what can be said about the broker's private key.
type KeyInfo struct {
	ID        string       `json:"id"`                 // of the public key that secrets are sealed to
	Protected string       `json:"protected"`          // what the key file is encrypted under: "none", "passphrase", "credential", "command"
	Rotation  *KeyRotation `json:"rotation,omitempty"` // under way
	Problem   string       `json:"problem,omitempty"`  // why the last rotation stopped; it goes on when asked again
}

// KeyRotation is how far a rotation is.
type KeyRotation struct {
	Done  int `json:"done"`  // entries under the new key
	Total int `json:"total"` // at its beginning
}

// KeyProtection asks for another protection of the key file.
type KeyProtection struct {
	Protect    string `json:"protect"`              // as in KeyInfo
	Passphrase []byte `json:"passphrase,omitempty"` // the new one, for "passphrase"
	Current    []byte `json:"current,omitempty"`    // the one that protects it now, if one does
}

// KeySplit says that the key was split into shares.
type KeySplit struct {
	Shares    int `json:"shares"`
	Threshold int `json:"threshold"`
}

// A StoreVerdict is what looking at everything in the store, or in a backup of it, found.
type StoreVerdict struct {
	OK       bool          `json:"ok"`
	Commit   uint64        `json:"commit"`
	Manifest string        `json:"manifest"` // SHA-256, hex: what the audit has recorded of this commit
	Agents   int           `json:"agents"`
	Secrets  int           `json:"secrets"`
	Versions int           `json:"versions"` // of secrets
	Sessions int           `json:"sessions"` // on record
	Broken   []BrokenEntry `json:"broken,omitempty"`
	Backup   *BackupInfo   `json:"backup,omitempty"` // what was looked at, if it is not the store itself
}

// A BrokenEntry was changed outside of torno.
type BrokenEntry struct {
	Agent   string `json:"agent,omitempty"`
	Name    string `json:"name,omitempty"` // of the secret
	Version int    `json:"version,omitempty"`
	Problem string `json:"problem"` // for people
}

// BackupInfo says what a backup is of.
type BackupInfo struct {
	KeyID    string    `json:"key_id"` // of the key that it needs, which is not in it
	Commit   uint64    `json:"commit"`
	Made     time.Time `json:"made"`
	Manifest string    `json:"manifest"`
	Bytes    int64     `json:"bytes"` // of all of it
}

// Expose says how a secret reaches the workload, other than by being used for it.
type Expose string

// The ways to expose a secret.
const (
	ExposeNone Expose = ""    // proxied: the workload never sees it
	ExposeEnv  Expose = "env" // an environment variable inside the VM, visible to the workload
)

// Rotation says what a running session does when a new version is set.
type Rotation string

// The rotations. The zero value means RotationPin.
const (
	RotationPin    Rotation = "pin"    // keep the version of the session's start
	RotationFollow Rotation = "follow" // take the newest at the next request
)

// An Injector says how a secret becomes a credential.
type Injector struct {
	Scheme string          `json:"scheme"`           // one of Schemes; empty for exposed secrets
	Fields []FieldTemplate `json:"fields,omitempty"` // with header: at least one
	Params []Param         `json:"params,omitempty"` // of the scheme
}

// A FieldTemplate makes one request field. Value holds {NAME}, the secret's own name in braces,
// exactly once; everything else is literal.
type FieldTemplate struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Injector schemes.
const (
	SchemeBearer     = "bearer"      // authorization: Bearer VALUE
	SchemeHeader     = "header"      // fields from templates
	SchemeBasic      = "basic"       // authorization: Basic, with the user that is given, or the workload's
	SchemeGit        = "git"         // bearer, and basic where git speaks HTTP
	SchemeQuery      = "query"       // a parameter of the query
	SchemePath       = "path"        // a part of the path, from a template
	SchemeCookie     = "cookie"      // a cookie beside the workload's own
	SchemeContent    = "content"     // nothing of its own: its placeholder is replaced in content
	SchemeClientCert = "client-cert" // a certificate in the TLS handshake (RFC 8446 §4.4.2)

	// What follows is never sent to the audience: it gets access tokens, which are sent as bearer tokens.
	SchemeOAuth2        = "oauth2"         // client credentials (RFC 6749 §4.4)
	SchemeRefresh       = "refresh-token"  // a refresh token (RFC 6749 §6)
	SchemeAssertion     = "jwt-bearer"     // an assertion signed with a key (RFC 7523 §2.1)
	SchemeTokenExchange = "token-exchange" // a token for another (RFC 8693)
	SchemeGitHubApp     = "github-app"     // a GitHub App's key, as one installation
	SchemeGoogle        = "google"         // the JSON key of a Google service account, or of a user
	SchemeAzure         = "azure"          // the client secret of an application in Entra ID
	SchemeRegistry      = "registry"       // a password for a container registry's tokens

	// What follows signs requests, and is never sent.
	SchemeSigV4   = "sigv4"   // AWS Signature Version 4
	SchemeMessage = "rfc9421" // HTTP Message Signatures
)

// Meta is everything about a secret but its value. It is bound to the sealed value as associated data,
// so that nobody re-points a key by editing a file.
type Meta struct {
	Agent    string    `json:"agent"`
	Name     string    `json:"name"`
	Version  int       `json:"version"`            // 1, 2, …; one more than the version it replaces
	Audience []string  `json:"audience,omitempty"` // origins it may be sent to, each https://host[:port]
	Inject   Injector  `json:"inject"`
	Expose   Expose    `json:"expose,omitempty"`
	Rotation Rotation  `json:"rotation,omitempty"`
	Preset   string    `json:"preset,omitempty"` // the preset that filled the above in, if one did
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires,omitzero"`  // refused from then on; zero: never
	Replace  []Place   `json:"replace,omitempty"` // where its placeholder is replaced by the value, other than in what Inject sets
	By       string    `json:"by,omitempty"`      // what set it, in its own words
	Weak     bool      `json:"weak,omitempty"`    // too short for the guarantee (design: fewer than 16 random bytes)
	Overlap  bool      `json:"overlap,omitempty"` // it may share bytes with what the workload can see, and is not masked where it does
}

// A SealedSecret is a value sealed to the broker's public key, bound to Meta.
type SealedSecret struct {
	Meta   Meta   `json:"meta"`
	KeyID  string `json:"key_id"`
	Sealed []byte `json:"sealed"` // as protocol/seal writes it
}

// NextVersion is the version that a secret must be sealed as to be set.
type NextVersion struct {
	Version int `json:"version"`
}

// SecretInfo is what a list shows.
type SecretInfo struct {
	Meta
	Missing bool   `json:"missing,omitempty"` // declared by the agent file, but not set
	Broken  string `json:"broken,omitempty"`  // changed outside of torno, and how: it is refused until it is set anew

	Revoked  time.Time `json:"revoked,omitzero"` // when the version was
	Uses     uint64    `json:"uses,omitempty"`   // requests that any version was used for
	LastUsed time.Time `json:"last_used,omitzero"`
}

// A Preset is what torno knows of a service, matched by a secret's name. Paths, Also and Deny hold in every
// session whose secret was set by the preset.
type Preset struct {
	Name        string   `json:"name"`     // "anthropic"
	Keys        []string `json:"keys"`     // secret names that mean it: ANTHROPIC_API_KEY
	Service     string   `json:"service"`  // "Anthropic API"
	Audience    []string `json:"audience"` // origins
	Inject      Injector `json:"inject"`
	Expose      Expose   `json:"expose,omitempty"`
	Placeholder string   `json:"placeholder,omitempty"` // shape: literal prefix, then *N random characters, "sk-ant-api03-*80"
	Prefix      []string `json:"prefix,omitempty"`      // public prefixes of real values, not secret
	SDKNeedsKey bool     `json:"sdk_needs_key,omitempty"`
	Paths       []string `json:"paths,omitempty"`  // "[METHODS ]/path" as in rules: what of the audience gets the credential; none: everything
	Also        []string `json:"also,omitempty"`   // rules that are allowed too, without the credential: CDNs that the service redirects to
	Deny        []string `json:"deny,omitempty"`   // rules that are refused although the audience is reachable: they mint credentials
	Ranges      bool     `json:"ranges,omitempty"` // Range passes: answers are large files that clients resume
	Docs        string   `json:"docs,omitempty"`
}

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

// Config is the operator's broker.toml.
type Config struct {
	Listen    string             `json:"listen,omitempty"` // vsock://2:618: where VMs reach the broker by the kernel's vsock; none: they don't
	Upstreams []Upstream         `json:"upstream,omitempty"`
	Egress    ConfigEgress       `json:"egress"`
	Agents    map[string]Ceiling `json:"agents,omitempty"`
	Limits    Limits             `json:"limits"`
	Metrics   Metrics            `json:"metrics"`
	Key       ConfigKey          `json:"key"`
	Audit     ConfigAudit        `json:"audit"`
}

// ConfigKey says what may protect the broker's key file, other than a passphrase.
type ConfigKey struct {
	Credential string   `json:"credential,omitempty"` // name of a credential that systemd hands to the service
	Command    []string `json:"command,omitempty"`    // what prints the secret; the first an absolute path
}

// ConfigAudit says how the audit is kept.
type ConfigAudit struct {
	Sync     string `json:"sync,omitempty"`      // AuditSyncInterval (default) or AuditSyncAlways
	KeepDays int    `json:"keep_days,omitempty"` // records that are older are deleted, a segment at a time; 0: never
	KeepMiB  int    `json:"keep_mib,omitempty"`  // the oldest segments are deleted before all take more; 0: never
}

// When the beginning of an exchange is forced to disk.
const (
	AuditSyncInterval = "interval" // within 100 ms: the loss of power may lose that much
	AuditSyncAlways   = "always"   // before the exchange happens
)

// Limits hold for each session. Zero values mean the defaults.
type Limits struct {
	ReflectionsPerResponse int `json:"reflections_per_response,omitempty"` // masked runs in one response before the session is suspended; 8
	ReflectionsPerSession  int `json:"reflections_per_session,omitempty"`  // and in all of a session's responses; 32
	AuditRecordsPerSecond  int `json:"audit_records_per_second,omitempty"` // exchanges and events recorded, with a burst of ten seconds' worth; beyond it 429; 200
	AuditMiBPerHour        int `json:"audit_mib_per_hour,omitempty"`       // and their estimated size; 64
	AskSeconds             int `json:"ask_seconds,omitempty"`              // until a request that waits for a person is denied; 300
	AsksPerSession         int `json:"asks_per_session,omitempty"`         // requests of a session that wait at once; 16
	Asks                   int `json:"asks,omitempty"`                     // and of all sessions together; 256
}

// An Upstream overrides how one authority is reached. Dial is exempt from the address guard, for that
// authority alone.
type Upstream struct {
	Host string `json:"host"`
	Port uint16 `json:"port,omitempty"` // 443
	Dial string `json:"dial,omitempty"` // host:port to connect to instead
	CA   string `json:"ca,omitempty"`   // PEM file trusted for this authority instead of the host's roots
}

// ConfigEgress holds for all agents.
type ConfigEgress struct {
	AllowPrivate []string `json:"allow_private,omitempty"` // CIDRs exempt from the guard
	CA           []string `json:"ca,omitempty"`            // PEM files added to the host's roots
	NAT64        []string `json:"nat64,omitempty"`         // prefixes whose addresses are judged by the IPv4 address inside

	Proxy                  string   `json:"proxy,omitempty"`                    // http://host:port; everything leaves through its CONNECT
	ProxyAuthorizationFile string   `json:"proxy_authorization_file,omitempty"` // 0600, one line: the value of Proxy-Authorization
	NoProxy                []string `json:"no_proxy,omitempty"`                 // names, *.names and CIDRs that are reached directly
}

// A Ceiling bounds what an agent's own file may ask for. The zero value allows any public host.
type Ceiling struct {
	Egress       *Egress     `json:"egress,omitempty"`
	AllowPrivate []string    `json:"allow_private,omitempty"`
	Limits       AgentLimits `json:"limits"`
	Cookies      string      `json:"cookies,omitempty"`      // Set-Cookie from hosts that a secret is bound to: CookiesStrip (default) or CookiesPass
	Presign      bool        `json:"presign,omitempty"`      // requests that the workload signs in their query are signed anew, for at most 15 minutes
	Minting      string      `json:"minting,omitempty"`      // the endpoints that presets deny: MintingDeny (default) or MintingPass
	Placeholders string      `json:"placeholders,omitempty"` // in a credential position for a host that they are not for: PlaceholdersBlock (default), PlaceholdersLog or PlaceholdersTerminate
}

// Whether a workload may have credentials that it got with a secret, and that outlive the session.
const (
	CookiesStrip = "strip"
	CookiesPass  = "pass"
	MintingDeny  = "deny"
	MintingPass  = "pass"
)

// A SessionRequest registers one run of an agent.
type SessionRequest struct {
	Agent     string             `json:"agent"`
	Isolation protocol.Isolation `json:"isolation"`
	Workload  protocol.Workload  `json:"workload"`
	RunToken  []byte             `json:"run_token,omitempty"` // TokenSize bytes; none: no run channel
	PeerUID   *uint32            `json:"peer_uid,omitempty"`  // uid that will connect; the broker's own if absent
	File      []byte             `json:"file,omitempty"`      // the agent file, must be trusted; none: all secrets, deny
	Policy    *AgentPolicy       `json:"policy,omitempty"`    // as parsed from File

	// For a VM that somebody else starts: exactly one of Socket and CID. Neither: the session has a Unix
	// socket of its own, for torno run.
	Socket      string `json:"socket,omitempty"`        // hybrid:///P, where P is the VMM's vsock socket (Firecracker's uds_path): the broker listens at P_618. PeerUID is the VMM's user
	CID         uint32 `json:"cid,omitempty"`           // of the VM on the kernel's vsock
	NoBootNonce bool   `json:"no_boot_nonce,omitempty"` // with CID: who comes from it first is believed, for the VM can be given no nonce

	Attach    bool `json:"attach,omitempty"`     // the VM has an init of its own, which starts torno-guest attach and the workload: Workload is empty
	OwnEgress bool `json:"own_egress,omitempty"` // the VM has a network card: credentials are added, nothing is contained

	Machine *Machine `json:"machine,omitempty"` // what torno run says of the VM that it starts
}

// A Machine is a VM as torno run starts it. It is for people: nothing is decided by it.
type Machine struct {
	Kind   string `json:"kind"`   // "microvm" or "q35"
	Accel  string `json:"accel"`  // "kvm", or "tcg", which emulates it
	Image  string `json:"image"`  // name of its root file system
	Kernel string `json:"kernel"` // release
	Memory uint64 `json:"memory"` // bytes
	CPUs   int    `json:"cpus"`
}

// A ConsoleReport is what a session's VM said last on its console. The bytes are a guest's: whoever shows them
// must escape them.
type ConsoleReport struct {
	Session string `json:"session"`
	Text    string `json:"text"` // at most MaxConsole bytes
}

// MaxConsole bounds what is kept of a session's console, in bytes.
const MaxConsole = 8 << 10

// SessionCreated tells the caller where the session's guest must connect.
type SessionCreated struct {
	ID       string   `json:"id"`
	Broker   string   `json:"broker"`               // unix:///… of the session's own socket, hybrid:///… as registered, or vsock://2:618
	Boot     []byte   `json:"boot_nonce,omitempty"` // with CID: NonceSize bytes that the VM must be given, and nobody else; its hello carries them
	Warnings []string `json:"warnings,omitempty"`
}

// SessionWaiting is the state of a session whose guest has not said hello.
const SessionWaiting = "waiting"

// SessionInfo is what sessions list and show print.
type SessionInfo struct {
	ID          string             `json:"id"`
	Agent       string             `json:"agent"`
	Isolation   protocol.Isolation `json:"isolation"`
	State       string             `json:"state"` // "waiting" (no hello yet), "live", "suspended", "ended", "revoked"
	Created     time.Time          `json:"created"`
	Ended       *time.Time         `json:"ended,omitempty"`
	Identity    string             `json:"identity"`             // how the guest is told apart, for people
	Containment string             `json:"containment"`          // what keeps the workload from going elsewhere, for people
	Weaknesses  []string           `json:"weaknesses,omitempty"` // what a person should know of it
	Argv        []string           `json:"argv"`
	Secrets     []SecretUse        `json:"secrets"`
	Requests    uint64             `json:"requests"`
	Refused     uint64             `json:"refused"`
	BytesUp     uint64             `json:"bytes_up"`
	BytesDown   uint64             `json:"bytes_down"`
	Streams     int                `json:"streams"` // open now
	Last        string             `json:"last,omitempty"`
	Grants      []string           `json:"grants,omitempty"` // what a person has allowed for the rest of the session, as rules
	Limits      *AgentLimits       `json:"limits,omitempty"`
	Machine     *Machine           `json:"machine,omitempty"` // of torno run
	Console     string             `json:"console,omitempty"` // what it said last; not escaped
}

// A Proof is what searching a machine's memory for the secrets of its session found, in totals. It does not
// say which was found nor where, and of how many only whether: otherwise who can show the broker a memory
// of their own making could ask it about secrets.
type Proof struct {
	Outcome   ProofOutcome `json:"outcome"`
	Secrets   int          `json:"secrets"`           // searched for
	Weak      int          `json:"weak,omitempty"`    // not, being too short for the guarantee
	Exposed   int          `json:"exposed,omitempty"` // not, being meant to be inside
	Encodings int          `json:"encodings"`
	Windows   int          `json:"windows"` // runs of the length that counts, in all encodings without escapes
	Size      int64        `json:"size"`    // bytes of memory
	Present   int64        `json:"present"` // of them, bytes that the machine has touched; the others are holes
	Zero      int64        `json:"zero"`    // of them, bytes in pages of zeros
	Control   bool         `json:"control"` // what is in every guest's memory was found in the same pass
	Seconds   float64      `json:"seconds"`
}

// A ProofOutcome says what a Proof proves.
type ProofOutcome string

// The outcomes.
const (
	ProofClean     ProofOutcome = "clean"      // no run of any secret, and the control was found
	ProofLeak      ProofOutcome = "leak"       // some run of some secret; the session is suspended
	ProofNoControl ProofOutcome = "no_control" // not even the control: nothing is proved
)

// A SecretUse names one secret version that a session uses.
type SecretUse struct {
	Name        string `json:"name"`
	Version     int    `json:"version"`
	Expose      Expose `json:"expose,omitempty"`
	Placeholder bool   `json:"placeholder,omitempty"`

	Rotation Rotation     `json:"rotation,omitempty"`
	Expires  time.Time    `json:"expires,omitzero"`
	State    VersionState `json:"state,omitempty"` // of a live session: VersionRevoked or VersionExpired, else empty
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
