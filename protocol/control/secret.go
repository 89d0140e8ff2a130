package control

import "time"

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
	Fields []FieldTemplate `json:"fields,omitempty"` // with header: at least one; with hmac: formulas
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
	SchemeJWT           = "jwt"            // a key: the tokens are JWTs that the broker signs itself (RFC 7519)

	// What follows signs requests, and is never sent.
	SchemeSigV4        = "sigv4"         // AWS Signature Version 4
	SchemeMessage      = "rfc9421"       // HTTP Message Signatures
	SchemeHMAC         = "hmac"          // an HMAC over what formulas say
	SchemeAzureStorage = "azure-storage" // Shared Key of Azure Storage
	SchemeJWTRequest   = "jwt-request"   // a JWT for each request, with claims about it

	// What follows is traded for temporary keys, which sign as SchemeSigV4 does.
	SchemeAWSRole        = "aws-role"         // keys of AWS that assume a role (AssumeRole)
	SchemeAWSWebIdentity = "aws-web-identity" // a token, or the key of its issuer (AssumeRoleWithWebIdentity)
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
	Source   string    `json:"source,omitempty"`  // PLUGIN:REF, where the value is fetched, or what signs: what is sealed is this text. Empty: the value itself is
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
