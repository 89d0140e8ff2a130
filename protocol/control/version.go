package control

import "time"

// Paths of the control API that are about the versions of a secret.
const (
	PathHistory = "/v1/secrets/history" // GET ?agent=&name= → []SecretVersion, oldest first
	PathRevoke  = "/v1/secrets/revoke"  // POST ?agent=&name=&version=N → []SecretVersion: those that were revoked; without version all
)

// A Place is a kind of content in a request.
type Place string

// The places where a placeholder can be replaced.
const (
	PlaceForm Place = "form" // content that is application/x-www-form-urlencoded
	PlaceJSON Place = "json" // content that is JSON, by its media type
)

// A SecretVersion is one version of a secret, without its value.
type SecretVersion struct {
	Meta
	State    VersionState `json:"state"`
	Revoked  time.Time    `json:"revoked,omitzero"`
	Uses     uint64       `json:"uses"` // requests; the last seconds before a crash are not counted
	LastUsed time.Time    `json:"last_used,omitzero"`
	Sessions int          `json:"sessions,omitempty"` // live ones that use it
}

// A VersionState says whether a version can be used.
type VersionState string

// The states of a version.
const (
	VersionCurrent    VersionState = "current"
	VersionSuperseded VersionState = "superseded" // by a newer one; sessions that began with it may still use it
	VersionExpired    VersionState = "expired"
	VersionRevoked    VersionState = "revoked" // its value is gone
)

// What becomes of a request with a placeholder in a credential position for a host that it is not for.
const (
	PlaceholdersBlock     = "block"     // it is refused
	PlaceholdersLog       = "log"       // it goes on, with the placeholder, which is worth nothing; that is recorded
	PlaceholdersTerminate = "terminate" // it is refused, and the session is revoked
)
