package control

import "time"

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
	Locked    bool         `json:"locked,omitempty"`   // the broker waits for the passphrase, and knows nothing else of it
	Problem   string       `json:"problem,omitempty"`  // why the last rotation stopped; it goes on when asked again
}

// KeyUnlock gives the passphrase to a broker that waits for it.
type KeyUnlock struct {
	Passphrase []byte `json:"passphrase"`
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
